"""The messages of a queue: read them, send them again, delete them.

Messages are received, sent and deleted in batches of ten, by `WORKERS` threads. A message is sent
before it is deleted: a command that is killed in between leaves it in both places, which the
function and the consumers of events recognise as a repetition.
"""

import fnmatch
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from handler.event import SOURCE
from infra.cli import UserError

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_sqs.client import SQSClient

__all__ = [
    "WORKERS",
    "Chosen",
    "Depth",
    "Look",
    "Moved",
    "QueuedMessage",
    "Targets",
    "counts_deliveries",
    "depth",
    "discard",
    "look",
    "redrive",
]

_HIDDEN = 60
"""Seconds that messages are hidden from others while they are read."""
_NEWER = 3
"""Answers with newer messages only, after which no older one is expected: queues are unordered."""
_POLL = 2
"""Seconds of long polling: only then SQS asks all its servers."""
WORKERS = 16
_BATCH = 10
"""Entries that SQS and EventBridge take in one request."""
_BATCH_BYTES = 256_000
"""Bytes that both take in one request; a larger message goes alone."""
_SKEW = 2
"""Seconds by which the clock of this machine may differ from that of SQS unnoticed."""


@dataclass(frozen=True)
class QueuedMessage:
    """A message in a queue.

    Attributes
    ----------
    identifier, body, receipt : str
        The message id, its body, and the receipt handle that deletes it.
    sent : float
        When it was sent, in seconds since 1970, by the clock of SQS.
    exposure, key : str
        S3 URI and key of the exposure, as far as they can be read.
    error, reason : str
        Class and text of a failure.
    can_be_tried : bool
        Whether it contains a request: the failure of an unreadable event does not.
    event : dict
        The body, if it is an event of this software; else empty.
    """

    identifier: str
    body: str
    receipt: str
    sent: float
    exposure: str
    key: str
    error: str = ""
    reason: str = ""
    can_be_tried: bool = True
    event: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_message(cls, message: Any) -> "QueuedMessage":
        """Read a message that SQS returned."""
        event = _event(message["Body"])
        detail = _part(event, "detail")
        is_ours = event.get("source") == SOURCE
        asked = (
            _part(detail, "input")
            or _part(detail, "request")
            or {
                "bucket": _part(detail, "bucket").get("name") or event.get("bucket"),
                "key": _part(detail, "object").get("key") or event.get("key"),
            }
        )
        key = str(asked.get("key") or "?")
        return cls(
            message["MessageId"],
            message["Body"],
            message["ReceiptHandle"],
            int(message["Attributes"]["SentTimestamp"]) / 1000,
            f"s3://{asked.get('bucket') or '?'}/{key}",
            key,
            str(detail.get("error") or "") if is_ours else "",
            str(detail.get("reason") or "") if is_ours else "",
            not is_ours or bool(_part(detail, "request")),
            event if is_ours else {},
        )

    @property
    def label(self) -> str:
        """The error, the status of another result, or ``waits``."""
        return self.error or str(_part(self.event, "detail").get("status") or "waits")


@dataclass(frozen=True)
class Chosen:
    """A choice of messages; None means any.

    Attributes
    ----------
    error : str or None
        Class of the failure.
    key, prefix, pattern : str or None
        The exposure's key or S3 URI; what it begins with; a glob pattern for all of it.
    older_than : float or None
        Seconds since the message was sent.
    identifiers : frozenset of str or None
        Message ids.
    """

    error: str | None = None
    key: str | None = None
    prefix: str | None = None
    pattern: str | None = None
    older_than: float | None = None
    identifiers: frozenset[str] | None = None

    def holds(self, message: QueuedMessage, now: float) -> bool:
        """Say whether a message is chosen."""
        names = (message.key, message.exposure)
        return (
            self.error in {None, message.error}
            and (self.identifiers is None or message.identifier in self.identifiers)
            and (self.key is None or self.key in names)
            and (self.prefix is None or any(name.startswith(self.prefix) for name in names))
            and (
                self.pattern is None
                or any(fnmatch.fnmatchcase(name, self.pattern) for name in names)
            )
            and (self.older_than is None or now - message.sent >= self.older_than)
        )


@dataclass(frozen=True)
class Depth:
    """How many messages wait, are in flight (hidden), and are delayed: SQS counts approximately."""

    waiting: int
    in_flight: int
    delayed: int


@dataclass
class Look:
    """What was found in a queue: the chosen messages, and all by error."""

    chosen: list[QueuedMessage] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)


