"""Exposures that failed: read why, try them again, or discard them.

``python -m infra queues show --stack NAME`` prints the queue of failures and leaves it as it is.
``python -m infra queues redrive --stack NAME`` tries them again.
``python -m infra queues discard --stack NAME`` deletes them.

``--queue`` names another queue of the stack (FailedQueue, UndeliveredQueue), or any queue URL.
From UndeliveredQueue, events are published again as they are. Queues whose messages are processed
automatically (UploadedQueue, BackfillQueue, UnfinishedQueue) are counted, not read: reading a
message counts as a delivery. ``--error``, ``--key``, ``--prefix``, ``--pattern``, ``--older-than``
and ``--id`` choose messages; ``--dry-run`` shows which.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime

import boto3
from botocore.config import Config

from infra.aws import Stack, find_stack
from infra.cli import UserError, confirm, parser_of, plural, printable
from infra.operate.messages import (
    WORKERS,
    Chosen,
    Look,
    Moved,
    QueuedMessage,
    Targets,
    counts_deliveries,
    depth,
    discard,
    look,
    redrive,
)

__all__ = ["main"]

_SHOWN = 10
"""Messages that are shown before a question."""


def main(words: list[str]) -> None:
    """Run one of the commands."""
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.stack is None and not arguments.queue.startswith("http"):
        parser.error("--stack NAME says where the queues are; or give --queue URL")
    if arguments.older_than is not None and not arguments.older_than >= 0:
        raise UserError(f"--older-than {arguments.older_than:g}: expected 0 or more seconds")
    stack = find_stack(arguments.stack) if arguments.stack else None
    sqs = boto3.client("sqs", config=Config(max_pool_connections=WORKERS))
    queue = _url(arguments.queue, stack)
    identifiers = None if arguments.id is None else frozenset({arguments.id})
    chosen = Chosen(
        arguments.error,
        arguments.key,
        arguments.prefix,
        arguments.pattern,
        arguments.older_than,
        identifiers,
    )
    name = arguments.queue if not arguments.queue.startswith("http") else queue
    if arguments.command == "show" and counts_deliveries(sqs, queue):
        _show_counts(name, asdict(depth(sqs, queue)), as_json=arguments.json)
    elif arguments.command == "show" or arguments.dry_run:
        before = depth(sqs, queue)
        found = look(sqs, queue, chosen)
        show(name, found, before.waiting + before.in_flight, as_json=arguments.json)
    elif arguments.command == "redrive":
        bus = stack.parameters.get("EventBus", "default") if stack else None
        undelivered = stack is not None and queue == stack.outputs.get("UndeliveredQueue")
        to = _url(arguments.to, stack)
        targets = Targets(to, bus, boto3.client("events"), undelivered)
        _report(
            redrive(sqs, queue, targets, chosen),
            "sent again",
            name,
            "" if undelivered else f" to {arguments.to}",
        )
    else:
        if not arguments.yes:
            found = look(sqs, queue, chosen)
            _show_sample(found.chosen)
            if not found.chosen:
                _report(Moved(labels=found.labels), "discarded", name)
                return
            if not confirm(f"Delete {plural(len(found.chosen), 'message')} permanently?"):
                sys.exit("nothing was discarded")
            # Only what was shown: more may have come while the operator read it.
            chosen = Chosen(identifiers=frozenset(m.identifier for m in found.chosen))
        _report(discard(sqs, queue, chosen), "discarded", name)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("queues", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "show": "print the messages of a queue",
        "redrive": "try the exposures again",
        "discard": "delete messages",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--stack", help="name of the deployed stack")
        command.add_argument(
            "--queue", default="FailedQueue", help="output of the stack, or URL (FailedQueue)"
        )
        command.add_argument(
            "--error", type=_text, help="only failures of this class, such as InputRejected"
        )
        command.add_argument("--key", type=_text, help="only the exposure of this key or S3 URI")
        command.add_argument(
            "--prefix", type=_text, help="only exposures whose key or S3 URI begins with this"
        )
        command.add_argument(
            "--pattern",
            type=_text,
            help="only exposures whose key or S3 URI matches this glob pattern (*, ?, [...])",
        )
        command.add_argument(
            "--older-than", type=float, metavar="SECONDS", help="only older messages"
        )
        command.add_argument("--id", type=_text, help="only the message of this id")
        if name == "show":
            command.add_argument("--json", action="store_true", help="machine-readable output")
            continue
        command.add_argument("--dry-run", action="store_true", help="only show the messages")
        command.add_argument("--json", action="store_true", help="of --dry-run: machine-readable")
        if name == "redrive":
            command.add_argument(
                "--to", default="UploadedQueue", help="output of the stack, or URL (UploadedQueue)"
            )
        else:
            command.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty; leave it out to choose all")
    return text


def _url(name: str, stack: Stack | None) -> str:
    """Return the URL of a queue that an output of the stack names."""
    if name.startswith("http"):
        return name
    if stack is None:
        raise UserError(f"{name}: expected a queue URL, or --stack NAME and one of its queues")
    return stack.output(name, "Queue")


def show(name: str, found: Look, total: int, *, as_json: bool) -> None:
    """Print the chosen messages by exposure: three lines or more, because reasons are long."""
    if as_json:
        fields = [asdict(message) for message in found.chosen]
        print(
            json.dumps([{k: v for k, v in one.items() if k != "event"} for one in fields], indent=2)
        )
        return
    groups = _by_exposure(found.chosen)
    for group in groups:
        _show_exposure(group)
    if not found.labels:
        print(f"{name} is empty" if not total else f"{name}: all {total:,} are in flight")
    else:
        print(
            f"{plural(len(found.chosen), 'message')} of {plural(len(groups), 'exposure')}; "
            f"{name} holds {total:,} (approximate count of SQS)"
        )
        _hint(len(found.chosen), found.labels)


def _by_exposure(chosen: list[QueuedMessage]) -> list[list[QueuedMessage]]:
    """Group messages by exposure, oldest first; a message that names none is one of its own."""
    groups: dict[str, list[QueuedMessage]] = {}
    for message in sorted(chosen, key=lambda message: message.sent):
        name = message.identifier if message.key == "?" else message.exposure
        groups.setdefault(name, []).append(message)
    return list(groups.values())


def _show_exposure(group: list[QueuedMessage]) -> None:
    """Print an exposure, each of its failures once, and the time and id of the last message."""
    last = group[-1]
    sent = datetime.fromtimestamp(last.sent, UTC).strftime("%Y-%m-%d %H:%M")
    print(printable(last.exposure))
    for label, reason in dict.fromkeys((one.label, one.reason) for one in group):
        print(f"  {printable(label)}{': ' if reason else ''}{printable(reason)}")
    several = f"{len(group):,} messages, last " if len(group) > 1 else ""
    print(f"  {several}sent {sent} UTC, id {last.identifier}")


def _show_sample(chosen: list[QueuedMessage]) -> None:
    groups = _by_exposure(chosen)
    for group in groups[:_SHOWN]:
        _show_exposure(group)
    if len(groups) > _SHOWN:
        left = plural(len(groups) - _SHOWN, "more exposure")
        print(f"... and {left} (--dry-run shows all). Messages by error:")
        for label, number in Counter(message.label for message in chosen).most_common():
            print(f"  {number:,} {printable(label)}")


def _show_counts(name: str, counts: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(counts))
        return
    print(
        f"{name}: {counts['waiting']:,} waiting, {counts['in_flight']:,} in flight, "
        f"{counts['delayed']:,} delayed (approximate counts of SQS). Its messages are not shown: "
        "they are processed automatically, and reading one counts as a delivery."
    )


def _report(moved: Moved, done: str, name: str, to: str = "") -> None:
    """Print how it ended; exit with 1 if a message was refused."""
    left = moved.labels.total() - moved.done
    rest = f"; {left:,} left in {name}" if left else ""
    print(f"{plural(moved.done, 'message')} {done} from {name}{to}{rest}")
    if moved.untried:
        print(f"{plural(moved.untried, 'message')} stayed there: without a request to repeat")
    _hint(moved.done + moved.untried, moved.labels)
    if moved.refused:
        for text in moved.refused[:_SHOWN]:
            print(printable(text), file=sys.stderr)
        sys.exit(f"{plural(len(moved.refused), 'message')} not {done}; run the command again")


def _hint(chosen: int, labels: Counter[str]) -> None:
    """Say what there is if the choice fits nothing."""
    if not chosen and labels:
        there = ", ".join(f"{n:,} {printable(label)}" for label, n in labels.most_common(5))
        print(f"No message matches; there are: {there}")


if __name__ == "__main__":
    main(sys.argv[1:])
