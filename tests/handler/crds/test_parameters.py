"""Types and words of the parameters that rules match on, as in the schemas of jwst."""

from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits

from core.errors import InputRejected
from core.fits.hdus import Keywords
from handler.crds.parameters import (
    FITS_KEYWORDS,
    INTEGERS,
    LOGICALS,
    NUMBERS,
    WORDS,
    known_parameters,
    matching_parameters,
)
from handler.crds.rules import Rules
from tests.handler.crds.test_rules import rules_of
from tests.samples.mirror import write_rules

MATCHED = ("META.EXPOSURE.NGROUPS", "META.EXPOSURE.NFRAMES", "META.VISIT.TSOVISIT")
RULE = "jwst_nircam_mask_9001.rmap"


def rules_for(folder: Path, parameters: tuple[str, ...], choices: dict[Any, int]) -> Rules:
    dated = {(values, "2000-01-01 00:00:00"): number for values, number in choices.items()}
    write_rules(folder, rules={"nircam": (parameters, dated)})
    files = {path.name: path.read_text() for path in (folder / "mappings" / "jwst").iterdir()}
    return rules_of(files)


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    """Return rules that match on NGROUPS, NFRAMES and TSOVISIT."""
    return rules_for(
        tmp_path,
        MATCHED,
        {("3", "1", "T"): 9001, ("3", "1", "F"): 9002, ("N/A", "N/A", "N/A"): 9003},
    )


def keywords(**header: Any) -> Keywords:
    date = {"DATE-OBS": "2023-03-01", "TIME-OBS": "00:00:00"}
    return Keywords(fits.Header({"INSTRUME": "NIRCAM", **date, **header}), "x_uncal.fits")


@pytest.mark.parametrize(
    ("header", "number"),
    [
        ({"NGROUPS": 3, "NFRAMES": 1, "TSOVISIT": True}, 9001),
        ({"NGROUPS": 3, "NFRAMES": 1, "TSOVISIT": False}, 9002),
        ({"NGROUPS": 3, "NFRAMES": 1, "TSOVISIT": None}, 9003),
        ({"NGROUPS": 4, "NFRAMES": 1, "TSOVISIT": True}, 9003),
        ({}, 9003),
    ],
)
def test_rules_match_on_numbers_and_logicals(
    rules: Rules, header: dict[str, Any], number: int
) -> None:
    assert rules._evaluate(RULE, keywords(**header)) == f"jwst_nircam_mask_{number}.fits"


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("NGROUPS", "3", "NGROUPS is '3', expected an integer"),
        ("NGROUPS", 3.0, "NGROUPS is 3.0, expected an integer"),
        ("NFRAMES", True, "NFRAMES is True, expected an integer"),
        ("TSOVISIT", "true", r"TSOVISIT is 'true', expected a logical \(T or F\)"),
        ("TSOVISIT", "T", r"TSOVISIT is 'T', expected a logical \(T or F\)"),
        ("TSOVISIT", 1, r"TSOVISIT is 1, expected a logical \(T or F\)"),
    ],
)
def test_value_of_another_type_is_rejected(
    rules: Rules, keyword: str, value: Any, message: str
) -> None:
    header = {"NGROUPS": 3, "NFRAMES": 1, "TSOVISIT": True, keyword: value}
    with pytest.raises(InputRejected, match=f"x_uncal.fits: {message}"):
        rules._evaluate(RULE, keywords(**header))


@pytest.mark.parametrize("parameter", FITS_KEYWORDS)
def test_every_parameter_of_another_type_is_rejected(parameter: str) -> None:
    keyword = FITS_KEYWORDS[parameter]
    numeric = keyword in INTEGERS | NUMBERS | LOGICALS
    with pytest.raises(InputRejected, match=f"{keyword} is .*, expected a"):
        matching_parameters(keywords(**{keyword: "3" if numeric else 3}), [parameter], RULE)


def test_value_of_another_type_is_not_a_known_parameter() -> None:
    header = fits.Header({"NGROUPS": "3", "NFRAMES": 1, "FOCUSPOS": 2.5, "TSOVISIT": "T"})
    assert known_parameters(header) == {
        "META.EXPOSURE.NFRAMES": 1,
        "META.INSTRUMENT.FOCUS_POSITION": 2.5,
    }


def test_infinite_value_is_not_a_known_parameter() -> None:
    header = fits.Header.fromstring("SSTR_STP=                1E999".ljust(80) + "FOCUSPOS=                1E999".ljust(80))  # fmt: skip
    assert known_parameters(header) == {}


def test_subarray_unknown_to_jwst_gives_a_warning(tmp_path: Path) -> None:
    rules = rules_for(tmp_path, ("META.SUBARRAY.NAME",), {("SUB7NEW",): 9001, ("N/A",): 9002})
    new, old = keywords(SUBARRAY="SUB7NEW"), keywords(SUBARRAY="SUB64P")
    assert rules._evaluate(RULE, new) == "jwst_nircam_mask_9001.fits"
    warning = rules._warning(RULE, new, "jwst_nircam_mask_9001.fits")
    assert warning is not None
    assert "x_uncal.fits: SUBARRAY is 'SUB7NEW', which jwst 3.0.0 does not know" in warning
    assert "jwst would choose jwst_nircam_mask_9002.fits" in warning
    assert rules._warning(RULE, old, "jwst_nircam_mask_9002.fits") is None


def test_unknown_subarray_of_equal_mask_gives_no_warning(tmp_path: Path) -> None:
    rules = rules_for(tmp_path, ("META.SUBARRAY.NAME",), {("SUB64P",): 9001, ("N/A",): 9002})
    unknown = keywords(SUBARRAY="SUB7NEW")
    assert rules._warning(RULE, unknown, rules._evaluate(RULE, unknown)) is None


def test_tables_of_the_schema_are_disjoint_and_known() -> None:
    tables = [INTEGERS, NUMBERS, LOGICALS, frozenset(WORDS)]
    assert frozenset().union(*tables) <= set(FITS_KEYWORDS.values())
    assert sum(map(len, tables)) == len(frozenset().union(*tables))
