"""The contracts: the event's schema, sample events, and the sample rules."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from crds.core import rmap

from core.flags import PIXEL_FLAGS
from handler.crds.parameters import FITS_KEYWORDS
from handler.event import SCHEMA_VERSION, ProcessingEvent
from handler.events import read_request
from tests.conftest import PROJECT, SCHEMA, SHARED
from tests.samples.mirror import CONTEXT


def test_schema_is_valid_and_has_the_version_of_the_events() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schemaVersion"]["const"] == SCHEMA_VERSION
    known = SCHEMA["properties"]["flags"]["properties"]["byMnemonic"]
    for mnemonic in PIXEL_FLAGS:
        jsonschema.validate({mnemonic: {"pixels": 1, "doNotUse": 1}}, known)


def test_crds_reads_the_sample_rules(sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDS_PATH", str(sample_cache))
    context = rmap.load_mapping(CONTEXT)
    masks = {name for name in context.reference_names() if "_mask_" in name}
    assert masks == {path.name for path in sample_cache.glob("references/**/*.fits")}
    for parameter in parameters_of(context):
        assert parameter in FITS_KEYWORDS


def parameters_of(context: Any) -> set[str]:
    return {
        parameter
        for instrument in context.selections.normal_values()
        if instrument.instrument != "system"  # it has no rules for MASK
        for parameter in instrument.get_rmap("mask").get_required_parkeys()
    }


def test_parameters_of_every_real_rule_are_known() -> None:
    if not SHARED.is_dir():
        pytest.skip("the real CRDS rules are not here: the samples' rules stand in, above")
    parameters = set()
    for path in (SHARED / "crds-mirror" / "mappings" / "jwst").glob("*.rmap"):
        parameters |= set(rmap.Mapping.from_string(path.read_text(), path.name).parkey[0])
    assert {name.upper() for name in parameters} <= set(FITS_KEYWORDS)


@pytest.mark.parametrize("status", ["Complete", "Skipped", "Failed"])
def test_sample_of_each_event_matches_the_code(status: str) -> None:
    path = PROJECT / "tests" / "events" / "announced" / f"{status.lower()}.json"
    event = json.loads(path.read_text())
    assert event["detail-type"] == f"DQ Initialization {status}"
    jsonschema.validate(event["detail"], SCHEMA)
    parsed = ProcessingEvent.from_detail(event["detail"])
    assert parsed.to_detail() == event["detail"]
    if status == "Failed":
        request = read_request(event)
        assert request.to_direct() == event["detail"]["request"]


def test_sample_events_are_json() -> None:
    for path in (PROJECT / "tests" / "events").glob("*.json"):
        assert json.loads(path.read_text())
