"""The messages of a queue: reading them, moving them to another queue, deleting them."""

import fnmatch
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from handler.event import SOURCE

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

__all__ = ["Chosen", "Depth", "QueuedMessage", "depth", "discard", "messages", "redrive"]

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
    identifier, body, receipt : str
        SQS's name for it, its content, and what deletes it.
    sent : float
        When it was sent, in seconds since 1970.
    exposure, error, reason : str
        What it speaks of, as far as it can be read; a failure says why.
    can_be_tried : bool
        Whether it asks for something: a failure of what could not be read asks for nothing.
    """

    identifier: str
    body: str
    receipt: str
    sent: float
    exposure: str
    error: str = ""
    reason: str = ""
    can_be_tried: bool = True

    @classmethod
    def from_message(cls, message: Any) -> "QueuedMessage":
        """Read what SQS answers."""
        event = _event(message["Body"])
        detail = _part(event, "detail")
        is_failure = event.get("source") == SOURCE
        asked = (
            _part(detail, "input")
            or _part(detail, "request")
            or {
                "bucket": _part(detail, "bucket").get("name") or event.get("bucket"),
                "key": _part(detail, "object").get("key") or event.get("key"),
            }
        )
        return cls(
            message["MessageId"],
            message["Body"],
            message["ReceiptHandle"],
            int(message["Attributes"]["SentTimestamp"]) / 1000,
            f"s3://{asked.get('bucket') or '?'}/{asked.get('key') or '?'}",
            str(detail.get("error") or "") if is_failure else "",
            str(detail.get("reason") or "") if is_failure else "",
            not is_failure or bool(_part(detail, "request")),
        )


@dataclass(frozen=True)
class Chosen:
    """Which messages are meant; what is not said does not matter.

    Attributes
    ----------
    error : str or None
        Class of the failure.
    key : str or None
        A pattern that the exposure's address matches, as a shell's.
    older_than : float or None
        Seconds since the message was sent.
    identifier : str or None
        SQS's name of the one that is meant.
    can_be_tried : bool
        Whether only those are meant that ask for something.
    """

    error: str | None = None
    key: str | None = None
    older_than: float | None = None
    identifier: str | None = None
    can_be_tried: bool = False

    def holds(self, message: QueuedMessage, now: float) -> bool:
        """Say whether a message is meant."""
        return (
            self.error in {None, message.error}
            and self.identifier in {None, message.identifier}
            and (message.can_be_tried or not self.can_be_tried)
            and (self.key is None or fnmatch.fnmatchcase(message.exposure, f"*{self.key}"))
            and (self.older_than is None or now - message.sent >= self.older_than)
        )


@dataclass(frozen=True)
class Depth:
    """How many messages wait, are being worked on (hidden), and come later."""

    waiting: int
    in_flight: int
    delayed: int


def depth(sqs: "SQSClient", queue: str) -> Depth:
    """Count the messages of a queue, as far as SQS knows."""
    names: dict[str, QueueAttributeNameType] = {
        "waiting": "ApproximateNumberOfMessages",
        "in_flight": "ApproximateNumberOfMessagesNotVisible",
        "delayed": "ApproximateNumberOfMessagesDelayed",
    }
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[*names.values()])["Attributes"]
    return Depth(**{field: int(found.get(name, 0)) for field, name in names.items()})


def messages(
    sqs: "SQSClient", queue: str, chosen: Chosen = Chosen(), *, are_taken: bool = False
) -> Iterator[QueuedMessage]:
    """Look at the messages that are meant and were there when the looking began.

    All of them are there again for others when the looking ends, at the latest after a minute.

    Parameters
    ----------
    sqs : boto3 SQS client
        How to reach it.
    queue : str
        Its address.
    chosen : `Chosen`
        Which messages are meant.
    are_taken : bool
        Whether whoever looks at these deletes them, so that they need not be there again.
    """
    begun, newer = time.time(), 0
    looked_at: dict[str, QueuedMessage] = {}
    taken: set[str] = set()
    try:
        while received := sqs.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=10,
            VisibilityTimeout=_HIDDEN,
            WaitTimeSeconds=_POLL,
            MessageSystemAttributeNames=["SentTimestamp"],
        ).get("Messages"):
            read = [QueuedMessage.from_message(message) for message in received]
            # A message that was there before and comes once more was hidden for too short a time.
            older = [m for m in read if m.sent <= begun and m.identifier not in looked_at]
            looked_at |= {message.identifier: message for message in read}
            newer = 0 if older else newer + 1
            if newer == _NEWER:
                return
            for message in older:
                if chosen.holds(message, begun):
                    if are_taken:
                        taken.add(message.identifier)
                    yield message
    finally:
        for identifier in looked_at.keys() - taken:
            with suppress(ClientError):  # somebody else has it, or has deleted it
                sqs.change_message_visibility(
                    QueueUrl=queue,
                    ReceiptHandle=looked_at[identifier].receipt,
                    VisibilityTimeout=0,
                )


def redrive(sqs: "SQSClient", queue: str, target: str, chosen: Chosen = Chosen()) -> int:
    """Move messages to another queue, one by one: each is in one of them at least.

    What fails again comes back to the queue while it is being emptied; so only what was there when
    the moving began is moved. What asks for nothing stays: it would come back, wrapped in itself.

    Parameters
    ----------
    sqs : boto3 SQS client
        How to reach them.
    queue, target : str
        Their addresses.
    chosen : `Chosen`
        Which messages are meant.

    Returns
    -------
    int
        How many were moved.
    """
    moved = 0
    for message in messages(sqs, queue, replace(chosen, can_be_tried=True), are_taken=True):
        sqs.send_message(QueueUrl=target, MessageBody=message.body)
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message.receipt)
        moved += 1
    return moved


def discard(sqs: "SQSClient", queue: str, chosen: Chosen = Chosen()) -> int:
    """Delete messages. Parameters are those of `redrive`; returns how many were deleted."""
    discarded = 0
    for message in messages(sqs, queue, chosen, are_taken=True):
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message.receipt)
        discarded += 1
    return discarded


def _event(body: str) -> dict[str, Any]:
    """The event in a message; nothing, where it is none."""
    try:
        event = json.loads(body)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _part(event: dict[str, Any], name: str) -> dict[str, Any]:
    part = event.get(name)
    return part if isinstance(part, dict) else {}
