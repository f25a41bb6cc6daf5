"""Metrics and log lines of an exposure."""

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from core.errors import InputRejected
from handler.event import FlagSummary, ReferenceSummary, Status
from handler.publish import logger, measure
from tests.conftest import Harness
from tests.handler.test_event import EVENT

FULL = FlagSummary(4096, {}, 1024, 0.25)


def measured(capsys: pytest.CaptureFixture[str], **findings: Any) -> dict[str, Any]:
    measure(
        replace(
            EVENT,
            findings=replace(EVENT.findings, flags=FULL)
            if not findings
            else replace(EVENT.findings, **findings),
        )
    )
    return json.loads(capsys.readouterr().out)


def test_header_values_add_no_metric_dimension(capsys: pytest.CaptureFixture[str]) -> None:
    assert EVENT.findings.exposure is not None
    odd = replace(EVENT.findings.exposure, detector="x" * 60, instrument="HUBBLE")
    (metrics,) = measured(capsys, exposure=odd)["_aws"]["CloudWatchMetrics"]
    assert metrics["Dimensions"] == [["service"]]


@pytest.mark.parametrize(
    ("changes", "is_measured"),
    [
        ({"flags": FULL}, True),
        ({"flags": replace(FULL, pixels=64)}, False),
        ({"flags": FULL, "reference": ReferenceSummary(None, None, "c", "m")}, False),
    ],
    ids=["a mask was applied", "a guider's window of 8 x 8", "no mask applies"],
)
def test_fraction_is_measured_for_large_masked_images(
    changes: dict[str, Any], is_measured: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured(capsys, **changes).get("DoNotUseFraction") == ([0.25] if is_measured else None)


@pytest.mark.parametrize(
    ("changes", "announced", "counted"),
    [
        ({}, True, "Complete"),
        ({"status": Status.SKIPPED}, True, "Skipped"),
        ({"status": Status.FAILED, "error": "InputRejected"}, True, "Rejected"),
        ({"status": Status.FAILED, "error": "TransientFailure"}, True, "Failed"),
        ({"status": Status.FAILED, "error": "ReferenceUnavailable"}, True, "Failed"),
        ({"status": Status.FAILED, "error": "TransientFailure"}, False, "Retried"),
    ],
)
def test_metric_for_each_status(
    changes: dict[str, Any], announced: bool, counted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(replace(EVENT, **changes), is_published=announced)
    found = json.loads(capsys.readouterr().out)
    (metrics,) = found["_aws"]["CloudWatchMetrics"]
    assert metrics["Namespace"] == "JwstDqInit"
    values = {m["Name"]: (found[m["Name"]], m["Unit"]) for m in metrics["Metrics"]}
    usage = {"Duration": "Seconds", "BytesReceived": "Bytes", "BytesSent": "Bytes"}
    assert values.pop("ReferenceUnavailable", None) == (
        ([1.0], "Count") if changes.get("error") == "ReferenceUnavailable" else None
    )
    assert values == {counted: ([1.0], "Count")} | {
        name: ([value], unit)
        for (name, unit), value in zip(usage.items(), (1.5, 10.0, 20.0), strict=True)
    }


def test_exposure_logs_few_bytes_and_the_event_id(
    function: Harness,
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "2023/03/jw01234001001_02101_00001_nrca1_uncal.fits"
    function.upload(exposure, key)
    for status in ("Complete", "Skipped"):
        lines = StringIO()
        monkeypatch.setattr(logger.registered_handler, "stream", lines)
        capsys.readouterr()
        detail = function.run(key)
        assert detail["status"] == status
        (line,) = [line for line in lines.getvalue().splitlines() if "event_id" in line]
        assert len(line) <= 800, line
        assert len(capsys.readouterr().out) <= 500, "the metrics"
        logged = json.loads(line)
        assert logged["event_id"] == detail["id"]
        assert logged["message"] == f"DQ initialization {status}"


def test_rejected_exposure_logs_no_traceback(
    function: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", lines)
    function.upload(b"no FITS", "x_uncal.fits")
    with pytest.raises(InputRejected):
        function.run("x_uncal.fits")
    (failed,) = [line for line in lines.getvalue().splitlines() if "initialization failed" in line]
    assert "exception" not in json.loads(failed)


def test_bug_logs_its_traceback(
    function: Harness, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", lines)
    monkeypatch.setattr("handler.process.initialize", lambda *_: 1 // 0)
    function.upload(exposure, "x_uncal.fits")
    with pytest.raises(ZeroDivisionError):
        function.run("x_uncal.fits")
    (failed,) = [line for line in lines.getvalue().splitlines() if "initialization failed" in line]
    assert "Traceback" in json.loads(failed)["exception"]


def test_line_ends_stay_within_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """CloudWatch Logs starts a new event at a line end."""
    stream = StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", stream)
    odd = 'a\nFAKE\r\u2028\x1b[2J"x'
    logger.error("failed: %s", odd, extra={"exposure": odd})
    (line,) = stream.getvalue().rstrip("\n").split("\n")
    assert json.loads(line)["exposure"] == odd
    assert "\x1b" not in line
