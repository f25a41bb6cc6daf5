"""Announced once, whatever happens: kills at every moment, repeated events, buses that are down."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from core.errors import InputRejected, ReferenceUnavailable, TransientFailure
from handler import outcomes
from handler.batches import handle_batch
from handler.outcomes import Outcomes
from infra.demo.local_aws import PRODUCTS, RAW
from infra.demo.samples.exposures import write_exposure
from infra.demo.samples.modes import MODES
from tests.conftest import Function

MODE = {mode.name: mode for mode in MODES}
KEY = "jw01_uncal.fits"
BAD = "bad_uncal.fits"


class Killed(BaseException):
    """Nothing runs after it, as nothing runs after SIGKILL."""


@pytest.fixture(scope="module")
def exposure(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("exposure") / "x_uncal.fits"
    write_exposure(MODE["nircam-sub64p"], path)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "_PAUSES", ())


def kill(*_: Any, **__: Any) -> None:
    raise Killed


def later(function: Function) -> None:
    """Let the time pass that Lambda gives an invocation."""
    function.services.outcomes.clock = lambda: time.time() + 1000


def created(key: str) -> str:
    detail = {"bucket": {"name": RAW}, "object": {"key": key}}
    return json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})


def statuses(function: Function) -> list[str]:
    return [detail["status"] for detail in function.announcements()]


def versions(function: Function) -> int:
    found = function.aws.client("s3").list_object_versions(Bucket=PRODUCTS, Prefix="dq_init/")
    return len(found.get("Versions", []))


@pytest.mark.parametrize("moment", ["announce", "_send_claimed", "_note"])
def test_a_killed_function_is_made_up_for(
    moment: str, function: Function, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the product was written, when the result was claimed, when it was sent."""
    function.upload(exposure, KEY)
    with monkeypatch.context() as patch:
        patch.setattr(Outcomes, moment, kill)
        with pytest.raises(Killed):
            function.run(KEY)
    before = statuses(function)
    assert before == (["Complete"] if moment == "_note" else [])
    if moment != "announce":
        with pytest.raises(TransientFailure, match="is announcing the result"):
            function.run(KEY)
        later(function)
    assert function.run(KEY)["status"] == ("Skipped" if before else "Complete")
    assert function.run(KEY)["status"] == "Skipped"
    assert (before + statuses(function)).count("Complete") == 1
    assert versions(function) == 1


