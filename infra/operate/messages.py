"""The messages of a queue: read, redrive or delete them.

A message is sent before it is deleted. If the command is killed in between, the message is in both
queues; the function and the consumers of events recognise the repetition.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from core.errors import TransientFailure
from handler.event import SOURCE, Bus
from handler.s3.errors import translate_errors
from infra.cli import UserError

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_sqs.client import SQSClient

WORKERS = 16
_BATCH = 10  # messages in one request to SQS
_BATCH_BYTES = 256_000  # in one request; a larger message is sent alone
_HIDDEN = 60  # seconds of visibility timeout while messages are read
# Only long polling asks all servers of SQS: docs.aws.amazon.com/AWSSimpleQueueService/latest/
# SQSDeveloperGuide/sqs-short-and-long-polling.html
_POLL = 2
_NEWER = 3  # responses with newer messages only after which no older one is expected
_SKEW = 2  # seconds by which this machine's clock may differ from that of SQS


@dataclass(frozen=True)
class QueuedMessage:
    """A message in a queue, and what it says about an exposure."""

    identifier: str  # message ID
    body: str
    receipt: str  # receipt handle
    sent: float  # seconds since 1970, by the clock of SQS
    exposure: str  # S3 URI; ? for a bucket or key that the message does not contain
    key: str
    error: str = ""  # class of error of a Failed event, else empty
    reason: str = ""  # of a Failed or Skipped event, else empty
    # False only for a processing event without a request: the failure of an unreadable event.
    can_be_tried: bool = True
    # The processing event in the body; empty if there is none.
    event: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_message(cls, message: Any) -> "QueuedMessage":
        """Parse a message of a ReceiveMessage response; its body may be any text."""
        event = _event(message["Body"])
        detail = _object(event, "detail") or _object(_first_record(event), "s3")
        is_ours = event.get("source") == SOURCE
        failed = _object(event, "responsePayload")  # of a function that Lambda invoked in vain
        source = (
            _object(detail, "input")
            or _object(detail, "request")
            or {
                "bucket": _object(detail, "bucket").get("name") or event.get("bucket"),
                "key": _object(detail, "object").get("key") or event.get("key"),
            }
        )
        key = str(source.get("key") or "?")
        if "Records" in event:  # S3 encodes keys in its notifications, not in its events
            key = unquote_plus(key)
        return cls(
            identifier=message["MessageId"],
            body=message["Body"],
            receipt=message["ReceiptHandle"],
            sent=int(message["Attributes"]["SentTimestamp"]) / 1000,
            exposure=f"s3://{source.get('bucket') or '?'}/{key}",
            key=key,
            error=str((detail.get("error") if is_ours else failed.get("errorType")) or ""),
            reason=str((detail.get("reason") if is_ours else failed.get("errorMessage")) or ""),
            can_be_tried=not is_ours or bool(_object(detail, "request")),
            event=event if is_ours else {},
        )

    @property
    def label(self) -> str:
        """Error of a Failed event, status of another processing event, else ``waits``."""
        return self.error or str(_object(self.event, "detail").get("status") or "waits")


@dataclass(frozen=True)
class Chosen:
    """Conditions that a chosen message meets; None: no condition."""

    error: str | None = None  # class of error of the Failed event in the message
    key: str | None = None  # the key or S3 URI of the exposure
    prefix: str | None = None  # with which the key or the S3 URI of the exposure begins
    pattern: str | None = None  # case-sensitive glob pattern for the whole key or the whole S3 URI
    older_than: float | None = None  # minimum age: seconds since the message was sent
    identifiers: frozenset[str] | None = None  # message IDs, one of which the message must have

    def matches(self, message: QueuedMessage, now: float) -> bool:
        """Return whether a message meets all conditions at `now` (seconds since 1970)."""
        names = (message.key, message.exposure)
        return (
            self.error in {None, message.error}
            and (self.identifiers is None or message.identifier in self.identifiers)
            and (self.key is None or self.key in names)
            and (self.prefix is None or any(name.startswith(self.prefix) for name in names))
            and (self.pattern is None or any(fnmatchcase(n, self.pattern) for n in names))
            and (self.older_than is None or now - message.sent >= self.older_than)
        )


@dataclass(frozen=True)
class Depth:
    """The approximate message counts of a queue."""

    waiting: int
    in_flight: int
    delayed: int

    def __str__(self) -> str:
        return (
            f"{self.waiting:,} waiting, {self.in_flight:,} in flight, {self.delayed:,} delayed "
            "(approximate counts of SQS)"
        )


EMPTY = Depth(0, 0, 0)
MOST_READ = 100_000
"""Messages after which a queue may show no more: SQS hides at most 120,000 at a time."""


@dataclass
class Contents:
    """The messages read from a queue: those chosen, and the number of all by label."""

    chosen: list[QueuedMessage] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)


@dataclass
class Moved:
    """The result of redriving or discarding: numbers of messages, and AWS's refusals.

    A message that was sent but could not be deleted counts in `refused` only.
    """

    done: int = 0  # redriven or discarded
    untried: int = 0  # chosen messages without a request, which stay in the queue
    refused: list[str] = field(default_factory=list)  # refusals of AWS: exposure and reason
    labels: Counter[str] = field(default_factory=Counter)  # of all messages that were read


@dataclass(frozen=True)
class Targets:
    """The queue and the event bus to which messages are redriven."""

    queue: str  # URL
    bus: str | None  # name; None: unknown, so `send` raises `UserError` for an event to publish
    events: "EventBridgeClient"
    # An undelivered Failed event is published again. In FailedQueue, the same event stands for its
    # request, which is sent to the queue.
    are_undelivered: bool = False

    def is_published(self, message: QueuedMessage) -> bool:
        """Return whether `send` publishes a message's event, instead of sending the message."""
        return bool(message.event) and (self.are_undelivered or not message.error)

    def send(self, sqs: "SQSClient", batch: list[QueuedMessage]) -> dict[str, str]:
        """Publish or send at most ten messages; return AWS's refusals by message ID."""
        refused: dict[str, str] = {}
        for message in filter(self.is_published, batch):
            if self.bus is None:
                raise UserError(
                    f"{message.exposure}: its event cannot be published without the name of the "
                    "event bus, expected --stack NAME"
                )
            kind, detail = str(message.event.get("detail-type")), message.event.get("detail")
            try:
                Bus(self.bus, self.events).put(SOURCE, kind, detail or {})
            except TransientFailure as exc:
                refused[message.identifier] = str(exc)
        for part in _split(message for message in batch if not self.is_published(message)):
            entries: Any = [{"Id": m.identifier, "MessageBody": m.body} for m in part]
            refused |= _failed(sqs.send_message_batch(QueueUrl=self.queue, Entries=entries))
        return refused


