"""Following a campaign: what is done, by what the ledger and the queues say.

The ledger's entry of a product is written when its result was announced, and when an attempt
failed. What has none since the campaign began, once the queues are empty, was as it should be
already.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from handler.event import Status
from handler.ledger import Entry, Ledger
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore
from infra.listing import listed_entries
from infra.queues.messages import depth

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

__all__ = ["Outcome", "Outcomes", "Progress", "Queues", "Watch"]

_READING = 16
_QUIET = 12
"""Looks at queues that are empty, one after another, before they are believed: SQS counts
approximately, and may lag by a minute. Who has seen a result of every request need not wait."""


@dataclass(frozen=True)
class Queues:
    """The queues that a campaign's messages go through: how to reach them, and their addresses."""

    sqs: "SQSClient"
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """How far a campaign has come.

    Attributes
    ----------
    waiting, in_work : int
        Messages of its queues.
    complete, failed : int
        Products that were made since it began, or whose last attempt failed.
    """

    waiting: int
    in_work: int
    complete: int
    failed: int


@dataclass(frozen=True)
class Outcome:
    """How one request ended: its status, and why it failed."""

    status: Status
    error: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Outcomes:
    """How a campaign ended.

    Attributes
    ----------
    complete, skipped, failed, unknown : int
        Requests, by how they ended; unknown, where the ledger has never heard of the product.
    errors : mapping of str to int
        Those that failed, by class.
    reasons : mapping of str to str
        Of those that failed, by product.
    """

    complete: int
    skipped: int
    failed: int
    unknown: int
    errors: Mapping[str, int]
    reasons: Mapping[str, str]


@dataclass
class Watch:
    """Looks how far a campaign has come; remembers what it has read of the ledger.

    Attributes
    ----------
    ledger : `~handler.ledger.Ledger`
        Where results are kept.
    products : frozenset of `~handler.s3.locations.S3Location`
        What is to be made.
    began : `datetime.datetime`
        When the campaign began, by S3's clock.
    queues : `Queues`
        What its messages go through.
    store : `~handler.s3.objects.ObjectStore`
        How to reach S3.
    """

    ledger: Ledger
    products: frozenset[S3Location]
    began: datetime
    queues: Queues
    store: ObjectStore
    _read: dict[S3Location, tuple[datetime, Outcome]] = field(default_factory=dict, repr=False)
    _heard_of: set[S3Location] = field(default_factory=set, repr=False)

    def follow(
        self, pause: float = 5.0, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[Progress]:
        """Yield how far it has come, until its queues are empty; look again after a pause."""
        quiet = 0
        while True:
            progress = self.look()
            yield progress
            if len(self._read) == len(self.products) and not progress.failed:
                return
            quiet = 0 if progress.waiting + progress.in_work else quiet + 1
            if quiet == _QUIET:
                self._read_changed()
                return
            sleep(pause)

    def look(self) -> Progress:
        """Say how far it has come."""
        counts = [depth(self.queues.sqs, address) for address in self.queues.addresses]
        self._read_changed()
        by_status = Counter(outcome.status for _, outcome in self._read.values())
        return Progress(
            sum(count.waiting + count.delayed for count in counts),
            sum(count.in_flight for count in counts),
            by_status[Status.COMPLETE],
            by_status[Status.FAILED],
        )

    def outcomes(self) -> Outcomes:
        """Say how every request ended, once the queues are empty."""
        ended = {product: outcome for product, (_, outcome) in self._read.items()}
        failed = {p: outcome for p, outcome in ended.items() if outcome.status is Status.FAILED}
        complete = sum(outcome.status is Status.COMPLETE for outcome in ended.values())
        unknown = len(self.products - self._heard_of - ended.keys())
        return Outcomes(
            complete,
            len(self.products) - complete - len(failed) - unknown,
            len(failed),
            unknown,
            dict(Counter(outcome.error for outcome in failed.values())),
            {str(product): outcome.reason for product, outcome in sorted(failed.items(), key=str)},
        )

    def _read_changed(self) -> None:
        """Read the entries that were written since the last look."""
        written = [
            (product, at)
            for product, at in self._written()
            if product not in self._read or self._read[product][0] != at
        ]
        with ThreadPoolExecutor(_READING) as reading:
            entries = reading.map(lambda w: self.ledger.read(w[0], self.store), written)
            for (product, at), entry in zip(written, entries, strict=True):
                if entry.stored is not None:  # else it could not be read: the next look does
                    self._read[product] = (at, _outcome(entry, self.began))

    def _written(self) -> Iterator[tuple[S3Location, datetime]]:
        """Products whose entry was written since the campaign began, and when."""
        if self.ledger.prefix is None or not self.products:
            return
        bucket = next(iter(self.products)).bucket
        common = os.path.commonprefix([p.key for p in self.products])  # noqa: RUF071  # no paths
        for key, item in listed_entries(self.store.client, self.ledger.prefix, common):
            product = S3Location(bucket, key)
            if product not in self.products:
                continue
            self._heard_of.add(product)
            if item["LastModified"] > self.began:
                yield product, item["LastModified"]


def _outcome(entry: Entry, began: datetime) -> Outcome:
    failure = entry.failure
    if failure is not None and _time(failure.at) > began:
        return Outcome(Status.FAILED, failure.error, failure.reason)
    return Outcome(Status.COMPLETE if entry.result else Status.SKIPPED)


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