@dataclass
class Moved:
    """How a redrive or discard ended.

    Attributes
    ----------
    done : int
        Messages that were sent again or discarded, as the command says.
    untried : int
        Chosen messages without a request; they stay in the queue.
    refused : list of str
        Messages that SQS or EventBridge refused, with the reason; they stay in the queue.
    labels : Counter
        All messages that were seen, by error.
    """

    done: int = 0
    untried: int = 0
    refused: list[str] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Targets:
    """Where messages are sent again.

    Attributes
    ----------
    queue : str
        URL of the queue for requests.
    bus : str or None
        The EventBridge bus for undelivered events; None if it is unknown.
    events : boto3 EventBridge client
        Publishes them.
    are_undelivered : bool
        Whether the queue holds events that were not delivered: a Failed event among them is
        published again. In the queue of failures its request is sent again instead.
    """

    queue: str
    bus: str | None
    events: "EventBridgeClient"
    are_undelivered: bool = False

    def is_published(self, message: QueuedMessage) -> bool:
        """Say whether a message is published as the event that it is."""
        return bool(message.event) and (self.are_undelivered or not message.error)


def depth(sqs: "SQSClient", queue: str) -> Depth:
    """Return the message counts of a queue, as SQS reports them."""
    names = {
        "waiting": "ApproximateNumberOfMessages",
        "in_flight": "ApproximateNumberOfMessagesNotVisible",
        "delayed": "ApproximateNumberOfMessagesDelayed",
    }
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[*names.values()])  # type: ignore[list-item]
    found: Mapping[str, str] = answer["Attributes"]  # type: ignore[assignment]
    return Depth(**{field: int(found.get(name, 0)) for field, name in names.items()})


def counts_deliveries(sqs: "SQSClient", queue: str) -> bool:
    """Say whether reading a queue moves its messages to a dead-letter queue in the end."""
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["RedrivePolicy"])
    return bool(found.get("Attributes", {}).get("RedrivePolicy"))


def look(sqs: "SQSClient", queue: str, chosen: Chosen = Chosen()) -> Look:
    """Read the messages that were in a queue when the reading began, and leave them there.

    Raises
    ------
    UserError
        If reading would count as a delivery.
    """
    found, lock = Look(), Lock()
    read: dict[str, str] = {}

    def keep(batch: list[QueuedMessage], begun: float) -> None:
        with lock:
            for message in batch:
                found.labels[message.label] += 1
                if chosen.holds(message, begun):
                    found.chosen.append(message)

    try:
        _read(sqs, queue, keep, read)
    finally:
        _show_again(sqs, queue, read)
    return found


def redrive(sqs: "SQSClient", queue: str, targets: Targets, chosen: Chosen = Chosen()) -> Moved:
    """Send messages again, then delete them from the queue.

    What fails again comes back to the queue meanwhile; only messages that were there when the
    redrive began are sent.

    Raises
    ------
    UserError
        If reading would count as a delivery, or the bus of an event is unknown.
    """

    def send(batch: list[QueuedMessage]) -> tuple[list[QueuedMessage], list[str]]:
        published = [m for m in batch if targets.is_published(m)]
        others = [m for m in batch if not targets.is_published(m)]
        sent: list[QueuedMessage] = []
        refused: list[str] = []
        ways = [(part, True) for part in _parts(published)]
        for part, is_event in [*ways, *((part, False) for part in _parts(others))]:
            reasons = _publish(targets, part) if is_event else _send(sqs, targets.queue, part)
            sent += [message for n, message in enumerate(part) if n not in reasons]
            refused += [f"{part[n].exposure}: {reason}" for n, reason in reasons.items()]
        return sent, refused

    def is_tried(message: QueuedMessage) -> bool:
        return message.can_be_tried or targets.is_published(message)

    return _taken(sqs, queue, chosen, send, is_tried)


def discard(sqs: "SQSClient", queue: str, chosen: Chosen = Chosen()) -> Moved:
    """Delete messages that were there when the discarding began."""
    return _taken(sqs, queue, chosen, lambda batch: (batch, []), lambda _: True)


def _taken(
    sqs: "SQSClient",
    queue: str,
    chosen: Chosen,
    send: Callable[[list[QueuedMessage]], tuple[list[QueuedMessage], list[str]]],
    is_tried: Callable[[QueuedMessage], bool],
) -> Moved:
    """Send the chosen messages, delete those that were sent, and show the others again."""
    moved, lock = Moved(), Lock()
    read: dict[str, str] = {}

    def take(batch: list[QueuedMessage], begun: float) -> None:
        meant = [message for message in batch if chosen.holds(message, begun)]
        tried = [message for message in meant if is_tried(message)]
        sent, refused = send(tried)
        left = _delete(sqs, queue, sent)
        with lock:
            moved.labels.update(message.label for message in batch)
            moved.done += len(sent)
            moved.untried += len(meant) - len(tried)
            moved.refused += [*refused, *left]
            for message in sent:
                read.pop(message.identifier, None)

    try:
        _read(sqs, queue, take, read)
    finally:
        _show_again(sqs, queue, read)
    return moved


