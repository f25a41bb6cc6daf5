"""A stack at a glance: ``python -m infra status --stack NAME``.

What waits, is in work and has failed, by reason; products by mask and context; mirror and alarms.
"""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import boto3
from rich.table import Table

from handler.ledger import Entry, Ledger
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore
from infra.campaign.prefixes import ledger_in
from infra.console import Console
from infra.listen.notifications import is_told
from infra.listing import listed_entries
from infra.mirror.bucket import Mirror
from infra.queues.messages import depth, messages
from infra.stacks import Stack, find_stack
from infra.terminal import parser_of

__all__ = ["main"]

QUEUES = ("UploadedQueue", "BackfillQueue", "UnfinishedQueue", "FailedQueue", "UndeliveredQueue")
_READING = 16


@dataclass(frozen=True)
class Status:
    """What is known of a stack."""

    queues: dict[str, dict[str, int]]
    failures: dict[str, int]
    products: list[tuple[str, str, int]]
    entries_read: int
    mirror: dict[str, str]
    alarms: list[str]
    is_listening: bool


def main(words: list[str]) -> None:
    """Print it."""
    parser = parser_of("status", __doc__)
    parser.add_argument("--stack", required=True, help="name of the deployed stack")
    parser.add_argument(
        "--entries", type=int, default=1000, help="of the ledger, that are read at most (1000)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    arguments = parser.parse_args(words)
    stack = find_stack(arguments.stack)
    status = read(stack, arguments.entries)
    if arguments.json:
        print(json.dumps(asdict(status), indent=2))
    else:
        show(stack, status, Console())


def read(stack: Stack, most: int) -> Status:
    """Ask the services.

    Parameters
    ----------
    stack : `~infra.stacks.Stack`
        The stack.
    most : int
        How many entries of the ledger are read.
    """
    sqs, s3 = boto3.client("sqs"), boto3.client("s3")
    queues = {name: asdict(depth(sqs, stack.output(name))) for name in QUEUES}
    failures = Counter(
        message.error or "cannot be read" for message in messages(sqs, stack.output("FailedQueue"))
    )
    entries = list(islice(_entries(s3, stack), most))
    products = Counter(
        (reference.mask or "N/A", reference.context)
        for entry in entries
        if entry.result and (reference := entry.result.findings.reference)
    )
    ranked = [(mask, context, n) for (mask, context), n in products.most_common()]
    is_listening = is_told(s3, stack.output("RawBucket"))
    found = (_mirror(s3, stack), _alarms(stack), is_listening)
    return Status(queues, dict(failures), ranked, len(entries), *found)


def _entries(s3: Any, stack: Stack) -> Iterator[Entry]:
    bucket, store = stack.output("ProductBucket"), ObjectStore(s3)
    place = ledger_in(bucket)
    ledger = Ledger(place)
    products = (S3Location(bucket, key) for key, _ in listed_entries(s3, place))
    with ThreadPoolExecutor(_READING) as reading:
        while some := list(islice(products, _READING)):
            yield from reading.map(lambda product: ledger.read(product, store), some)


def _mirror(s3: Any, stack: Stack) -> dict[str, str]:
    mirror = Mirror(s3, stack.mirror)
    config = mirror.operational()
    return {
        "place": str(mirror.location),
        "operational": config.operational_context,
        "held": "by hand" if config.held_by_hand else "",
        "used": stack.parameters.get("CrdsContext", "latest"),
        "synced": mirror.written(),
    }


def _alarms(stack: Stack) -> list[str]:
    pages = boto3.client("cloudwatch").get_paginator("describe_alarms")
    found = [
        alarm
        for page in pages.paginate(AlarmNamePrefix=f"{stack.name}-")
        for alarm in page["MetricAlarms"]
    ]
    return sorted(alarm["AlarmName"] for alarm in found if alarm["StateValue"] == "ALARM")


def show(stack: Stack, status: Status, console: Console) -> None:
    """Print it for people."""
    queues = Table(title=f"Queues of {stack.name}", header_style="bold")
    for heading in ("Queue", "Waiting", "In work", "Later"):
        queues.add_column(heading)
    for name, counts in status.queues.items():
        queues.add_row(name, *(str(count) for count in counts.values()))
    console.print(queues)
    for error, number in status.failures.items():
        console.print(f"{number} failed: {error}")
    products = Table(title=f"Products of {status.entries_read} entries", header_style="bold")
    for heading in ("Mask", "Context", "Products"):
        products.add_column(heading, overflow="fold")
    for mask, context, number in status.products:
        products.add_row(mask.removeprefix("crds://"), context, str(number))
    console.print(products)
    mirror = status.mirror
    console.print(
        f"Mirror {mirror['place']}: operational {mirror['operational']}"
        f"{', held by hand' if mirror['held'] else ''}, synced "
        f"{mirror['synced']}; the function uses {mirror['used']}",
        soft_wrap=True,
    )
    if not status.is_listening:
        console.print(
            f"RawBucket tells nobody of uploads: python -m infra listen --stack {stack.name}",
            style="bold red",
        )
    console.print(f"Alarms: {', '.join(status.alarms) or 'none'}", soft_wrap=True)
