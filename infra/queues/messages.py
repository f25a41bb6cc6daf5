"""The messages of a queue: reading them, and moving them to another queue."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

__all__ = ["QueuedMessage", "messages", "redrive"]

_HIDDEN = 60
"""Seconds that messages are kept from others while they are looked at."""
_NEWER = 3
"""Answers with newer messages only, after which no older one is expected: queues are unordered."""
_POLL = 2
"""Seconds that SQS looks for messages: asked for none, it may overlook what is there."""


@dataclass(frozen=True)
class QueuedMessage:
    """A message in a queue.

    Attributes
    ----------
    body, receipt : str
        Its content, and what deletes it.
    sent : float
        When it was sent, in seconds since 1970.
    exposure, error, reason : str
        What it speaks of, as far as it can be read; a failure says why.
    """

    body: str
    receipt: str
    sent: float
    exposure: str
    error: str
    reason: str

    @classmethod
    def from_message(cls, message: Any) -> "QueuedMessage":
        """Read what SQS answers."""
        detail = _detail(message["Body"])
        asked = _part(detail, "input") or {
            "bucket": _part(detail, "bucket").get("name"),
            "key": _part(detail, "object").get("key"),
        }
        return cls(
            message["Body"],
            message["ReceiptHandle"],
            int(message["Attributes"]["SentTimestamp"]) / 1000,
            f"s3://{asked.get('bucket') or '?'}/{asked.get('key') or '?'}",
            str(detail.get("error") or ""),
            str(detail.get("reason") or ""),
        )


def messages(sqs: "SQSClient", queue: str, until: float | None = None) -> Iterator[QueuedMessage]:
    """Look at the messages of a queue; they are hidden for a minute and then are there again.

    Parameters
    ----------
    sqs : boto3 SQS client
        How to reach it.
    queue : str
        Its address.
    until : float or None
        Time, in seconds since 1970: messages that were sent later are left where they are.
    """
    end, newer = time.time() if until is None else until, 0
    while received := sqs.receive_message(
        QueueUrl=queue,
        MaxNumberOfMessages=10,
        VisibilityTimeout=_HIDDEN,
        WaitTimeSeconds=_POLL,
        MessageSystemAttributeNames=["SentTimestamp"],
    ).get("Messages"):
        read = [QueuedMessage.from_message(message) for message in received]
        older = [message for message in read if message.sent <= end]
        for message in read:
            if message.sent > end:
                sqs.change_message_visibility(
                    QueueUrl=queue, ReceiptHandle=message.receipt, VisibilityTimeout=0
                )
        newer = 0 if older else newer + 1
        if newer == _NEWER:
            return
        yield from older


def redrive(sqs: "SQSClient", queue: str, target: str) -> int:
    """Move the messages of a queue to another, one by one: each is in one of them at least.

    What fails again comes back to the queue while it is being emptied; so only what was there when
    the moving began is moved.

    Parameters
    ----------
    sqs : boto3 SQS client
        How to reach them.
    queue, target : str
        Their addresses.

    Returns
    -------
    int
        How many were moved.
    """
    moved = 0
    for message in messages(sqs, queue, until=time.time()):
        sqs.send_message(QueueUrl=target, MessageBody=message.body)
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message.receipt)
        moved += 1
    return moved


def _detail(body: str) -> dict[str, Any]:
    """The event in a message; nothing, where it is none."""
    try:
        event = json.loads(body)
    except ValueError:
        return {}
    detail = event.get("detail") if isinstance(event, dict) else None
    return detail if isinstance(detail, dict) else {}


def _part(detail: dict[str, Any], name: str) -> dict[str, Any]:
    part = detail.get(name)
    return part if isinstance(part, dict) else {}
