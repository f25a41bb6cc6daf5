"""The command ``dq-init queues``: show, redrive or discard the messages of a queue."""

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
import click
from botocore.config import Config

from infra import options
from infra.aws import Stack, find_stack
from infra.cli import UserError, confirm, plural, printable
from infra.operate import messages
from infra.operate.messages import Chosen, Moved, QueuedMessage

_SHOWN = 10
"""Exposures, and refusals of AWS, that are printed one by one."""


def text(value: str) -> str:
    """Return an option's argument; reject an empty one, which could choose all messages."""
    if not value:
        raise click.BadParameter("is empty; leave the option out to choose all messages")
    return value


_NAME_OR_URL = "NAME|URL"
_source_options = options.together(
    options.stack(),
    click.option("--queue", default="FailedQueue", metavar=_NAME_OR_URL, help="Queue to read."),
    click.option("--error", type=text, help="Only failures of this class: InputRejected, ..."),
    click.option("--key", type=text, help="Only the exposure with this key or S3 URI."),
    click.option("--prefix", type=text, help="Only exposures whose key or URI begins with this."),
    click.option("--pattern", type=text, help="Only keys or URIs that match: *, ?, [...]."),
    click.option("--older-than", type=options.Number(0), help="Only messages of so many seconds."),
    click.option("--id", type=text, help="Only the message with this id."),
)


@dataclass(frozen=True)
class _Source:
    """A queue that a command reads, and the conditions on the messages to choose."""

    stack: Stack | None
    sqs: Any
    name: str  # as the operator gave it: output of the stack, or URL
    url: str
    chosen: Chosen

    @classmethod
    def of(cls, stack: str | None, queue: str, id: str | None, **filters: Any) -> "_Source":  # noqa: A002
        """Return the queue and conditions in the options that all commands here share."""
        found = find_stack(stack) if stack else None
        sqs = boto3.client("sqs", config=Config(max_pool_connections=messages.WORKERS))
        chosen = Chosen(**filters, identifiers=frozenset({id}) if id else None)
        return cls(found, sqs, queue, _url(queue, found), chosen)


def _url(name: str, stack: Stack | None) -> str:
    """Return the URL of a queue, given that URL or the name of an output of the stack."""
    if name.startswith("http"):
        return name
    if stack is None:
        raise UserError(f"queue {name}: no stack was named, expected --stack NAME, or a queue URL")
    return stack.output(name, "Queue")


@click.group()
def command() -> None:
    """Show, redrive or discard the messages of a queue, such as failed exposures.

    A queue is named by its output of the stack (FailedQueue, UndeliveredQueue) or its URL. Without
    options that choose messages, a command applies to all messages of the queue.
    """


@command.command()
@_source_options
@options.as_json
def show(as_json: bool, **source: Any) -> None:
    """Print the messages of a queue that the options choose; they stay in the queue.

    Queues whose messages are processed automatically (UploadedQueue, BackfillQueue,
    UnfinishedQueue) are counted, not read: reading a message counts as a delivery.
    """
    queue = _Source.of(**source)
    if not messages.counts_deliveries(queue.sqs, queue.url):
        _print_messages(queue, as_json=as_json)
        return
    counts = messages.depth(queue.sqs, queue.url)
    if as_json:
        print(json.dumps(asdict(counts)))
        return
    print(
        f"{queue.name}: {counts}. Its messages are not shown: they are processed automatically, "
        "and reading one counts as a delivery."
    )


@command.command()
@_source_options
@click.option("--to", default="UploadedQueue", metavar=_NAME_OR_URL, help="Queue to send to.")
@options.dry_run
def redrive(to: str, dry_run: bool, **source: Any) -> None:
    """Send failed exposures to a queue (--to) to be processed again; delete their messages.

    Processing events in UndeliveredQueue are published again, unchanged; its other messages are
    sent to --to. A Failed event without a request stays in FailedQueue.
    """
    queue = _Source.of(**source)
    if dry_run:
        _print_messages(queue)
        return
    bus = queue.stack.parameters.get("EventBus", "default") if queue.stack else None
    is_event = queue.url == (queue.stack and queue.stack.outputs.get("UndeliveredQueue"))
    target = _url(to, queue.stack)
    targets = messages.Targets(target, bus, boto3.client("events"), are_undelivered=is_event)
    moved = messages.redrive(queue.sqs, queue.url, targets, queue.chosen)
    _report(moved, "sent again", queue, "" if is_event else f" to {to}")


@command.command()
@_source_options
@options.dry_run
@options.yes
def discard(dry_run: bool, yes: bool, **source: Any) -> None:
    """Permanently delete the messages that the options choose; without --yes, ask before."""
    queue = _Source.of(**source)
    if dry_run:
        _print_messages(queue)
        return
    chosen = queue.chosen
    if not yes:
        found = messages.read_messages(queue.sqs, queue.url, chosen)
        _print_sample(found.chosen)
        if not found.chosen:
            _report(Moved(labels=found.labels), "discarded", queue)
            return
        if not confirm(f"Delete {plural(len(found.chosen), 'message')} permanently?"):
            sys.exit("nothing was discarded")
        # Only the printed messages: others may have arrived while the operator read.
        chosen = Chosen(identifiers=frozenset(message.identifier for message in found.chosen))
    _report(messages.discard(queue.sqs, queue.url, chosen), "discarded", queue)


