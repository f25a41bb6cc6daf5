"""The command ``dq-init status``: queues, failures, products, mirror and alarms of a stack."""

import json
import re
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import boto3
import click
from botocore.config import Config
from rich.table import Table

from handler.ledger import Entry
from handler.s3.objects import S3Location
from infra import options
from infra.aws import Stack, find_stack, ledger_in, list_entries, read_entry
from infra.cli import confirm, plural, printable
from infra.console import Console
from infra.mirror.bucket import Mirror
from infra.operate.messages import depth, read_messages

QUEUES = ("UploadedQueue", "BackfillQueue", "UnfinishedQueue", "FailedQueue", "UndeliveredQueue")
_THREADS = 16
_EVENTBRIDGE = "EventBridgeConfiguration"


@dataclass(frozen=True)
class Status:
    """The state of a stack, as ``--json`` prints it; products only of the entries read."""

    queues: dict[str, dict[str, int]]  # message counts, by output of the stack
    failures: dict[str, int]  # number of exposures in FailedQueue, by error class or ``unreadable``
    products: list[tuple[str, str, int]]  # mask, context, number of products
    entries_read: int  # number of ledger entries that were read and are not damaged
    unreadable: list[str]  # URIs of products whose ledger entries are damaged
    # Location, contexts, and time of the last write; None before the first sync.
    mirror: dict[str, str] | None
    alarms: list[str]  # names of those in state ALARM
    alarms_defined: int  # number of all alarms
    is_listening: bool  # whether RawBucket sends its events to EventBridge


@click.command()
@options.stack(required=True)
@click.option("--entries", type=click.IntRange(0), default=1000, help="Ledger entries to read.")
@options.as_json
@click.option("--enable-events", is_flag=True, help="Make RawBucket send events to EventBridge.")
@options.yes
def command(stack: str, entries: int, as_json: bool, enable_events: bool, yes: bool) -> None:
    """Show the state of a stack.

    The exit code is 1 if a ledger entry that was read is damaged. --enable-events only configures
    RawBucket, and shows nothing else; --yes applies to it.
    """
    found = find_stack(stack)
    if enable_events:
        _enable_events(found.output("RawBucket"), is_confirmed=yes)
        return
    status = _read(found, entries)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
    else:
        _show(found, status)
    if status.unreadable:
        first, *others = status.unreadable
        more = f" (and those of {plural(len(others), 'other product')})" if others else ""
        sys.exit(
            f"{printable(first)}: its ledger entry{more} is damaged, expected the JSON that the "
            f"function writes; run dq-init reprocess audit --rebuild --stack {stack}, or delete "
            "the entry if its product does not exist"
        )


def sends_events(s3: Any, bucket: str) -> bool:
    """Return whether a bucket sends its events to EventBridge."""
    return _EVENTBRIDGE in s3.get_bucket_notification_configuration(Bucket=bucket)


def _enable_events(bucket: str, *, is_confirmed: bool) -> None:
    """Configure a bucket to send its events to EventBridge; ask first unless `is_confirmed`."""
    s3 = boto3.client("s3")
    if sends_events(s3, bucket):
        print(f"s3://{bucket} sends events to EventBridge already")
        return
    if not is_confirmed and not confirm(f"Configure s3://{bucket} to send events to EventBridge?"):
        sys.exit("nothing was changed")
    configuration: Any = s3.get_bucket_notification_configuration(Bucket=bucket)
    del configuration["ResponseMetadata"]
    # S3 replaces the whole configuration, and validates all destinations, also deleted ones:
    # docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketNotificationConfiguration.html
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration=configuration | {_EVENTBRIDGE: {}},
        SkipDestinationValidation=True,
    )
    print(f"s3://{bucket} sends events to EventBridge now")


