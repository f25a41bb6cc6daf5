"""Messages: which are delivered again, and when; no number of deliveries means anything."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from core.errors import InputRejected, TransientFailure
from handler.s3.objects import S3Location
from handler.settings import Settings
from handler.sqs import Message, handle_batch

SETTINGS = Settings(
    "products",
    "",
    S3Location("m", ""),
    uploaded_queue_url="https://q",
    unfinished_queue_arn="arn:unfinished",
)


class Sqs:
    """Notes the visibilities that are set, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.set: list[tuple[str, int]] = []
        self.error = error

    def change_message_visibility(self, **given: Any) -> None:
        if self.error:
            raise self.error
        self.set.append((given["ReceiptHandle"], given["VisibilityTimeout"]))


def batch(*names: str, deliveries: int = 1, queue: str = "arn:uploaded") -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": str(deliveries)}
    return {
        "Records": [
            {"messageId": n, "body": n, "receiptHandle": n, "eventSourceARN": queue, "attributes": attributes}
            for n in names
        ]
    }  # fmt: skip


def answers(**errors: Exception) -> Callable[[Message, bool], None]:
    def answer(message: Message, is_unfinished: bool) -> None:
        if message.body in errors:
            raise errors[message.body]

    return answer


def handle(event: Any, sqs: Sqs, answer: Any, settings: Settings = SETTINGS) -> list[str]:
    done = handle_batch(event, settings, lambda: sqs, 100.0, answer)  # type: ignore[arg-type,return-value]
    return [failure["itemIdentifier"] for failure in done["batchItemFailures"]]


def test_while_it_is_worked_at_a_message_is_hidden_until_a_minute_after_the_invocation() -> None:
    sqs = Sqs()
    assert handle(batch("a"), sqs, answers()) == []
    assert sqs.set == [("a", 160)]


@pytest.mark.parametrize(
    ("deliveries", "delay"), [(1, 30), (2, 60), (5, 480), (6, 900), (999, 900)]
)
def test_a_failed_message_is_delivered_again_later_each_time(deliveries: int, delay: int) -> None:
    sqs = Sqs()
    event = batch("a", deliveries=deliveries)
    assert handle(event, sqs, answers(a=TransientFailure("x"))) == ["a"]
    assert sqs.set == [("a", 160), ("a", delay)]


def test_a_bad_message_does_not_stop_the_others() -> None:
    bugs = {"a": InputRejected("x"), "b": ValueError("a bug"), "c": TransientFailure("y")}
    assert handle(batch("a", "b", "c", "d"), Sqs(), answers(**bugs)) == ["b", "c"]


@pytest.mark.parametrize(
    "error",
    [ClientError({"Error": {"Code": "ReceiptHandleIsInvalid"}}, "x"), EndpointConnectionError(endpoint_url="q")],
)  # fmt: skip
def test_a_visibility_that_cannot_be_set_fails_nothing(error: Exception) -> None:
    assert handle(batch("a", "b"), Sqs(error), answers(a=TransientFailure("x"))) == ["a"]


def test_messages_of_the_queue_of_unfinished_ones_are_only_looked_at() -> None:
    looks: list[bool] = []
    sqs = Sqs()
    event = batch("a", queue="arn:unfinished")
    assert handle(event, sqs, lambda _, is_unfinished: looks.append(is_unfinished)) == []
    assert (looks, sqs.set) == ([True], [])


def test_a_look_that_fails_comes_back_when_the_queue_says() -> None:
    sqs = Sqs()
    event = batch("a", queue="arn:unfinished")
    assert handle(event, sqs, answers(a=TransientFailure("the bus is down"))) == ["a"]
    assert sqs.set == []
