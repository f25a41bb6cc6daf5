"""Messages of an SQS batch, and their visibility.

message                           outcome
processed, or rejected            deleted
failed otherwise                  delivered again after RETRY_DELAY, doubled each time
function killed meanwhile         delivered again a minute after the invocation's deadline; before
                                  SQS has set that, after the queue's own visibility timeout
delivered maxReceiveCount times   moved by SQS to the unfinished queue, from which it is reported
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from handler.events import Mode
from handler.publish import logger
from handler.s3.errors import describe_denial, is_denied
from handler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

GRACE = 60  # seconds after the deadline, by which Lambda has ended the invocation
_LONGEST_DELAY = 900


@dataclass(frozen=True)
class Message:
    """A message of an SQS batch, with the data for its retries and the mode of its queue."""

    identifier: str
    body: str
    receipt: str
    deliveries: int  # approximate: used for the delay only, maxReceiveCount is the queue's
    queue_url: str | None  # None: the queue's own visibility timeout applies
    mode: Mode


def read_batch(event: Mapping[str, Any], settings: Settings) -> list[Message]:
    """Return the messages in the event that Lambda makes of an SQS batch."""
    messages = []
    for record in event["Records"]:
        queue = record.get("eventSourceARN", "")
        is_unfinished = queue == settings.unfinished_queue_arn
        messages.append(
            Message(
                record["messageId"],
                record["body"],
                record.get("receiptHandle", ""),
                int(record.get("attributes", {}).get("ApproximateReceiveCount", 1)),
                None if is_unfinished else settings.queue_url(queue),
                Mode.REPORT if is_unfinished else Mode.RETRIED,
            )
        )
    return messages


def retry_delay(message: Message, settings: Settings) -> int:
    """Return the seconds after which SQS is to deliver a failed message again."""
    delay = settings.retry_delay * 2 ** min(message.deliveries - 1, 10)
    return int(min(delay, _LONGEST_DELAY))


def hide(message: Message, seconds: float, sqs: "Callable[[], SQSClient]") -> None:
    """Set a message's visibility timeout to `seconds`; only log an error of AWS."""
    if message.queue_url is None:
        return
    try:
        sqs().change_message_visibility(
            QueueUrl=message.queue_url,
            ReceiptHandle=message.receipt,
            VisibilityTimeout=int(seconds),
        )
    except (ClientError, BotoCoreError) as exc:
        denied = isinstance(exc, ClientError) and is_denied(exc)
        why = describe_denial(exc) if isinstance(exc, ClientError) and denied else exc
        logger.warning("%s: cannot set a visibility timeout: %s", message.queue_url, why)
