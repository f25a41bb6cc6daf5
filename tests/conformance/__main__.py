"""Compare the function with jwst's own step (``make conformance``).

jwst runs in its own environment, on the same files. The result is RESULTS.md beside this file or, for
another release than the one that the function equals, a file in releases/ and docs/releases.md. The
exit status is 1 if anything differs that has no known reason.
"""

import argparse
import json
import logging
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from astropy.io import fits

from core import EQUALS_JWST
from core.compat import MODEL_EXTENSIONS, Kind
from core.errors import ReferenceUnavailable
from core.fits.hdus import Keywords
from core.product import SUFFIXES, Encoding
from handler.crds.parameters import FITS_KEYWORDS, INTEGERS, LOGICALS, NUMBERS, WORDS
from handler.crds.rules import Rules
from handler.publish import logger
from handler.s3.objects import S3Location
from infra.__main__ import main as infra
from infra.demo.local_aws import MIRROR, LocalAws, copy_cache, local_aws
from tests.benchmark.servers import absolute
from tests.conformance import golden
from tests.conformance.cases import Case, kind_of, random_cases, write_case
from tests.conformance.golden import golden_line, why_stricter
from tests.conformance.matrix import MASKS, MATRIX_RULES, WHOLE_PIPELINE, matrix
from tests.conformance.odd_table import Outcome, odd_outcomes, odd_page
from tests.conformance.ours import Ours
from tests.conformance.releases import release_result, unexplained, write_result
from tests.conformance.rows import Row, report_row
from tests.conftest import SHARED
from tests.infra.crds_server import crds_server
from tests.jwst import Jwst
from tests.samples.masks import write_mask
from tests.samples.mirror import CONTEXT, write_rules, write_server_config

HERE = Path(__file__).parent
OTHER = "jwst_9002.pmap"
_BATCH = 250


