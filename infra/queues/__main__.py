"""What an operator does with exposures that failed: read why, and have them tried again.

``python -m infra queues show QUEUE_URL`` prints what lies in a queue, and leaves it there.
``python -m infra queues redrive QUEUE_URL --to QUEUE_URL`` moves its messages to another queue.
"""

import argparse
import sys

import boto3
from rich.console import Console
from rich.table import Table

from infra.queues.messages import QueuedMessage, messages, redrive

__all__ = ["main"]


def main(words: list[str]) -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m infra queues", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("show", "print what lies in a queue"), ("redrive", "move its messages")):
        command = commands.add_parser(name, help=text)
        command.add_argument("queue", help="address of the queue")
    command.add_argument("--to", required=True, help="address of the queue they are moved to")
    arguments = parser.parse_args(words)
    sqs = boto3.client("sqs")
    if arguments.command == "show":
        show(list(messages(sqs, arguments.queue)))
        return
    moved = redrive(sqs, arguments.queue, arguments.to)
    print(f"{moved} messages moved")


def show(queued: list[QueuedMessage]) -> None:
    """Print a table."""
    table = Table(title=f"{len(queued)} messages", header_style="bold")
    for heading in ("Exposure", "Error", "Reason"):
        table.add_column(heading, overflow="fold")
    for message in queued:
        table.add_row(message.exposure, message.error, message.reason)
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
