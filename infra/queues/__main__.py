"""What an operator does with exposures that failed: read why, and have them tried again.

``python -m infra.queues show QUEUE_URL`` prints what lies in a queue, and leaves it there.
``python -m infra.queues redrive QUEUE_URL --to QUEUE_URL`` moves its messages to another queue.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

__all__ = ["Waiting", "redrive", "waiting"]

_HELD = 60
"""Seconds that messages are kept from others while they are looked at."""


@dataclass(frozen=True)
class Waiting:
    """A message in a queue.

    Attributes
    ----------
    body, receipt : str
        Its content, and what deletes it.
    exposure, error, reason : str
        What it speaks of, as far as it can be read; a rejected exposure says why.
    """

    body: str
    receipt: str
    exposure: str
    error: str
    reason: str

    @classmethod
    def from_message(cls, message: Any) -> "Waiting":
        """Read what SQS answers."""
        detail = _detail(message["Body"])
        place = detail.get("input") or {"key": detail.get("object", {}).get("key", "?")}
        bucket = place.get("bucket") or detail.get("bucket", {}).get("name", "?")
        return cls(
            message["Body"],
            message["ReceiptHandle"],
            f"s3://{bucket}/{place['key']}",
            detail.get("error") or "",
            detail.get("reason") or "",
        )


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m infra.queues", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("show", "print what lies in a queue"), ("redrive", "move its messages")):
        command = commands.add_parser(name, help=text)
        command.add_argument("queue", help="address of the queue")
    command.add_argument("--to", required=True, help="address of the queue they are moved to")
    arguments = parser.parse_args()
    sqs = boto3.client("sqs")
    if arguments.command == "show":
        show(list(waiting(sqs, arguments.queue)))
        return
    moved = redrive(sqs, arguments.queue, arguments.to)
    print(f"{moved} messages moved")


def waiting(sqs: "SQSClient", queue: str) -> Iterator[Waiting]:
    """Look at the messages of a queue; they are held for a minute and then are there again.

    Parameters
    ----------
    sqs : boto3 SQS client
        How to reach it.
    queue : str
        Its address.
    """
    while found := sqs.receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=_HELD
    ).get("Messages"):
        yield from (Waiting.from_message(message) for message in found)


def redrive(sqs: "SQSClient", queue: str, target: str) -> int:
    """Move the messages of a queue to another, one by one: each is in one of them at least.

    Parameters
    ----------
    sqs : boto3 SQS client
        How to reach them.
    queue, target : str
        Their addresses.

    Returns
    -------
    int
        How many were moved.
    """
    moved = 0
    for message in waiting(sqs, queue):
        sqs.send_message(QueueUrl=target, MessageBody=message.body)
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message.receipt)
        moved += 1
    return moved


def show(messages: list[Waiting]) -> None:
    """Print a table."""
    table = Table(title=f"{len(messages)} messages", header_style="bold")
    for heading in ("Exposure", "Error", "Reason"):
        table.add_column(heading, overflow="fold")
    for message in messages:
        table.add_row(message.exposure, message.error, message.reason)
    Console().print(table)


def _detail(body: str) -> dict[str, Any]:
    """The event in a message; nothing, where it is none."""
    try:
        event = json.loads(body)
    except ValueError:
        return {}
    detail = event.get("detail") if isinstance(event, dict) else None
    return detail if isinstance(detail, dict) else {}


if __name__ == "__main__":
    main()
