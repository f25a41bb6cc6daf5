"""The messages of an SQS batch: which are done, which are to be delivered again, and when.

what happens to a message                  what becomes of it
its exposure is processed or skipped       deleted
its exposure is rejected                   announced and deleted: no retry would help
anything else fails                        delivered again, after a while
the last attempt fails                     announced, then moved to the dead-letter queue by SQS
every attempt was ended from outside       the same: one more delivery is kept for saying so
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import InputRejected, TransientFailure
from handler.announcements import Status
from handler.case import Case, Services
from handler.inputs import current_exposure
from handler.invocation import Invocation
from handler.observability import logger
from handler.process import process, reject
from handler.requests import ExposureRequest, requests_in_body
from handler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

__all__ = ["handle_batch"]

_LONGEST_DELAY = 900
_QUOTED = 1000
"""Characters of a message that cannot be read."""


@dataclass(frozen=True)
class Message:
    """A message, and how often it was delivered."""

    identifier: str
    body: str
    receipt: str
    delivery: int

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Message":
        """Read a record of the event that Lambda's poller makes of a batch."""
        delivery = record.get("attributes", {}).get("ApproximateReceiveCount", "1")
        receipt = record.get("receiptHandle", "")
        return cls(record["messageId"], record["body"], receipt, int(delivery))


def handle_batch(
    event: dict[str, Any],
    settings: Settings,
    services: Services,
    invocation: Invocation,
    sqs: "Callable[[], SQSClient]",
) -> dict[str, Any]:
    """Process the messages of an SQS batch; a bad one does not stop the others.

    Parameters
    ----------
    event : dict
        The batch.
    settings, services, invocation
        As `handler.process.process` takes them.
    sqs : callable
        Makes the SQS client, which is needed only where something failed.

    Returns
    -------
    dict
        ``batchItemFailures``: the messages to deliver again.
    """
    messages = [Message.from_record(record) for record in event["Records"]]
    again = [m for m in messages if not _is_done(m, settings, services, invocation)]
    for message in again:
        _delay(message, settings, sqs)
    return {"batchItemFailures": [{"itemIdentifier": message.identifier} for message in again]}


def _is_done(
    message: Message, settings: Settings, services: Services, invocation: Invocation
) -> bool:
    """Process what a message asks for; return whether the message has had its answer."""
    extra = {"message_id": message.identifier, "delivery": message.delivery}
    attempt = invocation.attempt(message.delivery, settings.attempts)
    try:
        for request in _requests(message, settings, services, attempt):
            if message.delivery > settings.attempts:
                _give_up(request, settings, services, attempt)
            else:
                process(request, settings, services, attempt)
    except InputRejected:
        logger.exception("rejected", extra=extra)
    except Exception:
        logger.exception("to be delivered again", extra=extra)
        return False
    return True


def _requests(
    message: Message, settings: Settings, services: Services, invocation: Invocation
) -> list[ExposureRequest]:
    """Read what a message asks for; what cannot be read is quoted in the announcement."""
    try:
        return requests_in_body(message.body)
    except InputRejected as exc:
        quoted = InputRejected(f"{exc}; the message: {message.body[:_QUOTED]}")
        reject(quoted, settings, services, invocation)
        raise


def _give_up(
    request: ExposureRequest, settings: Settings, services: Services, invocation: Invocation
) -> None:
    """Announce as failed what no attempt could announce, and have SQS put the message aside."""
    case = Case(request, settings, services, invocation)
    try:
        case.target = request.target(settings.output_bucket, settings.output_prefix)
        source, is_current = current_exposure(request.source, request.etag, case.store)
    except InputRejected as exc:
        case.announce(Status.FAILED, str(exc), InputRejected.__name__)
        raise
    case.source_is(source)
    if not is_current:
        return
    known = services.outcomes.recorded(case.identity)
    if known is not None and known.announced and known.detail["status"] == Status.COMPLETE:
        return
    reason = f"{source.location}: none of {settings.attempts} attempts came to an end"
    if known is None or not known.announced:
        case.announce(Status.FAILED, f"{reason} (time-out, memory)", TransientFailure.__name__)
    raise TransientFailure(reason)


def _delay(message: Message, settings: Settings, sqs: "Callable[[], SQSClient]") -> None:
    """Have a message delivered again sooner than it would be, but later each time."""
    if settings.queue is None:
        return
    wait = min(settings.retry_delay * 2 ** (message.delivery - 1), _LONGEST_DELAY)
    if message.delivery >= settings.attempts:
        wait = 0  # only to be put aside
    sqs().change_message_visibility(
        QueueUrl=settings.queue, ReceiptHandle=message.receipt, VisibilityTimeout=wait
    )