def _read(stack: Stack, most: int) -> Status:
    """Return the state of a stack, with the products of at most `most` ledger entries."""
    pool = Config(max_pool_connections=_THREADS)
    sqs: Any = boto3.client("sqs", config=pool)
    s3: Any = boto3.client("s3", config=pool)
    queues = {name: asdict(depth(sqs, stack.output(name))) for name in QUEUES}
    by_error: dict[str, set[str]] = defaultdict(set)
    for message in read_messages(sqs, stack.output("FailedQueue")).chosen:
        # An exposure may have several messages. An unreadable event names no exposure.
        by_error[message.error or "unreadable"].add(
            message.exposure if message.can_be_tried else message.identifier
        )
    entries, unreadable = _entries(s3, stack, most)
    products = Counter(
        (reference.mask or "N/A", reference.context)
        for entry in entries
        if entry.result and (reference := entry.result.findings.reference)
    )
    mirror = Mirror(s3, stack.mirror)
    config = mirror.config()
    alarms = _alarms(stack)
    return Status(
        queues=queues,
        failures={error: len(exposures) for error, exposures in by_error.items()},
        products=[(mask, context, n) for (mask, context), n in products.most_common()],
        entries_read=len(entries),
        unreadable=unreadable,
        mirror={
            "place": str(mirror.location),
            "operational": config.operational_context,
            "held": "by hand" if config.held_by_hand else "",
            "used": stack.parameters.get("CrdsContext", "latest"),
            "written": mirror.written(),
        }
        if config
        else None,
        alarms=sorted(name for name, state in alarms.items() if state == "ALARM"),
        alarms_defined=len(alarms),
        is_listening=sends_events(s3, stack.output("RawBucket")),
    )


def _entries(s3: Any, stack: Stack, most: int) -> tuple[list[Entry], list[str]]:
    """Read at most `most` entries; return the good ones, and product URIs of damaged ones."""
    bucket = stack.output("ProductBucket")
    ledger = ledger_in(bucket)
    listed = islice(list_entries(s3, ledger), most)
    products = [S3Location(bucket, key) for key, _ in listed]
    with ThreadPoolExecutor(_THREADS) as threads:
        entries = list(threads.map(lambda product: read_entry(s3, ledger, product), products))
    # `Entry.from_json` keeps only the location of a damaged entry.
    damaged = [
        str(product)
        for product, entry in zip(products, entries, strict=True)
        if entry.stored and entry.result is None and entry.failure is None
    ]
    return [entry for entry in entries if entry.result or entry.failure], damaged


def _alarms(stack: Stack) -> dict[str, str]:
    """Return the state of each alarm of a stack, by name."""
    # CloudFormation names them stack-LogicalId-suffix. Alarms of a stack named stack-x begin alike,
    # and have one part more.
    own = re.compile(rf"{re.escape(stack.name)}-[A-Za-z0-9]+-[A-Za-z0-9]+")
    pages = boto3.client("cloudwatch").get_paginator("describe_alarms")
    return {
        alarm["AlarmName"]: alarm["StateValue"]
        for page in pages.paginate(AlarmNamePrefix=f"{stack.name}-")
        for alarm in page["MetricAlarms"]
        if own.fullmatch(alarm["AlarmName"])
    }


def _show(stack: Stack, status: Status) -> None:
    """Print the state of a stack as tables and lines."""
    console = Console()
    title = f"Messages in the queues of {stack.name} (approximate counts of SQS)"
    queues = Table("Queue", "Waiting", "In flight", "Delayed", title=title, header_style="bold")
    for name, counts in status.queues.items():
        queues.add_row(name, *map(str, counts.values()))
    console.print(queues)
    for error, number in status.failures.items():
        console.print(f"{plural(number, 'exposure')} failed: {error}")
    title = f"Products in {status.entries_read:,} ledger entries"
    products = Table(title=title, header_style="bold")
    for heading in ("Mask", "Context", "Products"):
        products.add_column(heading, overflow="fold")
    for mask, context, number in status.products:
        products.add_row(mask.removeprefix("crds://"), context, str(number))
    console.print(products)
    if mirror := status.mirror:
        console.print(
            f"Mirror {mirror['place']}: operational context {mirror['operational']}"
            f"{' (held by hand)' if mirror['held'] else ''}, last written {mirror['written']}; "
            f"the function uses {mirror['used']}",
            soft_wrap=True,
        )
    else:
        console.print(
            f"Mirror {stack.mirror}: has no configuration, so that exposures fail; run dq-init "
            f"mirror sync {stack.mirror}",
            style="bold red",
            soft_wrap=True,
        )
    if not status.is_listening:
        console.print(
            f"s3://{stack.output('RawBucket')}: sends no events to EventBridge, so uploads are not "
            f"processed; run dq-init status --stack {stack.name} --enable-events",
            style="bold red",
            soft_wrap=True,
        )
    names = ", ".join(status.alarms) or "none"
    console.print(f"Alarms: {names} of {status.alarms_defined} in ALARM", soft_wrap=True)