def _print_messages(queue: _Source, *, as_json: bool = False) -> None:
    """Print the chosen messages by exposure, or as JSON with every field except `event`."""
    counts = messages.depth(queue.sqs, queue.url)
    found = messages.read_messages(queue.sqs, queue.url, queue.chosen)
    if as_json:
        fields = [asdict(message) for message in found.chosen]
        for one in fields:
            del one["event"]
        print(json.dumps(fields, indent=2))
        _check_all_were_read(found.labels.total(), queue)
        return
    groups = _by_exposure(found.chosen)
    for group in groups:
        _print_exposure(group)
    if not found.labels:
        print(f"{queue.name}: {_hidden(counts) or 'empty'}")
        return
    print(
        f"{plural(len(found.chosen), 'message')} of {plural(len(groups), 'exposure')}; "
        f"{queue.name} holds {counts.waiting + counts.in_flight:,} (approximate count of SQS)"
    )
    _print_hint(len(found.chosen), found.labels)
    _check_all_were_read(found.labels.total(), queue)


def _check_all_were_read(number: int, queue: _Source) -> None:
    """Exit with 1 if so many messages were read that SQS showed no more."""
    if number >= messages.MOST_READ:
        sys.exit(
            f"{queue.name}: {number:,} messages were read, perhaps not all: SQS hides at most "
            "120,000 at a time; redrive or discard some, then run the same command again"
        )


def _hidden(counts: messages.Depth) -> str:
    """Return why a queue with these counts showed no message; empty if all counts are 0."""
    is_empty = not counts.waiting + counts.in_flight + counts.delayed
    return "" if is_empty else f"none is visible, {counts}; wait for a minute"


def _by_exposure(chosen: list[QueuedMessage]) -> list[list[QueuedMessage]]:
    """Return messages grouped by exposure; a message without a key is a group of its own."""
    groups: dict[str, list[QueuedMessage]] = {}
    for message in sorted(chosen, key=lambda message: message.sent):
        name = message.identifier if message.key == "?" else message.exposure
        groups.setdefault(name, []).append(message)
    return list(groups.values())


def _print_exposure(group: list[QueuedMessage]) -> None:
    """Print an exposure, each label and reason once, time and ID of the newest message."""
    last = group[-1]
    sent = datetime.fromtimestamp(last.sent, UTC).strftime("%Y-%m-%d %H:%M")
    print(printable(last.exposure))
    for label, reason in dict.fromkeys((one.label, one.reason) for one in group):
        print(f"  {printable(label)}{': ' if reason else ''}{printable(reason)}")
    several = f"{len(group):,} messages, last " if len(group) > 1 else ""
    print(f"  {several}sent {sent} UTC, id {last.identifier}")


def _print_sample(chosen: list[QueuedMessage]) -> None:
    """Print ten exposures, oldest first; if there are more, also count messages by label."""
    groups = _by_exposure(chosen)
    for group in groups[:_SHOWN]:
        _print_exposure(group)
    if len(groups) > _SHOWN:
        left = plural(len(groups) - _SHOWN, "more exposure")
        print(f"... and {left} (--dry-run shows all). All messages by error:")
        for label, number in Counter(message.label for message in chosen).most_common():
            print(f"  {number:,} {printable(label)}")


def _report(moved: Moved, done: str, queue: _Source, to: str = "") -> None:
    """Print the result of redriving or discarding; exit with 1 if AWS refused messages."""
    name = queue.name
    if not moved.labels and (hidden := _hidden(messages.depth(queue.sqs, queue.url))):
        sys.exit(f"{name}: {hidden}, then run the same command again")
    left = moved.labels.total() - moved.done
    rest = f"; {left:,} left in {name}" if left else ""
    print(f"{plural(moved.done, 'message')} {done} from {name}{to}{rest}")
    if moved.untried:
        print(f"{plural(moved.untried, 'message')} stayed there without a request to send again")
    _print_hint(moved.done + moved.untried + len(moved.refused), moved.labels)
    if moved.refused:
        for reason in moved.refused[:_SHOWN]:
            print(printable(reason), file=sys.stderr)
        sys.exit(
            f"{name}: {plural(len(moved.refused), 'message')} not {done} or not deleted, see "
            "above; run the same command again"
        )
    _check_all_were_read(left, queue)


def _print_hint(chosen: int, labels: Counter[str]) -> None:
    """Print the five most frequent of `labels` if `chosen`, a number of messages, is 0."""
    if not chosen and labels:
        errors = ", ".join(f"{n:,} {printable(label)}" for label, n in labels.most_common(5))
        print(f"No message matches the options; the queue holds: {errors}")