def depth(sqs: "SQSClient", queue: str) -> Depth:
    """Return the approximate message counts of a queue; `UserError` if it does not exist."""
    names = ("Messages", "MessagesNotVisible", "MessagesDelayed")
    found = _describe(sqs, queue, *(f"ApproximateNumberOf{name}" for name in names))
    return Depth(*(int(found["Attributes"][f"ApproximateNumberOf{name}"]) for name in names))


def counts_deliveries(sqs: "SQSClient", queue: str) -> bool:
    """Return whether a queue has a redrive policy: SQS moves messages that are read too often."""
    return "RedrivePolicy" in _describe(sqs, queue, "RedrivePolicy").get("Attributes", {})


def read_messages(sqs: "SQSClient", queue: str, chosen: Chosen = Chosen()) -> Contents:
    """Return the chosen messages visible in a queue, and all labels; they stay in it."""
    found: list[QueuedMessage] = []

    def keep(batch: list[QueuedMessage]) -> list[QueuedMessage]:
        found.extend(batch)
        return []

    labels = _read(sqs, queue, chosen, keep)
    return Contents(found, labels)


def redrive(sqs: "SQSClient", queue: str, targets: Targets, chosen: Chosen = Chosen()) -> Moved:
    """Send the chosen messages of a queue to the targets, then delete those that were sent."""
    return _move(sqs, queue, chosen, targets)


def discard(sqs: "SQSClient", queue: str, chosen: Chosen = Chosen()) -> Moved:
    """Delete the chosen messages visible in a queue; those sent after the start stay."""
    return _move(sqs, queue, chosen, None)


def _move(sqs: "SQSClient", queue: str, chosen: Chosen, targets: Targets | None) -> Moved:
    """Redrive the chosen messages to `targets`, or, if it is None, discard them."""
    moved, lock = Moved(), Lock()

    def move(batch: list[QueuedMessage]) -> list[QueuedMessage]:
        tried = batch
        if targets is not None:
            tried = [m for m in batch if m.can_be_tried or targets.is_published(m)]
        refused = targets.send(sqs, tried) if targets is not None else {}
        sent = [message for message in tried if message.identifier not in refused]
        if sent:
            entries: Any = [{"Id": m.identifier, "ReceiptHandle": m.receipt} for m in sent]
            kept = _failed(sqs.delete_message_batch(QueueUrl=queue, Entries=entries))
            what = "not deleted" if targets is None else "sent, but not deleted"
            refused |= {name: f"{what} from the queue: {kept[name]}" for name in kept}
            sent = [message for message in sent if message.identifier not in kept]
        with lock:
            moved.done += len(sent)
            moved.untried += len(batch) - len(tried)
            moved.refused += [
                f"{m.exposure}: {refused[m.identifier]}" for m in tried if m.identifier in refused
            ]
        return sent

    moved.labels = _read(sqs, queue, chosen, move)
    return moved


