"""Results of other releases of jwst, and the page docs/releases.md.

``make conformance JWST=1.20.2`` writes one file of ``releases/`` and the page;
``python -m tests.conformance.releases`` writes the page alone.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core import EQUALS_JWST
from tests.conformance.cases import kind_of
from tests.conformance.odd_table import Outcome
from tests.conformance.rows import Difference, Row

__all__ = ["release_result", "unexplained", "write_result"]

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("releases")
PAGE = ROOT / "docs" / "releases.md"


@dataclass(frozen=True)
class Reason:
    """A known cause of differences, for docs/releases.md.

    Attributes
    ----------
    letter : str
        In the table.
    until : str
        First release that does not differ any more.
    found : str
        Regular expression that matches the kind and the difference.
    text : str
        What differs, and why.
    in_file_only : bool
        Whether the data models are equal anyway.
    """

    letter: str
    until: str
    found: str
    text: str
    in_file_only: bool = False


_ODD = "odd input"
_JWST = "https://github.com/spacetelescope/jwst/pull"
_MODELS = "https://github.com/spacetelescope/stdatamodels/pull"
REASONS = (
    Reason(
        "A",
        "2.0.0",
        "has no parameter user_supplied_dq|user DQ of .*: jwst refused",
        "The step does not know user-supplied flags. The parameter came with "
        f"[#10100]({_JWST}/10100).",
    ),
    Reason(
        "B",
        "1.18.0",
        "^substripe: ",
        "The step cuts one rectangle out of the mask of a NIRCam DHS exposure, in place of the rows that its "
        f"substripes read. [#9243]({_JWST}/9243) gathers the rows.",
    ),
    Reason(
        "C",
        "3.0.0",
        "^substripe: ",
        "The step gathers substripes from the first row of the detector, not from the start of the subarray, and up to "
        "1.20 over the whole width of the mask. "
        f"[#10317]({_JWST}/10317) cuts the width, [#10534]({_JWST}/10534) reads the start.",
    ),
    Reason(
        "D",
        "2.0.0",
        "^superstripe: |INT_TIMES_STRIPE",
        "The step does not know superstripes: it rejects them, or makes one image of flags for all stripes. They "
        f"came with [#10317]({_JWST}/10317).",
    ),
    Reason(
        "E",
        "3.0.0",
        "^superstripe: ",
        "The step makes a RampModel with an image of flags for each stripe, reads every stripe from the first row "
        "of the detector, and drops an existing PIXELDQ. The data model SuperstripeRampModel came with "
        f"[#10446]({_JWST}/10446), the start row with [#10534]({_JWST}/10534).",
    ),
    Reason(
        "F",
        "3.0.0",
        "refused by jwst alone: ValueError: operands could not be broadcast",
        "The step fails if an existing PIXELDQ, GROUPDQ or DQ has the wrong size. "
        f"[#10446]({_JWST}/10446) replaces it by zeros.",
    ),
    Reason(
        "I",
        "2.0.0",
        r"PRIMARY R_MASK$|meta\.ref_file\.mask\.name$",
        "If the mask is named N/A, the release treats it as a path, and writes /home/me/N/A or A to R_MASK. stpipe 1.1 "
        "does not any more.",
    ),
    Reason(
        "J",
        "3.0.0",
        "EXP_TYPE = 'fgs_acq1': jwst goes on, here refused",
        "The release drops an EXP_TYPE that is not in capitals, and makes a RampModel of a guider exposure.",
    ),
    Reason(
        "G",
        "1.18.0",
        "float32 file: HDU ERR$",
        "The release writes an HDU ERR of zeros, which no step reads before ramp fitting replaces it. Removed by "
        f"[stdatamodels #384]({_MODELS}/384).",
        in_file_only=True,
    ),
    Reason(
        "H",
        "1.20.0",
        "float32 file: PRIMARY titles between cards$",
        "The release writes the title CRDS parameters between the cards of the primary header; stdatamodels 4.1 "
        "does not any more.",
        in_file_only=True,
    ),
)
"""Known causes; of several that match, those of the file and then the first one count."""


def release_result(
    release: str, versions: str, rows: list[Row], outcomes: list[Outcome]
) -> dict[str, Any]:
    """Return the result of one release: how many cases of each mode differ in which way."""
    odd = Row(_ODD, "", cases=len(outcomes))
    for outcome in outcomes:
        odd.refused += outcome.is_same and outcome.jwst == "refused"
        # The same model in a file of another form is in the last row of the page.
        if outcome.is_unexplained and outcome.ours != "the same model":
            what = f"{outcome.odd.what}: jwst {outcome.jwst}, here {outcome.ours}"
            odd.differs(outcome.odd.what, what, "", kind_of(outcome.odd.case))
    return {
        "release": release,
        "versions": versions,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "modes": [_summary(row) for row in (*rows, odd)],
    }


def _summary(row: Row) -> dict[str, Any]:
    cases: dict[str, set[str]] = {}
    examples: dict[str, str] = {}
    for found in row.differences:
        what = _shared(found)
        cases.setdefault(what, set()).add(found.case)
        examples.setdefault(what, f"{found.case}: {found.detail}"[:200])
    return {
        "mode": row.what,
        "cases": row.cases,
        "refused": row.refused + row.stricter.total(),
        "differences": {
            what: {"cases": len(names), "example": examples[what]} for what, names in cases.items()
        },
    }


def _shared(difference: Difference) -> str:
    """Return the kind of exposure and the difference, without the numbers of its case."""
    what = f"{difference.kind}: {difference.what}"
    if difference.what.startswith("refused"):
        what += f": {re.sub(r'[0-9]+', '#', difference.detail)[:120]}"
    return what


def unexplained(result: dict[str, Any]) -> list[str]:
    """Return the differences of a result that have no known reason."""
    return [
        f"{mode['mode']}: {what}"
        for mode in result["modes"]
        for what in mode["differences"]
        if _reason(what, result["release"]) is None
    ]


def _reason(what: str, release: str) -> Reason | None:
    return next(
        (
            reason
            for reason in sorted(REASONS, key=lambda reason: not reason.in_file_only)
            if re.search(reason.found, what) and _key(release) < _key(reason.until)
        ),
        None,
    )


def _key(release: str) -> tuple[int, ...]:
    """Return a sort key; names such as main come last."""
    return tuple(map(int, re.findall(r"\d+", release))) or (9999,)


def write_result(result: dict[str, Any]) -> None:
    """Write a result and, for a numbered release, the page."""
    for difference in unexplained(result):
        print(f"no known reason: {difference}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result['release']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page())


def page() -> str:
    """Return docs/releases.md, from the results of numbered releases."""
    paths = sorted(RESULTS.glob("[0-9]*.json"), key=lambda path: _key(path.stem))
    results = [json.loads(path.read_text()) for path in paths]
    columns = [_column(result) for result in results]
    modes = dict.fromkeys(mode for column in columns for mode in column)
    used = {letter for column in columns for cell in column.values() for letter in cell}
    reasons = [reason for reason in REASONS if reason.letter in used]
    of_file = {reason.letter for reason in reasons if reason.in_file_only}
    forms = [of_file.intersection(set().union(*column.values())) for column in columns]
    return _TEXT.format(
        equals=EQUALS_JWST,
        heads=_table_row("mode", *(result["release"] for result in results)),
        rule="|---" * (len(results) + 1) + "|",
        modes="\n".join(
            _table_row(mode, *(_cell(column.get(mode), of_file) for column in columns))
            for mode in modes
        ),
        forms=_table_row(
            "form of the files", *(" ".join(sorted(form)) or "equal" for form in forms)
        ),
        reasons="\n".join(
            [
                *(
                    f"- **{reason.letter}**, until {reason.until}: {reason.text}"
                    for reason in reasons
                ),
                *(
                    f"- **?**, {result['release']}, of unknown cause: {difference}"
                    for result in results
                    for difference in unexplained(result)
                ),
            ]
        ),
        results="\n".join(_made(result) for result in results),
    )


def _column(result: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return how many cases differ, by mode and letter; "?" stands for an unknown reason."""
    column: dict[str, dict[str, int]] = {}
    for mode in result["modes"]:
        cell = column.setdefault(mode["mode"], {})
        for what, found in mode["differences"].items():
            reason = _reason(what, result["release"])
            letter = reason.letter if reason else "?"
            # A case of a mode can differ in several ways, an odd input in one.
            count = sum if mode["mode"] == _ODD else max
            cell[letter] = count((cell.get(letter, 0), found["cases"]))
    return column