def compare(cases: list[tuple[Row, Case]], ours: Ours, jwst: Jwst, scratch: Path) -> None:
    """Run jwst and the function on the same cases; record differences in the rows."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        messages = {}
        for _, case in cases:
            place = folder / case.name
            write_case(case, place)
            for encoding in Encoding:
                product = ours.product(place, case, encoding)
                if isinstance(product, bytes):
                    (place / f"{encoding}.fits").write_bytes(product)
                else:
                    messages[case.name] = product
        jwst.run("run", folder)
        jwst.run("compare", folder)
        for row, case in cases:
            row.cases += 1
            row.golden.append(golden_line(case, folder / case.name))
            judge(case, folder / case.name, messages.get(case.name), row)


def judge(case: Case, place: Path, message: str | None, row: Row) -> None:
    """Record the outcome of one case."""
    theirs = place / "jwst.refused"
    if message is not None and theirs.exists():
        row.refused += 1
    elif message is not None:
        reason = why_stricter(message)
        if reason is None:
            row.differs(case.name, "refused by us alone", message, kind_of(case))
        else:
            row.stricter[reason] += 1
    elif theirs.exists():
        row.differs(case.name, "refused by jwst alone", theirs.read_text(), kind_of(case))
    else:
        for compared, found in json.loads((place / "differences.json").read_text()).items():
            for difference in found:
                what, _, detail = difference.partition(": ")
                row.differs(case.name, f"{compared}: {what}", detail, kind_of(case))


def questions(cache: Path, context: str) -> Iterator[dict[str, Any]]:
    """Yield headers with every value that the MASK rules of a context match on."""
    text = {path.name: path.read_text() for path in (cache / "mappings" / "jwst").iterdir()}
    subarrays = ("FULL", "GENERIC", "SUB64", "SUBSTRIP256", "SUB80", "BRIGHTSKY", "N/A", "NOSUCH")
    patterns = ("NRSRAPID", "NRSIRS2", "NRSIRS2RAPID", "FASTR1")
    types = ("FGS_ID-STACK", "FGS_ID-IMAGE", "FGS_TRACK", "NRC_IMAGE")
    for instrument, imap in re.findall(r"'([A-Z]+)' ?: '(jwst_\w+\.imap)'", text[context]):
        found = re.search(r"'MASK' ?: '(jwst_\w+\.rmap)'", text[imap])
        if found is None:
            continue
        rules = text[found.group(1)]
        detectors = sorted(set(re.findall(r"\('([A-Z0-9]+)',", rules)))
        dates = sorted(set(re.findall(r"'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)'", rules)))
        moments = [
            datetime.fromisoformat(date) + timedelta(seconds=step)
            for date in dates
            for step in (-1, 0, 1)
        ]
        for detector in [*detectors, "NOSUCH"]:
            for subarray in subarrays:
                for pattern in patterns if "READPATT" in rules else patterns[:1]:
                    for kind in types if "EXPOSURE.TYPE" in rules else types[-1:]:
                        for moment in moments:
                            yield {
                                "INSTRUME": instrument, "DETECTOR": detector, "SUBARRAY": subarray,
                                "READPATT": pattern, "EXP_TYPE": kind,
                                "DATE-OBS": f"{moment:%Y-%m-%d}", "TIME-OBS": f"{moment:%H:%M:%S}",
                            }  # fmt: skip


_PATHS = {
    "INSTRUME": "META.INSTRUMENT.NAME", "DETECTOR": "META.INSTRUMENT.DETECTOR",
    "SUBARRAY": "META.SUBARRAY.NAME", "READPATT": "META.EXPOSURE.READPATT",
    "EXP_TYPE": "META.EXPOSURE.TYPE", "DATE-OBS": "META.OBSERVATION.DATE",
    "TIME-OBS": "META.OBSERVATION.TIME",
}  # fmt: skip


def compare_choices(
    cache: Path, context: str, row: Row, aws: LocalAws, jwst: Jwst, scratch: Path
) -> None:
    """Compare the masks that crds and the function's rules select for the same headers."""
    prefix = f"choices-{context[5:9]}"
    copy_cache(cache, aws.client("s3"), MIRROR, f"{prefix}/", instruments=())
    rules = Rules(S3Location(MIRROR, prefix), scratch / prefix, aws.client("s3"))
    headers = list(questions(cache, context))
    asked = [
        {"context": context, "header": {_PATHS[k]: v for k, v in header.items()}}
        for header in headers
    ]
    path = scratch / f"{prefix}.json"
    path.write_text(json.dumps(asked))
    replace(jwst, cache=cache).run("choose", path)
    for header, theirs in zip(
        headers, json.loads(path.with_suffix(".answers").read_text()), strict=True
    ):
        row.cases += 1
        try:
            keywords = Keywords(fits.Header(header), "exposure")
            chosen = rules.best_reference(keywords, context).mask or "N/A"
        except ReferenceUnavailable as exc:
            # A catalogue older than the context may lack a mask that the rules name.
            named = re.match(r"(jwst_\w+_mask_\d+\.fits): chosen by", str(exc))
            chosen = named.group(1) if named else "NOT FOUND"
        expected = "N/A" if theirs.upper() == "NOT FOUND N/A" else theirs
        expected = "NOT FOUND" if expected.startswith("NOT FOUND") else expected
        row.refused += chosen == expected == "NOT FOUND"
        if chosen != expected:
            row.differs(context, str(header), f"{chosen}, crds says {expected}")


def compare_builds(cache: Path, row: Row, aws: LocalAws, jwst: Jwst, scratch: Path) -> None:
    """Compare the context that crds and the function use if none is named."""
    place = f"s3://{MIRROR}/builds"
    for context in (CONTEXT, OTHER):
        with crds_server(cache) as server:
            server.builds["jwst", EQUALS_JWST] = context
            infra(["mirror", "sync", place, "--server", server.url, "--context", "build"])
            theirs = replace(jwst, server=server.url).answer("build")
        location = S3Location.parse_prefix(place)
        rules = Rules(location, scratch / f"builds-{context}", aws.client("s3"))
        chosen = rules.context_name("build")
        row.cases += 1
        if chosen != theirs:
            row.differs("build", context, f"{chosen}, crds says {theirs}")


_MODELS = {
    Kind.RAMP: "RampModel",
    Kind.SUPERSTRIPE: "SuperstripeRampModel",
    Kind.GUIDER: "GuiderRawModel",
}
_QUALITY = {"SCI", "PIXELDQ", "GROUPDQ", "DQ"}


