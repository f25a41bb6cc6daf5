"""The messages of an SQS batch: which are done, which are delivered again, and when.

what happens to a message               what becomes of it
what it asks for is done or rejected    deleted
anything else fails                     delivered again, after a while
the function is killed meanwhile        delivered again, a minute after the invocation would end
it was delivered as often as may be     SQS moves it to the queue of unfinished messages

How often a message may be delivered is the queue's affair: nothing here counts. From the queue of
unfinished messages the same function is called, to look and to make nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from core.errors import InputRejected
from handler.observability import logger
from handler.s3.errors import denial_of, is_denied
from handler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

__all__ = ["GRACE", "Message", "handle_batch"]

_LONGEST_DELAY = 900
GRACE = 60
"""Seconds after the end of an invocation: by then it was killed, if it has not answered."""


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes
    ----------
    identifier, body, receipt : str
        SQS's name for it, its content, and what changes its visibility.
    queue : str
        ARN of the queue that it comes from.
    deliveries : int
        How often it was delivered: a hint for how long to wait, and nothing else.
    """

    identifier: str
    body: str
    receipt: str
    queue: str
    deliveries: int

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Message":
        """Read a record of the event that Lambda's poller makes of a batch."""
        return cls(
            record["messageId"],
            record["body"],
            record.get("receiptHandle", ""),
            record.get("eventSourceARN", ""),
            int(record.get("attributes", {}).get("ApproximateReceiveCount", 1)),
        )


def handle_batch(
    event: Mapping[str, Any],
    settings: Settings,
    sqs: "Callable[[], SQSClient]",
    seconds_left: float,
    answer: Callable[[Message, bool], object],
) -> dict[str, list[dict[str, str]]]:
    """Answer the messages of an SQS batch; a bad one does not stop the others.

    Parameters
    ----------
    event : mapping
        The batch.
    settings : `~handler.settings.Settings`
        The function's environment.
    sqs : callable
        Makes the SQS client.
    seconds_left : float
        Until Lambda ends the invocation.
    answer : callable
        Does what a message asks for; the second argument says that it is only to look.

    Returns
    -------
    dict
        ``batchItemFailures``: the messages to deliver again.
    """
    messages = [Message.from_record(record) for record in event["Records"]]
    attempted = [message for message in messages if message.queue != settings.unfinished_queue_arn]
    for message in attempted:
        _hide(message, seconds_left + GRACE, settings, sqs)
    again = [m for m in messages if not _is_answered(m, m not in attempted, answer)]
    for message in again:
        if message in attempted:
            delay = settings.retry_delay * 2 ** min(message.deliveries - 1, 10)
            _hide(message, min(delay, _LONGEST_DELAY), settings, sqs)
    return {"batchItemFailures": [{"itemIdentifier": message.identifier} for message in again]}


def _is_answered(
    message: Message, is_unfinished: bool, answer: Callable[[Message, bool], object]
) -> bool:
    extra = {"message_id": message.identifier, "deliveries": message.deliveries}
    try:
        answer(message, is_unfinished)
    except InputRejected:
        logger.info("failed, and announced", extra=extra)
    except Exception as exc:
        logger.warning("to be delivered again: %s", exc, extra=extra)
        return False
    return True


def _hide(
    message: Message, seconds: float, settings: Settings, sqs: "Callable[[], SQSClient]"
) -> None:
    """Have a message delivered again after so long; if that fails, after the queue's own time."""
    address = settings.queue_url(message.queue)
    if address is None:
        return
    try:
        sqs().change_message_visibility(
            QueueUrl=address,
            ReceiptHandle=message.receipt,
            VisibilityTimeout=int(seconds),
        )
    except (ClientError, BotoCoreError) as exc:
        denied = isinstance(exc, ClientError) and is_denied(exc)
        why = denial_of(exc) if isinstance(exc, ClientError) and denied else exc
        logger.warning("%s: the visibility of a message cannot be set: %s", address, why)
