"""Tests of the selection: each row is decided as the rules decide it."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from astropy.io import fits

from core.errors import InputRejected, ReferenceUnavailable
from core.fits.hdus import Keywords
from handler.crds.mirror import FileDigest, MirrorConfig
from handler.crds.parameters import FITS_KEYWORDS
from handler.crds.rules import Rules
from handler.ledger import CatalogueRow
from handler.s3.objects import S3Location
from infra.demo.local_aws import MIRROR, LocalAws
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import read_context
from infra.reprocess.catalogue import COLUMNS, columns_of_planes, database
from infra.reprocess.select import ContextMasks, Effect, Selection
from tests.samples.mirror import RULES, write_rules

BEFORE, AFTER = "jwst_9001.pmap", "jwst_9002.pmap"
PREFIX = "selection"
LATER = "2023-05-06 07:08:09"


class Folder:
    """Rule files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> str:
        return (self.root / "mappings" / "jwst" / name).read_text()

    def discard(self, name: str) -> None:
        """Nothing is damaged."""


@pytest.fixture
def contexts(aws: LocalAws, tmp_path: Path) -> tuple[ContextMasks, ContextMasks]:
    """Return two contexts; the later one has new dates, another mask and no rules for FGS."""
    write_rules(tmp_path)
    newer: dict[str, Any] = {}
    for instrument, (parameters, choices) in RULES.items():
        changed = dict(choices)
        for (values, _), number in choices.items():
            changed[(values, LATER)] = 9009 if number else number
        newer[instrument] = (parameters, changed)
    del newer["fgs"]
    write_rules(tmp_path, context=AFTER, rules=newer)
    before, after = masks_of(aws, tmp_path, BEFORE, AFTER)
    return before, after


def masks_of(aws: LocalAws, root: Path, *contexts: str) -> list[ContextMasks]:
    """Fill the mirror from a folder, and return the masks of its contexts."""
    s3 = aws.client("s3")
    for path in (root / "mappings" / "jwst").iterdir():
        s3.upload_file(str(path), MIRROR, f"{PREFIX}/mappings/jwst/{path.name}")
    names = {n for c in contexts for n in read_context(c, Folder(root)).masks}
    digests = {name: FileDigest(1, f"{hash(name) & 0xFFFF:040x}") for name in names}
    for path in (root / "mappings" / "jwst").iterdir():
        digests[path.name] = FileDigest.of(path.read_bytes())
    config = MirrorConfig(contexts[-1], frozenset(), digests, {}).to_config()
    s3.put_object(Bucket=MIRROR, Key=f"{PREFIX}/config/jwst/server_config", Body=config)
    place = S3Location(MIRROR, PREFIX)
    rules = Rules(place, root / "cache", s3)
    return [ContextMasks(rules, Mirror(s3, place), context) for context in contexts]


def rows(contexts: tuple[ContextMasks, ContextMasks]) -> Iterator[dict[str, Any]]:
    """Yield exposures of every setting that a rule names, on and around its dates."""
    rules = [rule for one in contexts for rule in one.mask_rules]
    for instrument in {rule.instrument.upper() for rule in rules}:
        mine = [rule for rule in rules if rule.instrument.upper() == instrument]
        settings = {rule.parameters for rule in mine}
        dates = {rule.after for rule in mine} | {"2022-06-01 00:00:00"}
        for setting in sorted(settings):
            parameters = {"META.INSTRUMENT.NAME": instrument, **dict(setting)}
            for date in sorted(dates):
                for step in (-1, 0, 1):
                    moment = datetime.fromisoformat(date) + timedelta(seconds=step)
                    for end in ("", ".000", ".500"):
                        yield {"parameters": parameters, "observed": f"{moment}{end}"}


def write(path: Path, some: list[dict[str, Any]]) -> None:
    lines = path.with_suffix(".jsonl")
    with lines.open("w") as file:
        for number, row in enumerate(some):
            columns = dict.fromkeys(COLUMNS) | {
                "product_key": str(number), "input_bucket": "raw", "input_key": str(number),
                "input_bytes": 1, "kind": "ramp", "integrations": 1, "groups": 1, "rows": 64,
                "columns": 64, "mask": "x", "mask_sha1": "x", "requested_fields": "",
                "instrument": row["parameters"]["META.INSTRUMENT.NAME"],
                "parameters": json.dumps(row["parameters"], sort_keys=True),
                "observed": row["observed"],
            }  # fmt: skip
            file.write(json.dumps(columns) + "\n")
    duckdb.read_json(str(lines), columns=dict(COLUMNS)).write_parquet(str(path))


def chosen(rules: Rules, row: dict[str, Any], context: str) -> str | None:
    """Return the mask that the rules choose for one exposure; None if they cannot."""
    header = {FITS_KEYWORDS[name]: value for name, value in row["parameters"].items()}
    header["DATE-OBS"], _, header["TIME-OBS"] = row["observed"].partition(" ")
    try:
        return rules.best_reference(Keywords(fits.Header(header), "x"), context).mask or "N/A"
    except ReferenceUnavailable:
        return None


