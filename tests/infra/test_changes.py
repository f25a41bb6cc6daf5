"""Masks that change between two contexts, by dates of observation."""

import pytest

from infra.mirror.changes import changes
from infra.mirror.contexts import Context, Rule

NRCA1 = (("META.INSTRUMENT.DETECTOR", "NRCA1"),)


def context(rules: dict[str, str]) -> Context:
    return Context(
        "x", (), tuple(Rule("nircam", NRCA1, date, mask) for date, mask in rules.items())
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"1999": "a"}, {"1999": "a"}, []),
        ({"1999": "a"}, {"1999": "b"}, [("1999", "", "a", "b")]),
        # A new date of an existing rule: what applied until then is what it replaces.
        ({"1999": "a"}, {"1999": "a", "2022": "b"}, [("2022", "", "a", "b")]),
        ({"1999": "a", "2024": "c"}, {"1999": "a", "2022": "b", "2024": "c"}, [("2022", "2024", "a", "b")]),
        ({"1999": "a"}, {"1999": "a", "2022": "a"}, []),
        ({}, {"2022": "a"}, [("2022", "", "", "a")]),
        ({"2022": "a"}, {}, [("2022", "", "a", "")]),
        ({"1999": "a", "2022": "b"}, {"2022": "b"}, [("1999", "2022", "a", "")]),
        ({"1999": "a", "2022": "N/A"}, {"1999": "b"}, [("1999", "2022", "a", "b"), ("2022", "", "N/A", "b")]),
    ],
)  # fmt: skip
def test_changes_are_split_into_intervals_of_dates(
    before: dict[str, str], after: dict[str, str], expected: list[tuple[str, ...]]
) -> None:
    found = [(c.start, c.stop, c.before, c.after) for c in changes(context(before), context(after))]
    assert found == expected


def test_changes_are_sorted_by_instrument_and_detector() -> None:
    pairs = [(name, f"{n}") for name in ("miri", "nircam", "niriss") for n in range(5)]
    rules = [
        Rule(instrument, (("META.INSTRUMENT.DETECTOR", detector),), "1999", "a")
        for instrument, detector in reversed(pairs)
    ]
    found = changes(Context("x", (), ()), Context("y", (), tuple(rules)))
    assert [(change.instrument, change.parameters[0][1]) for change in found] == pairs
