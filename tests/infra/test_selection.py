"""Which products a context would choose otherwise: row by row, the rules themselves say the same."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from astropy.io import fits

from core.errors import ReferenceUnavailable
from core.keywords import Keywords
from handler.references.parameters import FITS_KEYWORDS
from handler.references.rules import Rules
from handler.references.server import FileDigest, ServerConfig
from handler.s3.locations import S3Location
from infra.demo.local_aws import MIRROR, LocalAws
from infra.demo.samples.mirror import RULES, write_rules
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import read_context
from infra.reprocessing.catalogue import database
from infra.reprocessing.choices import Choices
from infra.reprocessing.rows import COLUMNS
from infra.reprocessing.selection import Change, Selection

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
def contexts(aws: LocalAws, tmp_path: Path) -> tuple[Choices, Choices]:
    """Two contexts; in the later one dates are new, masks another, and an instrument is gone."""
    write_rules(tmp_path)
    newer: dict[str, Any] = {}
    for instrument, (parameters, choices) in RULES.items():
        changed = dict(choices)
        for (values, _), number in choices.items():
            changed[(values, LATER)] = 9009 if number else number
        newer[instrument] = (parameters, changed)
    del newer["fgs"]
    write_rules(tmp_path, context=AFTER, rules=newer)
    s3 = aws.client("s3")
    for path in (tmp_path / "mappings" / "jwst").iterdir():
        s3.upload_file(str(path), MIRROR, f"{PREFIX}/mappings/jwst/{path.name}")
    names = {n for c in (BEFORE, AFTER) for n in read_context(c, Folder(tmp_path)).masks}
    digests = {name: FileDigest(1, f"{hash(name) & 0xFFFF:040x}") for name in names}
    for path in (tmp_path / "mappings" / "jwst").iterdir():
        digests[path.name] = FileDigest.of(path.read_bytes())
    config = ServerConfig(AFTER, frozenset(), digests, {}).to_text()
    s3.put_object(Bucket=MIRROR, Key=f"{PREFIX}/config/jwst/server_config", Body=config.encode())
    place = S3Location(MIRROR, PREFIX)
    rules = Rules.of(place, tmp_path / "cache", s3)
    return Choices(rules, Mirror(s3, place), BEFORE), Choices(rules, Mirror(s3, place), AFTER)


def rows(choices: tuple[Choices, Choices]) -> Iterator[dict[str, Any]]:
    """Exposures of every detector and subarray that a rule names, on and around its dates."""
    rules = [rule for one in choices for rule in one._read.rules]
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
            told = dict.fromkeys(COLUMNS) | {
                "product_key": str(number), "input_bucket": "raw", "input_key": str(number),
                "input_bytes": 1, "kind": "ramp", "integrations": 1, "groups": 1, "rows": 64,
                "columns": 64, "mask": "x", "mask_sha1": "x", "expressly": "",
                "instrument": row["parameters"]["META.INSTRUMENT.NAME"],
                "parameters": json.dumps(row["parameters"], sort_keys=True),
                "observed": row["observed"],
            }  # fmt: skip
            file.write(json.dumps(told) + "\n")
    duckdb.read_json(str(lines), columns=dict(COLUMNS)).write_parquet(str(path))


def chosen(rules: Rules, row: dict[str, Any], context: str) -> str | None:
    """What the rules say of one exposure; None where they cannot."""
    header = {FITS_KEYWORDS[name]: value for name, value in row["parameters"].items()}
    header["DATE-OBS"], _, header["TIME-OBS"] = row["observed"].partition(" ")
    try:
        return rules.best_reference(Keywords(fits.Header(header), "x"), context).mask or "N/A"
    except ReferenceUnavailable:
        return None


def test_every_row_is_decided_as_the_rules_decide_it_on_breakpoints_too(
    contexts: tuple[Choices, Choices], tmp_path: Path
) -> None:
    before, after = contexts
    some = list(rows(contexts))
    assert len(some) > 200
    write(tmp_path / "exposures.parquet", some)
    selection = Selection(tmp_path / "exposures.parquet", after, before)
    with database(tmp_path) as connection:
        groups = selection.groups(connection)
        decisions = list(selection.decide(groups))
        wanted = [d.group.number for d in decisions if d.change in {Change.NAME, Change.CONTENT}]
        picked = {int(key) for _, key, _ in selection.pick(connection, wanted)}
        problems = [d.group.number for d in decisions if d.change is Change.PROBLEM]
        undecided = {int(key) for _, key, _ in selection.pick(connection, problems)}
    expected, unknown = set(), set()
    for number, row in enumerate(some):
        old, new = (chosen(before.rules, row, context) for context in (BEFORE, AFTER))
        if old is None or new is None:
            unknown.add(number)
        elif old != new:
            expected.add(number)
    assert picked == expected
    assert undecided == unknown
    assert expected
    assert any("FGS" in some[n]["parameters"].values() for n in unknown), "its rules have vanished"
    assert before.evaluated + after.evaluated < len(some)
