"""Messages of SQS: which are delivered again, and when."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from core.errors import InputRejected, TransientFailure
from handler import app
from handler.events import Attempt, Mode
from handler.s3.objects import S3Location
from handler.settings import Settings

SETTINGS = Settings(
    "products",
    "",
    S3Location("m", ""),
    uploaded_queue_url="https://sqs/1/uploaded",
    unfinished_queue_arn="arn:unfinished",
)


class Sqs:
    """Records the visibilities that are set, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.set: list[tuple[str, int]] = []
        self.error = error

    def change_message_visibility(self, **given: Any) -> None:
        if self.error:
            raise self.error
        self.set.append((given["ReceiptHandle"], given["VisibilityTimeout"]))


def batch(
    *names: str, deliveries: int = 1, queue: str = "arn:aws:sqs:::uploaded"
) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": str(deliveries)}
    return {
        "Records": [
            {"messageId": n, "body": f'"{n}"', "receiptHandle": n, "eventSourceARN": queue, "attributes": attributes}
            for n in names
        ]
    }  # fmt: skip


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """The failures of messages by their body, to be filled by the test."""
    errors: dict[str, Exception] = {}

    def answer(event: str, services: Any, attempt: Attempt) -> None:
        if event in errors:
            raise errors[event]

    monkeypatch.setattr(app, "answer", answer)
    return errors


def deliver(event: Any, sqs: Sqs, settings: Settings = SETTINGS) -> list[str]:
    services: Any = SimpleNamespace(settings=settings, sqs=lambda: sqs)
    done = app.answer_batch(event, services, "request", 100.0)
    return [failure["itemIdentifier"] for failure in done["batchItemFailures"]]


@pytest.mark.usefixtures("failures")
def test_message_stays_hidden_60_s_past_the_deadline() -> None:
    sqs = Sqs()
    assert deliver(batch("a"), sqs) == []
    assert sqs.set == [("a", 160)]


@pytest.mark.parametrize(
    ("deliveries", "delay"), [(1, 30), (2, 60), (5, 480), (6, 900), (999, 900)]
)
def test_failed_message_is_delivered_later_each_time(
    deliveries: int, delay: int, failures: dict[str, Exception]
) -> None:
    sqs = Sqs()
    failures["a"] = TransientFailure("x")
    assert deliver(batch("a", deliveries=deliveries), sqs) == ["a"]
    assert sqs.set == [("a", 160), ("a", delay)]


def test_bad_message_does_not_stop_the_others(failures: dict[str, Exception]) -> None:
    failures |= {"a": InputRejected("x"), "b": ValueError("a bug"), "c": TransientFailure("y")}
    assert deliver(batch("a", "b", "c", "d"), Sqs()) == ["b", "c"]


def test_every_message_is_hidden_before_the_first_is_processed(
    failures: dict[str, Exception],
) -> None:
    sqs = Sqs()
    failures["a"] = TransientFailure("x")
    assert deliver(batch("a", "b"), sqs) == ["a"]
    assert sqs.set == [("a", 160), ("b", 160), ("a", 30)]


@pytest.mark.parametrize(
    "error",
    [ClientError({"Error": {"Code": "ReceiptHandleIsInvalid"}}, "x"), EndpointConnectionError(endpoint_url="q")],
)  # fmt: skip
def test_failure_to_hide_a_message_fails_nothing(
    error: Exception, failures: dict[str, Exception]
) -> None:
    failures["a"] = TransientFailure("x")
    assert deliver(batch("a", "b"), Sqs(error)) == ["a"]


def test_message_of_the_unfinished_queue_is_only_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes: list[Mode] = []
    monkeypatch.setattr(app, "answer", lambda event, services, attempt: modes.append(attempt.mode))
    sqs = Sqs()
    assert deliver(batch("a", queue="arn:unfinished"), sqs) == []
    assert (modes, sqs.set) == ([Mode.REPORT], [])


def test_failed_report_keeps_the_visibility_of_its_queue(
    failures: dict[str, Exception],
) -> None:
    sqs = Sqs()
    failures["a"] = TransientFailure("the bus is down")
    assert deliver(batch("a", queue="arn:unfinished"), sqs) == ["a"]
    assert sqs.set == []