def compare_tables(row: Row, jwst: Jwst) -> None:
    """Check that our tables equal those of jwst and its schemas."""
    models, keywords = jwst.answer("models"), jwst.answer("keywords")
    types = {keyword: keywords[keyword][0] for keyword in FITS_KEYWORDS.values()}
    of_type = {kind: {k for k, known in types.items() if known == kind} for kind in types.values()}
    theirs: dict[str, object] = {
        "SUFFIXES of core/product.py": frozenset(jwst.answer("suffixes")),
        "INTEGERS of schema.py": of_type["integer"],
        "NUMBERS of schema.py": of_type["number"],
        "LOGICALS of schema.py": of_type["boolean"],
        "WORDS of schema.py": {
            keyword: frozenset(keywords[keyword][1]) for keyword in types if keywords[keyword][1]
        },
    }
    ours: dict[str, object] = {
        "SUFFIXES of core/product.py": SUFFIXES,
        "INTEGERS of schema.py": INTEGERS,
        "NUMBERS of schema.py": NUMBERS,
        "LOGICALS of schema.py": LOGICALS,
        "WORDS of schema.py": dict(WORDS),
    }
    for kind, model in _MODELS.items():
        what = f"MODEL_EXTENSIONS of core/compat.py, {model}"
        ours[what] = dict(MODEL_EXTENSIONS[kind])
        theirs[what] = {
            name: asked if isinstance(asked, int) else frozenset(asked)
            for name, asked in models[model].items()
            if name not in _QUALITY
        }
    for what, expected in theirs.items():
        row.cases += 1
        if ours[what] != expected:
            row.differs("tables", what, f"{ours[what]}, jwst has {expected}")


def report(rows: list[Row], versions: str, seeds: int, minutes: float) -> str:
    """Return the page RESULTS.md."""
    lines = [
        "# Conformance",
        "",
        f"Compared on {datetime.now(UTC):%Y-%m-%d} with `make conformance SEEDS={seeds}` in "
        f"{minutes:.0f} minutes: {versions}.",
        "",
        "| mode | compared | cases | refused by both | differences |",
        "|---|---|---|---|---|",
        *(
            f"| {row.what} | {row.compared} | {row.cases} | {row.refused} | {len(row.differences)} |"
            for row in rows
        ),
        "",
        "In float32 encoding the product and jwst's are compared by `astropy.io.fits.FITSDiff`; in native",
        "encoding both are opened by `jwst.datamodels` and their class, arrays and metadata compared;",
        "*next steps* are group_scale and refpix, or guider_cds, run on both. *Rate images* are what",
        "`Detector1Pipeline` makes of the raw exposure, and of the product with dq_init left out or run once",
        "more: slopes, errors, variances, flags and metadata, of the exposure and of each integration, with",
        "references that are made for it (`detector_pipeline.py`). What is left out of the comparison, and",
        "why, stands in `with_jwst.py` (EXEMPT_*); comments of cards are those of the input here, and of",
        "jwst's schema there.",
        "",
    ]
    stricter: Counter[str] = sum((row.stricter for row in rows), Counter())
    if stricter:
        lines += ["Refused here by the design, where jwst goes on (random faults only):", ""]
        lines += [f"- {reason}: {count}" for reason, count in stricter.most_common()]
    for row in rows:
        lines += [f"- **{row.what}**: {difference}" for difference in row.differences[:20]]
    return "\n".join(lines) + "\n"


def _write_cache(cache: Path) -> None:
    """Write the CRDS cache that jwst and the function share."""
    write_rules(cache, rules=MATRIX_RULES)
    for mask in MASKS:
        write_mask(mask, cache / "references" / "jwst" / mask.instrument.lower() / mask.name)
    write_rules(cache, context=OTHER, rules=MATRIX_RULES)
    write_server_config(cache)


