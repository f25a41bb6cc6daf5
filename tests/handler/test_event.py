"""The processing event: its id and its detail."""

from dataclasses import replace

import pytest

from handler.event import (
    ExposureSummary,
    Findings,
    FlagSummary,
    MnemonicCount,
    ObjectSummary,
    ProcessingEvent,
    ReferenceSummary,
    Status,
    Usage,
)

INPUT = ObjectSummary("raw", "a_uncal.fits", "v1", '"e"', None, 5)
OUTPUT = ObjectSummary("products", "dq_init/a_dq_init.fits", "p1", '"f"', None, 9)
EVENT = ProcessingEvent(
    Status.COMPLETE,
    None,
    None,
    "message-1",
    Findings(
        {"bucket": "raw", "key": "a_uncal.fits"},
        INPUT,
        OUTPUT,
        ExposureSummary("NIRCAM", "NRCA1", "NRC_IMAGE", "FULL", "ramp", (1, 5, 8, 8)),
        ReferenceSummary("crds://m.fits", "0" * 40, "jwst_1.pmap", "s3://mirror"),
        FlagSummary(64, {"HOT": MnemonicCount(3, 1)}, 1, 1 / 64),
    ),
    Usage("0.1.0", "request-1", 1.5, 10, 20),
)


def changed(**findings: object) -> ProcessingEvent:
    return replace(EVENT, findings=replace(EVENT.findings, **findings))


def failed(**changes: object) -> ProcessingEvent:
    return replace(EVENT, **{"status": Status.FAILED, "error": "InputRejected", **changes})


def test_detail_can_be_read_again() -> None:
    assert ProcessingEvent.from_detail(EVENT.to_detail()) == EVENT
    nothing = replace(EVENT, findings=Findings())
    assert ProcessingEvent.from_detail(nothing.to_detail()) == nothing


def test_fields_of_a_newer_release_are_ignored() -> None:
    detail = EVENT.to_detail()
    detail["new"] = detail["input"]["new"] = detail["flags"]["byMnemonic"]["HOT"]["new"] = 1
    assert ProcessingEvent.from_detail(detail) == EVENT


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (replace(EVENT, cause="message-2"), True),
        (replace(EVENT, function=Usage("0.2.0", "another", 9.0)), True),
        (changed(flags=None, reference=None), True),
        (changed(output=replace(OUTPUT, etag='"g"', bytes=8)), True),
        (changed(output=replace(OUTPUT, version_id="p2")), False),
        (changed(output=replace(OUTPUT, key="dq_init/b_dq_init.fits")), False),
        (replace(EVENT, status=Status.SKIPPED), False),
    ],
)
def test_id_of_complete_depends_on_the_product_version(other: ProcessingEvent, same: bool) -> None:
    assert (other.id == EVENT.id) == same


@pytest.mark.parametrize("change", [{"etag": '"g"'}, {"last_modified": "2026-01-02T00:00:00Z"}])
def test_id_without_versions_depends_on_etag_and_time(change: dict[str, str]) -> None:
    plain = replace(OUTPUT, version_id=None, last_modified="2026-01-01T00:00:00Z")
    assert changed(output=plain).id != changed(output=replace(plain, **change)).id


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (failed(reason="in other words"), True),
        (failed(findings=replace(EVENT.findings, input=replace(INPUT, version_id="v2"))), True),
        (failed(findings=replace(EVENT.findings, output=None, exposure=None)), True),
        (failed(cause="message-2"), False),
        (failed(error="TransientFailure"), False),
        (failed(findings=replace(EVENT.findings, input=replace(INPUT, key="b"))), False),
        (failed(findings=Findings()), False),
    ],
)
def test_id_of_failed_depends_on_input_error_and_cause(other: ProcessingEvent, same: bool) -> None:
    assert (other.id == failed().id) == same


def test_long_reason_is_shortened() -> None:
    assert len(failed(reason="x" * 5000).to_detail()["reason"]) == 2048