def _read(
    sqs: "SQSClient",
    queue: str,
    chosen: Chosen,
    use: Callable[[list[QueuedMessage]], list[QueuedMessage]],
) -> Counter[str]:
    """Pass chosen messages to `use`, which returns those sent or deleted; count all by label.

    Messages sent after the start are left out. Several threads pass each message once; those not
    returned become visible at the end. A redrive policy of the queue raises `UserError`.
    """
    if counts_deliveries(sqs, queue):
        raise UserError(
            f"{queue}: its messages are processed automatically, and reading one counts as a "
            f"delivery, expected FailedQueue or UndeliveredQueue; it holds {depth(sqs, queue)}"
        )
    start, lock = _now(sqs, queue), Lock()
    known: set[str] = set()
    receipts: dict[str, str] = {}  # of the messages that were read and remain
    labels: Counter[str] = Counter()
    is_stopped = False

    def work() -> None:
        nonlocal is_stopped
        newer = 0
        while newer < _NEWER and not is_stopped:
            received = sqs.receive_message(
                QueueUrl=queue,
                MaxNumberOfMessages=_BATCH,
                VisibilityTimeout=_HIDDEN,
                WaitTimeSeconds=_POLL,
                MessageSystemAttributeNames=["SentTimestamp"],
            ).get("Messages")
            if not received:
                return
            batch = {item["MessageId"]: QueuedMessage.from_message(item) for item in received}
            with lock:
                # A message is received twice if its visibility timeout ended.
                older = [m for m in batch.values() if m.sent <= start and m.identifier not in known]
                known.update(message.identifier for message in older)
                labels.update(message.label for message in older)
                receipts.update((message.identifier, message.receipt) for message in batch.values())
            newer = 0 if older else newer + 1
            deleted = use([message for message in older if chosen.matches(message, start)])
            with lock:
                for message in deleted:
                    receipts.pop(message.identifier, None)

    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            workers = [pool.submit(work) for _ in range(WORKERS)]
            try:
                for worker in workers:
                    worker.result()
            finally:
                is_stopped = True
    finally:
        _show_again(sqs, queue, [*receipts.values()])
    return labels


def _describe(sqs: "SQSClient", queue: str, *attributes: Any) -> Any:
    """Return the response of GetQueueAttributes; `UserError` if the queue does not exist."""
    with translate_errors(f"{queue}: reading its attributes"):
        try:
            return sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[*attributes])
        except sqs.exceptions.QueueDoesNotExist as exc:
            raise UserError(f"{queue}: no such queue, expected the URL of a queue") from exc


def _now(sqs: "SQSClient", queue: str) -> float:
    """Return the time by the clock of SQS, to 2 s, in seconds since 1970."""
    answer = _describe(sqs, queue, "QueueArn")
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    now = time.time()
    skew = parsedate_to_datetime(date).timestamp() - now if date else 0
    return now + skew if abs(skew) > _SKEW else now


def _show_again(sqs: "SQSClient", queue: str, receipts: list[str]) -> None:
    """Make received messages visible, by receipt handle; refusals of SQS are ignored."""

    def show(first: int) -> None:
        some = enumerate(receipts[first : first + _BATCH])
        entries: Any = [
            {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": 0} for n, receipt in some
        ]
        sqs.change_message_visibility_batch(QueueUrl=queue, Entries=entries)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(show, range(0, len(receipts), _BATCH)))


def _split(batch: Iterable[QueuedMessage]) -> Iterator[list[QueuedMessage]]:
    """Yield the messages of a batch (at most ten) in lists that fit into one request by size."""
    part: list[QueuedMessage] = []
    size = 0
    for message in batch:
        length = len(message.body.encode("utf-8", "surrogatepass")) + 1000
        if part and size + length > _BATCH_BYTES:
            yield part
            part, size = [], 0
        part.append(message)
        size += length
    if part:
        yield part


def _failed(answer: Any) -> dict[str, str]:
    """Return the reason of each failed entry in a batch response of SQS, by entry ID."""
    return {
        one["Id"]: f"{one['Code']} {one.get('Message', '')}".rstrip()
        for one in answer.get("Failed", [])
    }


def _first_record(event: dict[str, Any]) -> dict[str, Any]:
    """Return the first record of an S3 notification; empty for another event."""
    records = event.get("Records")
    first = records[0] if isinstance(records, list) and records else None
    return first if isinstance(first, dict) else {}


def _event(body: str) -> dict[str, Any]:
    """Return the JSON object in a message's body; empty if the body is not one."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _object(event: dict[str, Any], name: str) -> dict[str, Any]:
    value = event.get(name)
    return value if isinstance(value, dict) else {}