def some_of(cases: list[Case], every: int) -> list[Case]:
    """Return every n-th case, at least one; the first of a mode is often the largest."""
    return cases[every // 2 % len(cases) :: every]


def compare_modes(
    ours: Ours, jwst: Jwst, scratch: Path, every: int, seeds: tuple[int, int]
) -> tuple[list[Row], list[Outcome]]:
    """Compare every mode, odd input and random cases; `seeds` are how many, and the first."""
    everything = "float32 file, native data model, next steps"
    to_the_end = {WHOLE_PIPELINE: f"{everything}, rate images"}
    by_row: dict[str, list[Case]] = {}
    for what, case in matrix(jwst.answer("apertures")):
        by_row.setdefault(what, []).append(case)
    rows = [Row(what, to_the_end.get(what, everything)) for what in by_row]
    cases = [(row, case) for row in rows for case in some_of(by_row[row.what], every)]
    random = Row("random geometry, masks and faults", "float32 file, native data model")
    cases += [(random, case) for case in random_cases(*seeds)]
    for first in range(0, len(cases), _BATCH):  # as many as fit on a disk
        compare(cases[first : first + _BATCH], ours, jwst, scratch)
    return [report_row(row) for row in (*rows, random)], odd_outcomes(ours, jwst, scratch)


def compare_references(cache: Path, aws: LocalAws, jwst: Jwst, scratch: Path) -> list[Row]:
    """Compare choices of masks, tables of keywords and build contexts."""
    rows = []
    contexts = [(cache, CONTEXT, "generated rules")]
    real = SHARED / "crds-mirror"
    contexts += [(real, "jwst_0541.pmap", "real rules of jwst_0541")] if real.is_dir() else []
    for place, context, what in contexts:
        row = Row(f"choice of mask, {what}", "against crds.getrecommendations")
        compare_choices(place, context, row, aws, jwst, scratch)
        rows.append(report_row(row))
    row = Row("tables of suffixes, keywords and data models", "against jwst and its schemas")
    compare_tables(row, jwst)
    rows.append(report_row(row))
    row = Row("build context", "against crds.client.api.get_default_context beside jwst")
    compare_builds(cache, row, aws, jwst, scratch)
    return [*rows, report_row(row)]


def main() -> None:
    """Run all comparisons and write the pages."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jwst", type=absolute, required=True, help="jwst's own interpreter")
    parser.add_argument("--release", help="its release, if not the one that the function equals")
    parser.add_argument("--every", type=int, default=1, help="compare every n-th case of a mode")
    parser.add_argument("--seeds", type=int, default=golden.COUNT, help="how many random cases")
    parser.add_argument("--seed", type=int, default=1, help="of the random cases")
    arguments = parser.parse_args()
    logger.setLevel("CRITICAL")
    logging.getLogger("core").setLevel("CRITICAL")
    os.environ["POWERTOOLS_METRICS_DISABLED"] = "true"
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as name, local_aws() as aws:
        scratch = Path(name)
        cache = scratch / "cache"
        _write_cache(cache)
        copy_cache(cache, aws.client("s3"), MIRROR)
        jwst = Jwst(arguments.jwst, HERE / "with_jwst.py", cache)
        ours = Ours.of(aws, scratch / "tmp")
        seeds = (arguments.seeds, arguments.seed)
        rows, outcomes = compare_modes(ours, jwst, scratch, arguments.every, seeds)
        versions = jwst.run("versions").strip()
        if arguments.release:
            result = release_result(arguments.release, versions, rows, outcomes)
            write_result(result)
            sys.exit(bool(unexplained(result)))
        rows += compare_references(cache, aws, jwst, scratch)
    minutes = (datetime.now(UTC) - started).total_seconds() / 60
    (HERE / "ODD.md").write_text(odd_page(outcomes, versions))
    (HERE / "RESULTS.md").write_text(report(rows, versions, arguments.seeds, minutes))
    random = next(row.golden for row in rows if row.what.startswith("random"))
    if arguments.seed == golden.SEED and len(random) >= golden.COUNT:
        odd = [outcome.golden for outcome in outcomes]
        golden.write_golden([*random[: golden.COUNT], *odd], versions)
    sys.exit(any(o.is_unexplained for o in outcomes) or any(row.differences for row in rows))


if __name__ == "__main__":
    main()