def test_each_row_is_decided_as_the_rules_decide_it(
    contexts: tuple[ContextMasks, ContextMasks], tmp_path: Path
) -> None:
    before, after = contexts
    some = list(rows(contexts))
    assert len(some) > 200
    write(tmp_path / "exposures.parquet", some)
    with database(tmp_path) as connection:
        selection = Selection(connection, tmp_path / "exposures.parquet", after, before)
        list(selection.decide())
        selected = {int(key) for _, key, *_ in selection.inputs({Effect.NAME, Effect.CONTENT})}
        undecided = {int(key) for _, key, *_ in selection.inputs({Effect.UNDECIDED})}
    expected, unknown = set(), set()
    for number, row in enumerate(some):
        old, new = (chosen(before.rules, row, context) for context in (BEFORE, AFTER))
        if old is None or new is None:
            unknown.add(number)
        elif old != new:
            expected.add(number)
    assert selected == expected
    assert undecided == unknown
    assert expected
    assert any("FGS" in some[n]["parameters"].values() for n in unknown), "its rules are missing"
    assert before.evaluated + after.evaluated < len(some)


ODD = [
    ("2022-01-01", "00:00:00.000"),
    ("2022-01-01", "0:00:00"),
    ("2022-01-01", "00:00"),
    ("2022/01/01", "00:00:00"),
    ("Jan 1 2022", "00:00:00"),
    ("01/01/2022", "00:00:00.000000001"),
    ("2022-01-01", ""),
    ("20220101:000000", ""),
    ("2023-05-06", "7:08:09"),
    ("2023-05-06", "7:08:08.999"),
    ("06/05/23", "07:08:09"),
    ("2023-05-06", "07:08:09.000"),
    ("1999-1-1", "00:00:00"),
    ("2022-1-1", "00:00:00"),
    ("9999-12-31", "23:59:59"),
    ("1000-01-01", "00:00:00"),
    ("2022-13-01", "00:00:00"),
    ("2022-01-01", "24:00:00"),
    (None, "00:00:00"),
    ("2022-01-01", None),
    (None, None),
]
"""Values of DATE-OBS and TIME-OBS, None for a keyword that is missing."""


def function_chooses(rules: Rules, parameters: dict[str, Any], context: str) -> str:
    """Return the mask that the function chooses, or ``problem``."""
    header = {FITS_KEYWORDS[name]: value for name, value in parameters.items()}
    try:
        return rules.best_reference(Keywords(fits.Header(header), "x"), context).mask or "N/A"
    except (ReferenceUnavailable, InputRejected):
        return "problem"


def decided(
    after: ContextMasks, before: ContextMasks, folder: Path, every: list[dict[str, Any]]
) -> dict[int, tuple[str, str]]:
    """Return the masks of a selection, before and after, by the number of the exposure."""
    given = []
    for parameters in every:
        columns = columns_of_planes(CatalogueRow(parameters, None, ""))
        observed = columns["observed"]
        given.append({"parameters": json.loads(columns["parameters"]), "observed": observed})
    path, found = folder / "exposures.parquet", {}
    write(path, given)
    with database(folder) as connection:
        selection = Selection(connection, path, after, before)
        for decision in list(selection.decide()):
            is_problem = decision.effect is Effect.UNDECIDED
            masks = ("problem",) * 2 if is_problem else (decision.before, decision.after)
            selection.decisions = [decision]
            for _, key, *_ in selection.inputs({decision.effect}):
                found[int(key)] = masks
    return found


@pytest.mark.slow
def test_odd_dates_choose_what_crds_chooses(
    contexts: tuple[ContextMasks, ContextMasks], tmp_path: Path
) -> None:
    before, after = contexts
    setting = next(rows(contexts))["parameters"]
    for rule in after.mask_rules:
        if rule.after == LATER and rule.instrument == "nircam":
            setting = {"META.INSTRUMENT.NAME": "NIRCAM", **dict(rule.parameters)}
    every = []
    for date, time in ODD:
        dated = {"META.OBSERVATION.DATE": date, "META.OBSERVATION.TIME": time}
        every.append(setting | {name: value for name, value in dated.items() if value is not None})
    found = decided(after, before, tmp_path, every)
    for number, parameters in enumerate(every):
        both = [function_chooses(one.rules, parameters, one.context) for one in contexts]
        expected = ("problem", "problem") if "problem" in both else tuple(both)
        assert found[number] == expected, ODD[number]
    assert len(set(found.values())) > 2


def test_logicals_and_numbers_choose_what_crds_chooses(aws: LocalAws, tmp_path: Path) -> None:
    names = ("META.VISIT.TSOVISIT", "META.SUBARRAY.NUM_SUPERSTRIPE")
    first = "2022-01-01 00:00:00"
    choices = {
        (("T", "1.0"), first): 9001, (("T", "2.0"), first): 9002,
        (("F", "1.0"), first): 9003, (("1.0", "1.0"), first): 9004,
    }  # fmt: skip
    write_rules(tmp_path, context=BEFORE, rules={"nircam": (names, choices)})
    (masks,) = masks_of(aws, tmp_path, BEFORE)
    every = [
        {
            "META.INSTRUMENT.NAME": "NIRCAM",
            "META.OBSERVATION.DATE": "2023-01-01",
            "META.OBSERVATION.TIME": "00:00:00",
            names[0]: logical,
            names[1]: number,
        }
        for logical in (True, 1, 1.0, "T", "1", False, 0)
        for number in (1, 1.0, True, "1", 2, 2.0)
    ]
    found = decided(masks, masks, tmp_path, every)
    expected = {n: function_chooses(masks.rules, x, masks.context) for n, x in enumerate(every)}
    assert {number: after for number, (_, after) in found.items()} == expected
    assert len(set(expected.values())) == 4