def test_without_a_log_of_events_a_result_is_rather_announced_twice_than_never(
    function: Function, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.services.outcomes.event_log = None
    function.upload(exposure, KEY)
    with monkeypatch.context() as patch:
        patch.setattr(Outcomes, "_note", kill)
        with pytest.raises(Killed):
            function.run(KEY)
    later(function)
    assert function.run(KEY)["status"] == "Complete"
    first, second = function.announcements()
    assert first["id"] == second["id"]


def test_a_bus_that_is_down_is_tried_again(
    function: Function, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.upload(exposure, KEY)

    def down(*_: Any) -> None:
        raise TransientFailure("the bus is down")

    with monkeypatch.context() as patch:
        patch.setattr(outcomes, "announce", down)
        answer = function.run_batch(created(KEY))
        assert answer["batchItemFailures"]
    assert function.run_batch(created(KEY)) == {"batchItemFailures": []}
    assert statuses(function) == ["Complete"]
    assert versions(function) == 1


def test_rejected_input_is_announced_once(function: Function) -> None:
    function.upload(b"no FITS", BAD)
    for _ in range(3):
        assert function.run_batch(created(BAD)) == {"batchItemFailures": []}
    assert statuses(function) == ["Failed", "Skipped", "Skipped"]


def test_a_message_that_is_delivered_again_has_nothing_to_add(
    function: Function, exposure: bytes
) -> None:
    """Killed between the announcement and SQS's being told that the message is done."""
    function.upload(exposure, KEY)
    function.upload(b"no FITS", BAD)
    for delivery in (1, 2):
        assert function.run_batch(created(KEY), delivery=delivery) == {"batchItemFailures": []}
        assert function.run_batch(created(BAD), delivery=delivery) == {"batchItemFailures": []}
    assert statuses(function) == ["Complete", "Failed"]


def test_a_failure_that_is_sent_back_is_tried_and_announced_again(
    function: Function, exposure: bytes
) -> None:
    function.upload(b"no FITS", BAD)
    with pytest.raises(InputRejected):
        function.run(BAD, outputKey="elsewhere/x.fits")
    (failed,) = function.announcements()
    event = {"source": "jwst.dq_init", "detail-type": "DQ Initialization Failed", "detail": failed}
    assert function.run_batch(json.dumps(event)) == {"batchItemFailures": []}
    assert statuses(function) == ["Failed"]
    function.upload(exposure, BAD)
    assert function.run_batch(json.dumps(event)) == {"batchItemFailures": []}
    (detail,) = function.announcements()
    assert (detail["status"], detail["output"]["key"]) == ("Complete", "elsewhere/x.fits")


def test_a_last_attempt_that_fails_is_announced_once_and_put_aside(
    make_function: Any, exposure: bytes
) -> None:
    function = make_function("an-empty-mirror")
    function.upload(exposure, KEY)
    for delivery in range(1, 7):
        answer = function.run_batch(created(KEY), delivery=delivery)
        assert answer == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
    (detail,) = function.announcements()
    assert (detail["status"], detail["error"]) == ("Failed", "ReferenceUnavailable")


def test_an_exposure_that_kills_every_attempt_is_announced(
    function: Function, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.upload(exposure, KEY)
    with monkeypatch.context() as patch:
        patch.setattr("handler.process.initialize", kill)
        for delivery in range(1, 6):
            with pytest.raises(Killed):
                function.run_batch(created(KEY), delivery=delivery)
    assert function.run_batch(created(KEY), delivery=6)["batchItemFailures"]
    (detail,) = function.announcements()
    assert detail["error"] == "TransientFailure"
    assert "none of 5 attempts came to an end" in detail["reason"]
    assert function.run_batch(created(KEY)) == {"batchItemFailures": []}  # redriven by an operator
    assert statuses(function) == ["Complete"]


def test_a_repeated_event_that_is_killed_to_the_end_does_not_undo_the_result(
    function: Function, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    assert function.run_batch(created(KEY), delivery=6) == {"batchItemFailures": []}
    assert statuses(function) == ["Complete"]


def test_a_caller_that_retries_announces_the_failure_itself(
    make_function: Any, exposure: bytes
) -> None:
    function = make_function("an-empty-mirror")
    function.upload(exposure, KEY)
    with pytest.raises(ReferenceUnavailable):
        function.run(KEY, announceFailure=False)
    assert statuses(function) == []
    with pytest.raises(ReferenceUnavailable):
        function.run(KEY)
    assert statuses(function) == ["Failed"]


def test_a_failed_message_is_delivered_again_later_each_time(
    make_function: Any, exposure: bytes
) -> None:
    function = make_function("an-empty-mirror")
    function.upload(exposure, KEY)
    sqs = function.aws.client("sqs")
    queue = sqs.create_queue(QueueName="back-off")["QueueUrl"]
    asked = []
    sqs.meta.events.register(
        "provide-client-params.sqs.ChangeMessageVisibility",
        lambda params, **_: asked.append(params["VisibilityTimeout"]),
    )
    sqs.send_message(QueueUrl=queue, MessageBody=created(KEY))
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    function = function.with_settings(queue=queue)
    for delivery in range(1, 7):
        record = {
            "messageId": "1",
            "body": message["Body"],
            "receiptHandle": message["ReceiptHandle"],
            "attributes": {"ApproximateReceiveCount": str(delivery)},
        }
        batch = {"Records": [record]}
        handle_batch(
            batch, function.settings, function.services, function.invocation(), lambda: sqs
        )
    assert asked == [30, 60, 120, 240, 0, 0]
    assert sqs.receive_message(QueueUrl=queue)["Messages"], "it is there again at once"


def test_an_unreadable_message_is_quoted_and_announced_once(function: Function) -> None:
    for _ in range(2):
        assert function.run_batch("{broken \n line") == {"batchItemFailures": []}
    first, second = function.announcements()
    assert (first["error"], second["status"]) == ("InputRejected", "Skipped")
    assert "{broken \n line" in first["reason"]


def test_outcomes_are_named_by_digests_and_say_how_it_ended(
    function: Function, exposure: bytes
) -> None:
    key = "2023/{{x}} $(y) %2e%2e_uncal.fits"
    function.upload(exposure, key)
    detail = function.run(key)
    (name,) = function.products("dq_outcomes/")
    assert Path(name).stem.isalnum()
    s3 = function.aws.client("s3")
    outcome = json.loads(s3.get_object(Bucket=PRODUCTS, Key=name)["Body"].read())
    assert outcome["announced"]
    assert outcome["detail"]["id"] == detail["id"]
    assert outcome["made"]["mask"] == "crds://jwst_nircam_mask_9002.fits"
