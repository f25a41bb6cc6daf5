"""Golden vectors: results of jwst 3.0.0 for random cases and odd input, in ``golden.jsonl``.

``make conformance`` records them while jwst runs; ``make test`` replays them without jwst. The file
starts with a line that says how it was made; then there is one line for each case.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.conformance.cases import Case, random_cases
from tests.conformance.digests import digests
from tests.conformance.odd import ODD

__all__ = [
    "COUNT",
    "SEED",
    "golden_cases",
    "golden_line",
    "inputs_digest",
    "product_differences",
    "read_golden",
    "refusal_difference",
    "why_stricter",
    "write_golden",
]

GOLDEN = Path(__file__).with_name("golden.jsonl")
SEED, COUNT = 1, 300
"""Seeds of the random cases in the file."""

_STRICTER = {
    "expected one of them to be +1 or -1": "FASTAXIS and SLOWAXIS name no two axes",
    "expected SUBSTRT1 and SUBSTRT2 to be at least 1": "a corner < 1 in the mask of a superstripe",
    "expected rows of the mask, 0 to": "a stripe before the detector's first row or beyond its last",
    "where the mask has no pixels": "a window that wraps around the mask's edge",
    "expected the size of the images in SCI": "a size of 1 that is broadcast over the image",
}
"""Input that the design rejects although jwst accepts it, by a phrase of the message."""

_EXEMPT = frozenset({"DATE", "FILENAME", "CAL_VER", "CAL_VCS", "CRDS_VER", "HISTORY"})
"""EXEMPT_KEYWORDS of with_jwst.py."""


def why_stricter(message: str) -> str | None:
    """Return why the design rejects a case that jwst accepts, or None."""
    return next((why for phrase, why in _STRICTER.items() if phrase in message), None)


def golden_line(case: Case, folder: Path, odd: str = "") -> dict[str, Any]:
    """Return the result of `jwst`, which ``with_jwst.py run`` wrote to the case's folder."""
    return {
        "odd": odd,
        "case": asdict(case),
        "inputs": "" if odd else inputs_digest(folder),
        **json.loads((folder / "jwst.json").read_text()),
    }


def inputs_digest(folder: Path) -> str:
    """Return a digest of a case's files."""
    files = [folder / f"{name}.fits" for name in ("exposure_uncal", "mask", "user_dq")]
    found = [[file.name, digests(file)] for file in files if file.exists()]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:32]


def golden_cases() -> list[tuple[str, Case]]:
    """Return every case that the file must hold; the odd ones with their names."""
    return [("", case) for case in random_cases(COUNT, SEED)] + [(o.what, o.case) for o in ODD]


def write_golden(lines: Iterable[dict[str, Any]], versions: str) -> None:
    """Replace the file."""
    head = {"made by": versions, "seed": SEED, "count": COUNT}
    GOLDEN.write_text("".join(f"{json.dumps(line)}\n" for line in (head, *lines)))


def read_golden() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the first line of the file, and the others."""
    head, *lines = (json.loads(text) for text in GOLDEN.read_text().splitlines())
    return head, lines


def refusal_difference(line: dict[str, Any], message: str) -> str:
    """Return the difference of a rejection from the result of `jwst`, or an empty string."""
    if "refused" in line or why_stricter(message):
        return ""
    return f"jwst accepts it, and we reject it: {message}"


def product_differences(line: dict[str, Any], product: Path, native: bool) -> list[str]:
    """Return the HDUs in which a product differs from that of `jwst`.

    A native product has other pixel types than that of jwst, and so other cards; its arrays are
    converted to jwst's types, as the data models do.
    """
    if "refused" in line:
        return [f"jwst rejects it: {line['refused']}"]
    theirs = {hdu["name"]: hdu for hdu in line["product"]}
    types = {name: hdu["dtype"] for name, hdu in theirs.items() if native and "dtype" in hdu}
    exempt = _EXEMPT | ({"R_MASK"} if line["case"]["by"] == "mask" else set())
    ours = {hdu["name"]: hdu for hdu in digests(product, exempt, types)}
    if list(ours) != list(theirs):
        return [f"HDUs {list(ours)}, expected {list(theirs)}"]
    compared = (
        ("decisive", "shape", "pixels") if native else ("decisive", "shape", "pixels", "cards")
    )
    return [
        f"{name}: {what} {ours[name].get(what)}, expected {hdu.get(what)}"
        for name, hdu in theirs.items()
        for what in compared
        if ours[name].get(what) != hdu.get(what)
    ]