def _cell(counts: dict[str, int] | None, left_out: set[str]) -> str:
    if counts is None:
        return "not compared"
    shown = [f"{letter} {counts[letter]}" for letter in sorted(counts.keys() - left_out)]
    return ", ".join(shown) or "equal"


def _made(result: dict[str, Any]) -> str:
    cases, refused = (sum(mode[key] for mode in result["modes"]) for key in ("cases", "refused"))
    return _table_row(result["release"], result["date"], cases, refused, result["versions"])


def _table_row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


_TEXT = """\
# Releases of jwst

Products equal those of `jwst` {equals} bit for bit ([every mode](reference/conformance.md)). If your pipeline
is another release, this page says in which modes its own `dq_init` makes the same product, and in which it does not.

In the table, *equal* means that the release reads the product as the data model that it makes itself: every pixel, flag
and keyword of the metadata; and that the next steps of the release, and its rate images, are equal. A letter is a
difference, explained below, with the number of cases that have it. *Form of the files* is what differs between the
files although the data models are equal.

{heads}
{rule}
{modes}
{forms}

## What differs

{reasons}

## How it was compared

Each column is the newest release of its line, in an environment of its own:

```bash
make conformance JWST=1.20.2 SEEDS=20 EVERY=5
```

EVERY=5 compares every fifth case of a mode; without it, all are compared. Cases that the release and the function both
reject count as equal. The command prints differences without a known reason, and fails if there are any. JWST=main
compares with the development version of `jwst`.

| release | compared on | cases | rejected by both | environment |
|---|---|---|---|---|
{results}

Releases up to 1.17 do not run with the newest `crds`, which imports a module that their `stdatamodels` lack. Install
them with `pip install jwst==1.17.1 'crds<13'`.
"""


if __name__ == "__main__":
    PAGE.write_text(page())
