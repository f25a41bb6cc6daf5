"""Follow a job to its end, by what the ledger and the products show.

the ledger or the product shows                          the request is
a result, or a product, of the request's cause           complete
another product, written since the job began             complete
a failure of the request's cause                         failed
a product that the function would leave as it is         skipped
anything else, once the queues are empty                 missing
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from core.errors import InputRejected
from handler.event import Status
from handler.events import ExposureRequest, OnExisting
from handler.ledger import Entry
from handler.provenance import Provenance, shortened
from handler.s3.errors import failures_of, is_missing
from handler.s3.objects import S3Location, version_of
from infra.aws import listed_entries, read_entry
from infra.operate.messages import depth

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

__all__ = ["Outcome", "Outcomes", "Progress", "Queues", "Watch"]

_READING = 16
_CHECK, _QUIET = 2, 12
"""Looks at empty queues, one after another, until products are checked, and until what has no
result is missing: SQS counts approximately, and may lag by a minute."""

Chooses = Callable[[Entry, str | None], tuple[str, str] | None]


@dataclass(frozen=True)
class Queues:
    """The queues that a job's messages pass: the client, and the queue URLs."""

    sqs: "SQSClient"
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """Messages in the queues of a job, and requests by how far they have come."""

    waiting: int
    in_work: int
    complete: int
    failed: int
    skipped: int
    left: int
    is_quiet: bool = False


@dataclass(frozen=True)
class Outcome:
    """How one request ended: its status, and why it failed."""

    status: Status
    error: str = ""
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """Whether no attempt follows."""
        return self.status is not Status.FAILED or self.error == InputRejected.__name__


@dataclass(frozen=True)
class Outcomes:
    """How a job ended.

    Attributes
    ----------
    complete, skipped, failed : int
        Requests, by how they ended.
    missing : tuple of str
        Products whose request has no result.
    errors : mapping of str to int
        Failures, by class.
    reasons : mapping of str to str
        Reasons of failures, by product.
    """

    complete: int
    skipped: int
    failed: int
    missing: tuple[str, ...]
    errors: Mapping[str, int]
    reasons: Mapping[str, str]


