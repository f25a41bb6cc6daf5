"""Compare jwst and the function on odd input; the table is ODD.md.

``python -m tests.conformance.odd_table --jwst INTERPRETER`` writes it alone.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.product import Encoding
from handler.publish import logger
from infra.demo.local_aws import MIRROR, copy_cache, local_aws
from tests.benchmark.servers import absolute
from tests.conformance.golden import golden_line
from tests.conformance.matrix import MASKS, MATRIX_RULES
from tests.conformance.odd import ODD, Odd, write_odd
from tests.conformance.ours import Ours
from tests.jwst import Jwst
from tests.samples.masks import write_mask
from tests.samples.mirror import write_rules, write_server_config

__all__ = ["Outcome", "odd_outcomes", "odd_page"]

HERE = Path(__file__).parent
_COMPARED = ("float32 file", "native data model")


@dataclass(frozen=True)
class Outcome:
    """The results of one kind of odd input."""

    odd: Odd
    jwst: str
    ours: str
    is_same: bool
    golden: dict[str, Any]

    @property
    def is_unexplained(self) -> bool:
        """Whether the results differ without a known reason."""
        return not self.is_same and not self.odd.on_purpose


def odd_outcomes(ours: Ours, jwst: Jwst, scratch: Path) -> list[Outcome]:
    """Run every kind; print the differences without a reason."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        outcomes = list(_outcomes(ours, jwst, Path(name)))
    unexplained = [outcome for outcome in outcomes if outcome.is_unexplained]
    print(f"odd input: {len(outcomes)} kinds, {len(unexplained)} differences without a reason")
    for outcome in unexplained:
        print(f"    {outcome.odd.what}: jwst {outcome.jwst}, here {outcome.ours}")
    return outcomes


def _outcomes(ours: Ours, jwst: Jwst, folder: Path) -> list[Outcome]:
    refused = {}
    for odd in ODD:
        place = folder / odd.case.name
        write_odd(odd, place)
        for encoding in Encoding:
            product = ours.product(place, odd.case, encoding)
            if isinstance(product, str):
                refused[odd.case.name] = product
            else:
                (place / f"{encoding}.fits").write_bytes(product)
    jwst.run("run", folder)
    jwst.run("compare", folder)
    return [_judged(odd, folder / odd.case.name, refused.get(odd.case.name)) for odd in ODD]


def _judged(odd: Odd, place: Path, refused: str | None) -> Outcome:
    theirs = place / "jwst.refused"
    golden = golden_line(odd.case, place, odd.what)
    if refused is not None:
        reason = f"refused: {refused.rpartition('uncal.fits')[2].lstrip(':, ')}"
        both = theirs.exists()
        return Outcome(odd, "refused" if both else "goes on", reason, both, golden)
    if theirs.exists():
        return Outcome(odd, "refused", "goes on", is_same=False, golden=golden)
    found = json.loads((place / "differences.json").read_text())
    if not any(found[what] for what in _COMPARED):
        return Outcome(odd, "goes on", "the same", is_same=True, golden=golden)
    parts = sorted({part.partition(": ")[0] for part in found["native data model"]})
    ours = f"another model: {', '.join(parts)}" if parts else "the same model"
    return Outcome(odd, "goes on", ours, is_same=False, golden=golden)


def odd_page(outcomes: list[Outcome], versions: str) -> str:
    """Return the page ODD.md."""
    rows = [
        f"| {o.odd.what} | {o.jwst} | {_cell(o.ours)} | {'' if o.is_same else o.odd.on_purpose} |"
        for o in outcomes
    ]
    lines = [
        "# Odd input",
        "",
        f"Made on {datetime.now(UTC):%Y-%m-%d} by running it (`make conformance`): {versions}.",
        "",
        "Every row is an exposure, a mask and perhaps user DQ that are right but for one thing. *The same*",
        "is the file in float32 encoding and the data model in native encoding; *the same model*, that the",
        "two files differ and open as equal models.",
        "",
        "| what | jwst | here | different on purpose, because |",
        "|---|---|---|---|",
        *rows,
        "",
        "Rules of CRDS are odd, too: two masks that tie, a context that has a bad rule file of another",
        "type for the instrument: both are `ReferenceUnavailable` here, and refused by `crds`",
        "(tests/handler/crds/test_rules.py).",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:160]


def main() -> None:
    """Write the table; exit with 1 if a difference is unexplained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jwst", type=absolute, required=True, help="jwst's own interpreter")
    arguments = parser.parse_args()
    logger.setLevel("CRITICAL")
    logging.getLogger("core").setLevel("CRITICAL")
    os.environ["POWERTOOLS_METRICS_DISABLED"] = "true"
    with tempfile.TemporaryDirectory() as name, local_aws() as aws:
        cache = Path(name) / "cache"
        write_rules(cache, rules=MATRIX_RULES)
        for mask in MASKS:
            if mask.detector == "NRCB1":  # what the kinds ask the rules for
                write_mask(mask, cache / "references" / "jwst" / "nircam" / mask.name)
        write_server_config(cache)
        copy_cache(cache, aws.client("s3"), MIRROR)
        jwst = Jwst(arguments.jwst, HERE / "with_jwst.py", cache)
        outcomes = odd_outcomes(Ours.of(aws, Path(name) / "tmp"), jwst, Path(name))
    (HERE / "ODD.md").write_text(odd_page(outcomes, jwst.run("versions").strip()))
    sys.exit(any(outcome.is_unexplained for outcome in outcomes))


if __name__ == "__main__":
    main()
