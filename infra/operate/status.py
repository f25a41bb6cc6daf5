"""A stack at a glance: ``python -m infra status --stack NAME``.

Messages that wait or are in flight; failed exposures by error; products by mask and context; the
mirror; alarms. ``--enable-events`` makes an existing RawBucket send its uploads to EventBridge,
which CloudFormation cannot do; its other notifications stay as they are.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

import boto3
from botocore.config import Config
from rich.table import Table

from handler.ledger import Entry, Ledger
from handler.s3.objects import ObjectStore, S3Location
from infra.aws import Stack, find_stack, ledger_in, listed_entries
from infra.cli import UserError, confirm, parser_of, plural, printable
from infra.console import Console
from infra.mirror.bucket import Mirror
from infra.operate.messages import depth, look

__all__ = [
    "enable_events",
    "main",
    "sends_events",
]

_EVENTBRIDGE = "EventBridgeConfiguration"


def sends_events(s3: Any, bucket: str) -> bool:
    """Say whether a bucket sends its events to EventBridge."""
    return _EVENTBRIDGE in s3.get_bucket_notification_configuration(Bucket=bucket)


def enable_events(s3: Any, bucket: str) -> None:
    """Make a bucket send its events to EventBridge, and keep its other notifications.

    S3 replaces the whole configuration, and would validate every destination in it, also one that
    was deleted long ago (PutBucketNotificationConfiguration in the API reference of S3).
    """
    found = s3.get_bucket_notification_configuration(Bucket=bucket)
    others = {name: value for name, value in found.items() if name != "ResponseMetadata"}
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={**others, _EVENTBRIDGE: {}},
        SkipDestinationValidation=True,
    )


QUEUES = ("UploadedQueue", "BackfillQueue", "UnfinishedQueue", "FailedQueue", "UndeliveredQueue")
_READING = 16


@dataclass(frozen=True)
class Status:
    """The state of a stack. `failures` counts exposures by error; `unreadable` names products."""

    queues: dict[str, dict[str, int]]
    failures: dict[str, int]
    products: list[tuple[str, str, int]]
    entries_read: int
    unreadable: list[str]
    mirror: dict[str, str]
    alarms: list[str]
    alarms_defined: int
    is_listening: bool


def main(words: list[str]) -> None:
    """Print it; exit with 1 if an entry of the ledger is damaged."""
    parser = parser_of("status", __doc__)
    parser.add_argument("--stack", required=True, help="name of the deployed stack")
    parser.add_argument(
        "--entries", type=int, default=1000, help="maximum ledger entries to read (1000)"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.add_argument(
        "--enable-events", action="store_true", help="make RawBucket send uploads to EventBridge"
    )
    parser.add_argument("--yes", action="store_true", help="of --enable-events: do not ask")
    arguments = parser.parse_args(words)
    if arguments.entries < 0:
        raise UserError(f"--entries {arguments.entries}: expected 0 or more")
    stack = find_stack(arguments.stack)
    if arguments.enable_events:
        _enable(stack.output("RawBucket"), is_confirmed=arguments.yes)
        return
    status = read(stack, arguments.entries)
    if arguments.json:
        print(json.dumps(asdict(status), indent=2))
    else:
        show(stack, status, Console())
    if status.unreadable:
        sys.exit(f"damaged ledger entries: {', '.join(map(printable, status.unreadable[:5]))}")


def _client(service: Literal["sqs", "s3"]) -> Any:
    return boto3.client(service, config=Config(max_pool_connections=_READING))


def _enable(bucket: str, *, is_confirmed: bool) -> None:
    s3 = boto3.client("s3")
    if sends_events(s3, bucket):
        print(f"s3://{bucket} sends events to EventBridge already")
        return
    if not is_confirmed and not confirm(f"Make s3://{bucket} send every event to EventBridge?"):
        sys.exit("nothing was changed")
    enable_events(s3, bucket)
    print(f"s3://{bucket} sends events to EventBridge now")


def read(stack: Stack, most: int) -> Status:
    """Ask the services.

    Parameters
    ----------
    stack : `~infra.aws.Stack`
        The stack.
    most : int
        How many entries of the ledger are read.
    """
    sqs, s3 = _client("sqs"), _client("s3")
    queues = {name: asdict(depth(sqs, stack.output(name))) for name in QUEUES}
    by_error: dict[str, set[str]] = defaultdict(set)
    for message in look(sqs, stack.output("FailedQueue")).chosen:
        # Of one exposure there may be several messages; of an unreadable event only its own.
        by_error[message.error or "unreadable"].add(
            message.exposure if message.can_be_tried else message.identifier
        )
    failures = {error: len(exposures) for error, exposures in by_error.items()}
    entries, unreadable = _entries(s3, stack, most)
    products = Counter(
        (reference.mask or "N/A", reference.context)
        for entry in entries
        if entry.result and (reference := entry.result.findings.reference)
    )
    ranked = [(mask, context, n) for (mask, context), n in products.most_common()]
    alarms = _alarms(stack)
    return Status(
        queues,
        failures,
        ranked,
        len(entries),
        unreadable,
        _mirror(s3, stack),
        sorted(name for name, state in alarms.items() if state == "ALARM"),
        len(alarms),
        sends_events(s3, stack.output("RawBucket")),
    )


def _entries(s3: Any, stack: Stack, most: int) -> tuple[list[Entry], list[str]]:
    """Return entries of the ledger, and the products whose entries are damaged.

    A ledger that may not be read is an error of AWS, which ends the command.
    """
    bucket, store = stack.output("ProductBucket"), ObjectStore(s3)
    place = ledger_in(bucket)
    ledger = Ledger(place)
    products = [S3Location(bucket, key) for key, _ in islice(listed_entries(s3, place), most)]

    with ThreadPoolExecutor(_READING) as reading:
        found = list(reading.map(lambda product: ledger.entry(product, store), products))
    # An entry with neither was damaged: `Entry.from_json` keeps only where it was stored.
    damaged = [
        str(product)
        for product, one in zip(products, found, strict=True)
        if one.stored and one.result is None and one.failure is None
    ]
    return [one for one in found if one.result or one.failure], damaged


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


def _alarms(stack: Stack) -> dict[str, str]:
    """Return the states of the stack's alarms, by name.

    CloudFormation names them stack-LogicalId-suffix; those of a stack named stack-x begin alike,
    and have a part more.
    """
    pages = boto3.client("cloudwatch").get_paginator("describe_alarms")
    own = re.compile(rf"{re.escape(stack.name)}-[A-Za-z0-9]+-[A-Za-z0-9]+")
    return {
        alarm["AlarmName"]: alarm["StateValue"]
        for page in pages.paginate(AlarmNamePrefix=f"{stack.name}-")
        for alarm in page["MetricAlarms"]
        if own.fullmatch(alarm["AlarmName"])
    }


def show(stack: Stack, status: Status, console: Console) -> None:
    """Print it for people."""
    queues = Table(
        title=f"Messages in the queues of {stack.name} (approximate counts of SQS)",
        header_style="bold",
    )
    for heading in ("Queue", "Waiting", "In flight", "Delayed"):
        queues.add_column(heading)
    for name, counts in status.queues.items():
        queues.add_row(name, *(str(count) for count in counts.values()))
    console.print(queues)
    for error, number in status.failures.items():
        console.print(f"{plural(number, 'exposure')} failed: {error}")
    products = Table(
        title=f"Products in {status.entries_read:,} ledger entries", header_style="bold"
    )
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
            "RawBucket does not send events to EventBridge; run python -m infra status --stack "
            f"{stack.name} --enable-events",
            style="bold red",
            soft_wrap=True,
        )
    ringing = ", ".join(status.alarms) or "none"
    console.print(f"Alarms: {ringing} of {status.alarms_defined} in ALARM", soft_wrap=True)