@dataclass
class Watch:
    """Follows a job; remembers what it has read of the ledger.

    Attributes
    ----------
    s3 : boto3 S3 client
        The client.
    ledger : `~handler.s3.objects.S3Location`
        Where results are kept.
    requests : mapping of `S3Location` to `ExposureRequest`
        The requests, by product.
    began : `datetime.datetime`
        When the job began, by S3's clock.
    queues : `Queues`
        What its messages pass.
    chooses : callable
        Returns name and SHA-1 of the mask that a context chooses for the exposure of a ledger
        entry, None if that cannot be evaluated.
    """

    s3: Any
    ledger: S3Location
    requests: Mapping[S3Location, ExposureRequest]
    began: datetime
    queues: Queues
    chooses: Chooses
    _tags: dict[S3Location, str] = field(default_factory=dict, repr=False)
    _ended: dict[S3Location, Outcome] = field(default_factory=dict, repr=False)

    def follow(
        self, pause: float = 5.0, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[Progress]:
        """Yield progress until every request ended, or the queues stay empty."""
        quiet = 0
        while True:
            progress = self.look(is_quiet=quiet >= _CHECK)
            yield progress
            if progress.left == 0:
                return
            quiet = 0 if progress.waiting + progress.in_work else quiet + 1
            if quiet == _QUIET:
                self._read_changed()
                self._check_products()
                return
            sleep(pause)

    def look(self, *, is_quiet: bool = False) -> Progress:
        """Return how far it has come; check products, too, if the queues seem to be empty."""
        counts = [depth(self.queues.sqs, address) for address in self.queues.addresses]
        self._read_changed()
        if is_quiet:
            self._check_products()
        by_status = Counter(outcome.status for outcome in self._ended.values())
        final = sum(outcome.is_final for outcome in self._ended.values())
        return Progress(
            sum(count.waiting + count.delayed for count in counts),
            sum(count.in_flight for count in counts),
            by_status[Status.COMPLETE],
            by_status[Status.FAILED],
            by_status[Status.SKIPPED],
            len(self.requests) - final,
            is_quiet,
        )

    def outcomes(self) -> Outcomes:
        """Return how every request ended, once the queues are empty."""
        by_status = Counter(outcome.status for outcome in self._ended.values())
        failed = {p: o for p, o in self._ended.items() if o.status is Status.FAILED}
        return Outcomes(
            by_status[Status.COMPLETE],
            by_status[Status.SKIPPED],
            len(failed),
            tuple(sorted(str(product) for product in self.requests.keys() - self._ended.keys())),
            dict(Counter(outcome.error for outcome in failed.values())),
            {str(product): outcome.reason for product, outcome in sorted(failed.items(), key=str)},
        )

    def _read_changed(self) -> None:
        """Read the entries that were written since the last look."""
        written = list(self._written())
        with ThreadPoolExecutor(_READING) as reading:
            entries = reading.map(lambda w: read_entry(self.s3, self.ledger, w[0]), written)
            for (product, tag), entry in zip(written, entries, strict=True):
                self._tags[product] = tag
                outcome = _told_by(entry, self.requests[product])
                if outcome is not None:
                    self._ended[product] = outcome

    def _written(self) -> Iterator[tuple[S3Location, str]]:
        """Products whose entry changed since the last look, and the entry's ETag."""
        if not self.requests:
            return
        bucket = next(iter(self.requests)).bucket
        common = os.path.commonprefix([p.key for p in self.requests])  # noqa: RUF071  # not paths
        earliest = self.began - timedelta(seconds=1)
        for key, item in listed_entries(self.s3, self.ledger, common):
            product = S3Location(bucket, key)
            is_new = item["LastModified"] >= earliest and self._tags.get(product) != item["ETag"]
            if product in self.requests and is_new:
                yield product, item["ETag"]

    def _check_products(self) -> None:
        """Look at the products of requests of which the ledger shows nothing."""
        left = [product for product in self.requests if product not in self._ended]
        with ThreadPoolExecutor(_READING) as reading:
            for product, outcome in zip(left, reading.map(self._shown_by, left), strict=True):
                if outcome is not None:
                    self._ended[product] = outcome

    def _shown_by(self, product: S3Location) -> Outcome | None:
        """Return what the product shows of its request."""
        request, found = self.requests[product], _head(self.s3, product)
        made = Provenance.from_metadata(found["Metadata"]) if found else None
        if found is None or made is None:
            return None
        is_of_input = made.is_of_input(request.source.bucket, request.source.key)
        is_own = bool(made.cause) and made.cause == shortened(request.cause or "")
        if is_of_input and (is_own or found["LastModified"] > self.began):
            return Outcome(Status.COMPLETE)
        is_kept = request.on_existing is OnExisting.SKIP and is_of_input
        return Outcome(Status.SKIPPED) if is_kept and self._is_right(product, made) else None

    def _is_right(self, product: S3Location, made: Provenance) -> bool:
        """Whether the function would leave the product as it is."""
        request = self.requests[product]
        source = _head(self.s3, request.source)
        if source is None:
            return False
        state = (source["ETag"].strip('"'), version_of(source) or "")
        if state != (made.input_etag, made.input_version):
            return False
        if made.pinned:
            return True
        entry = read_entry(self.s3, self.ledger, product)
        return self.chooses(entry, request.context) == (made.mask, made.mask_sha1)


def _told_by(entry: Entry, request: ExposureRequest) -> Outcome | None:
    """Return what an entry shows of a request."""
    failure, result = entry.failure, entry.result
    if failure is not None and failure.cause == request.cause:
        return Outcome(Status.FAILED, failure.error, failure.reason)
    if result is not None and result.cause == request.cause:
        return Outcome(result.status)
    return None


def _head(s3: Any, location: S3Location) -> Any:
    with failures_of(f"{location}: looking it up"):
        try:
            return s3.head_object(**location.as_kwargs)
        except ClientError as exc:
            if is_missing(exc):
                return None
            raise