def _read(
    sqs: "SQSClient",
    queue: str,
    use: Callable[[list[QueuedMessage], float], None],
    read: dict[str, str],
) -> None:
    """Pass on every message that is in the queue now, in batches, each message once.

    `read` collects the receipt handles of all that were received, newer ones too.
    """
    if counts_deliveries(sqs, queue):
        raise UserError(
            f"{queue}: its messages are processed automatically, and reading one counts as a "
            f"delivery; SQS counts {_text(depth(sqs, queue))}"
        )
    begun, lock = _now(sqs, queue), Lock()
    known: set[str] = set()
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
            batch = [QueuedMessage.from_message(message) for message in received]
            with lock:
                # A message that comes once more was hidden for too short a time.
                older = [m for m in batch if m.sent <= begun and m.identifier not in known]
                known.update(message.identifier for message in older)
                read.update((message.identifier, message.receipt) for message in batch)
            newer = 0 if older else newer + 1
            if older:
                use(older, begun)

    with ThreadPoolExecutor(WORKERS) as pool:
        workers = [pool.submit(work) for _ in range(WORKERS)]
        try:
            for worker in workers:
                worker.result()
        finally:
            is_stopped = True


def _now(sqs: "SQSClient", queue: str) -> float:
    """Return the time by the clock of SQS, in seconds since 1970; `sent` is by that clock."""
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    now = time.time()
    skew = parsedate_to_datetime(date).timestamp() - now if date else 0
    return now + skew if abs(skew) > _SKEW else now


def _show_again(sqs: "SQSClient", queue: str, read: dict[str, str]) -> None:
    """Make messages visible; a message that somebody else has by now is left alone."""

    def show(some: list[str]) -> None:
        sqs.change_message_visibility_batch(
            QueueUrl=queue,
            Entries=[
                {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                for n, receipt in enumerate(some)
            ],
        )

    receipts = [*read.values()]
    batches = [receipts[n : n + _BATCH] for n in range(0, len(receipts), _BATCH)]
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(show, batches))


def _parts(batch: list[QueuedMessage]) -> Iterator[list[QueuedMessage]]:
    """Divide a batch so that no part is larger than one request may be."""
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


def _send(sqs: "SQSClient", queue: str, part: list[QueuedMessage]) -> dict[int, str]:
    """Send messages; return why some were refused, by index."""
    entries: Any = [{"Id": str(n), "MessageBody": m.body} for n, m in enumerate(part)]
    failed = sqs.send_message_batch(QueueUrl=queue, Entries=entries).get("Failed", [])
    return {int(one["Id"]): f"{one['Code']} {one.get('Message', '')}" for one in failed}


def _publish(targets: Targets, part: list[QueuedMessage]) -> dict[int, str]:
    """Publish events again, with their detail type and detail; return as `_send` does."""
    if targets.bus is None:
        raise UserError("an event was not delivered: --stack NAME says on which bus to publish it")
    entries: Any = [
        {
            "EventBusName": targets.bus,
            "Source": SOURCE,
            "DetailType": str(message.event.get("detail-type")),
            "Detail": json.dumps(message.event.get("detail")),
        }
        for message in part
    ]
    return {
        n: f"{one['ErrorCode']} {one.get('ErrorMessage', '')}"
        for n, one in enumerate(targets.events.put_events(Entries=entries)["Entries"])
        if one.get("ErrorCode")
    }


def _delete(sqs: "SQSClient", queue: str, sent: list[QueuedMessage]) -> list[str]:
    """Delete messages; return those that SQS did not delete, with the reason."""
    if not sent:
        return []
    entries: Any = [{"Id": str(n), "ReceiptHandle": m.receipt} for n, m in enumerate(sent)]
    failed = sqs.delete_message_batch(QueueUrl=queue, Entries=entries).get("Failed", [])
    return [
        f"{sent[int(one['Id'])].exposure}: not deleted, {one['Code']} {one.get('Message', '')}"
        for one in failed
    ]


def _text(found: Depth) -> str:
    return f"{found.waiting:,} waiting, {found.in_flight:,} in flight, {found.delayed:,} delayed"


def _event(body: str) -> dict[str, Any]:
    """Return the event in a message; empty if it is not one."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _part(event: dict[str, Any], name: str) -> dict[str, Any]:
    part = event.get(name)
    return part if isinstance(part, dict) else {}
