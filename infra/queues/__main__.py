"""What an operator does with exposures that failed: read why, try again, or discard.

``python -m infra queues show --stack NAME`` prints the queue of failures, and leaves it as it is.
``python -m infra queues redrive --stack NAME`` moves it to the queue of exposures that wait.
``python -m infra queues discard --stack NAME`` deletes it.

``--queue`` names another of the stack's queues (UploadedQueue, UnfinishedQueue, FailedQueue,
UndeliveredQueue) or the address of any queue; ``--error``, ``--key``, ``--older-than`` and ``--id``
choose some of the messages, and ``--dry-run`` only says which.
"""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime

import boto3

from infra.queues.messages import (
    Chosen,
    Depth,
    QueuedMessage,
    depth,
    discard,
    messages,
    redrive,
)
from infra.stacks import Stack, find_stack
from infra.terminal import Mistake, is_agreed, parser_of

__all__ = ["main"]


def main(words: list[str]) -> None:
    """Run one of the commands."""
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.stack is None and not arguments.queue.startswith("http"):
        parser.error("--stack NAME says where the queues are; or give --queue (and --to) addresses")
    stack = find_stack(arguments.stack) if arguments.stack else None
    sqs, queue = boto3.client("sqs"), _address(arguments.queue, stack)
    chosen = Chosen(arguments.error, arguments.key, arguments.older_than, arguments.id)
    if arguments.command == "show" or arguments.dry_run:
        before = depth(sqs, queue)
        show(list(messages(sqs, queue, chosen)), before, as_json=arguments.json)
        return
    if arguments.command == "redrive":
        moved = redrive(sqs, queue, _address(arguments.to, stack), chosen)
        print(f"{moved} messages moved{_left(depth(sqs, queue))}")
        return
    if not arguments.yes and not is_agreed(
        f"Delete {sum(1 for _ in messages(sqs, queue, chosen))} messages for ever?"
    ):
        sys.exit("nothing was discarded")
    print(f"{discard(sqs, queue, chosen)} messages discarded{_left(depth(sqs, queue))}")


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("queues", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "show": "print what lies in a queue",
        "redrive": "have it tried again",
        "discard": "delete it",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--stack", help="name of the deployed stack")
        command.add_argument("--queue", default="FailedQueue", help="output's name, or address")
        command.add_argument("--to", default="UploadedQueue", help="the same, for redrive")
        command.add_argument("--error", help="only failures of this class, such as InputRejected")
        command.add_argument(
            "--key", help="only exposures whose address ends so; * and ? stand for others"
        )
        command.add_argument(
            "--older-than", type=float, metavar="SECONDS", help="only older messages"
        )
        command.add_argument("--id", help="only the message of this identifier")
        command.add_argument("--dry-run", action="store_true", help="only say which are meant")
        command.add_argument("--json", action="store_true", help="for machines")
        command.add_argument("--yes", action="store_true", help="do not ask before discarding")
    return parser


def _address(name: str, stack: Stack | None) -> str:
    """The address of a queue that is named as the stack's output is, or by its address."""
    if name.startswith("http"):
        return name
    if stack is None:
        raise Mistake(f"{name}: is no address of a queue, and no --stack says where it is")
    return stack.output(name, "Queue")


def _left(left: Depth) -> str:
    return f"; {left.waiting} wait there now, {left.in_flight} are being worked on"


def show(queued: list[QueuedMessage], before: Depth, *, as_json: bool) -> None:
    """Print what the messages say: three lines for each, for reasons are long."""
    if as_json:
        print(json.dumps([asdict(message) for message in queued], indent=2))
        return
    for message in queued:
        sent = datetime.fromtimestamp(message.sent, UTC).strftime("%Y-%m-%d %H:%M")
        print(message.exposure)
        print(f"  {message.error or 'waits'}{': ' * bool(message.reason)}{message.reason}")
        print(f"  sent {sent} UTC, id {message.identifier}")
    print(f"{len(queued)} messages; {before.in_flight} more are being worked on")


if __name__ == "__main__":
    main(sys.argv[1:])
