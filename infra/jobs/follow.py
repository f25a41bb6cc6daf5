"""The results of a job's requests, read from the ledger and the products.

the ledger or the product shows                          the request is
a result, or a product, of the request's cause           complete
another product, written since the job began             complete
a failure of the request's cause                         failed
another failure since the job began, once it ended       failed
a product that the function would keep                   skipped
anything else, once the queues are empty                 missing

`handler.decision.action_for` decides what the function keeps; `Watch` predicts its decision.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from core import __version__
from core.errors import InputRejected
from handler.decision import Provenance, shortened, state_of
from handler.event import Status
from handler.events import ExposureRequest, OnExisting
from handler.ledger import Entry, Failure
from handler.s3.objects import ObjectStore, S3Location
from infra.aws import list_entries, read_entry
from infra.operate.messages import depth

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

_THREADS = 16
# SQS counts approximately, and its counts may lag by a minute:
# docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
_FEW = 100  # requests of a job whose entries are read without listing the ledger
_CHECK = 2  # polls in a row of empty queues after which products are read
_QUIET = 60  # seconds of empty queues after which a request without a result is missing
# Seconds after which products are read although the queues, which other jobs share, are not empty.
# The time doubles after each such read: it makes a request for every product that is left.
_LOOK = 60.0


@dataclass(frozen=True)
class JobProgress:
    """Numbers of messages in the queues, and of a job's requests by their results so far."""

    waiting: int  # messages that wait or are delayed, also those of other jobs
    # Messages in flight (received by the function, not deleted), also those of other jobs.
    in_work: int
    complete: int
    failed: int
    skipped: int
    left: int  # requests without a final result (`RequestResult.is_final`)
    is_quiet: bool = False  # the queues were empty at several polls in a row


@dataclass(frozen=True)
class RequestResult:
    """The result of a request, or the failure of an attempt, with error class and reason."""

    status: Status
    error: str = ""
    reason: str = ""
    is_published: bool = False  # of a failure: no attempt follows

    @classmethod
    def of_failure(cls, failure: Failure) -> "RequestResult":
        """Return the result that a ledger entry's failure is."""
        return cls(Status.FAILED, failure.error, failure.reason, failure.published)

    @property
    def is_done(self) -> bool:
        """Whether the request was complete or skipped."""
        return self.status is not Status.FAILED

    @property
    def is_final(self) -> bool:
        """Whether the function does not retry any more."""
        return self.is_done or self.is_published or self.error == InputRejected.__name__


@dataclass(frozen=True)
class JobResult:
    """The numbers of a job's requests by result, and the URIs of products without a result."""

    complete: int = 0
    skipped: int = 0
    failed: int = 0
    missing: tuple[str, ...] = ()  # URIs of products
    errors: Mapping[str, int] = field(default_factory=dict)  # number of failures by error class
    reasons: Mapping[str, str] = field(default_factory=dict)  # of failures, by URI of the product


@dataclass
class Watch:
    """The requests of a job by product, and those of their results that were read so far."""

    s3: Any
    ledger: S3Location
    requests: Mapping[S3Location, ExposureRequest]
    began: datetime  # when the job began, by S3's clock
    sqs: "SQSClient"
    queue_urls: tuple[str, ...]
    # Returns R_MASK and SHA-1 of the mask that a context selects for the exposure of an entry.
    select_mask: Callable[[Entry, str | None], tuple[str, str] | None]
    encoding: str  # of the science pixels in the function's products
    _etags: dict[S3Location, str] = field(default_factory=dict, repr=False)
    _results: dict[S3Location, RequestResult] = field(default_factory=dict, repr=False)
    # Failures of other requests for the same products since the job began.
    _others: dict[S3Location, RequestResult] = field(default_factory=dict, repr=False)

    def follow(self, pause: float) -> Iterator[JobProgress]:
        """Yield progress every `pause` seconds until all results are final (`is_final`)."""
        quiet, wait = 0, _LOOK
        busy = looked = time.monotonic()
        while True:
            now = time.monotonic()
            is_due, is_over = now - looked >= wait, quiet >= _CHECK and now - busy >= _QUIET
            progress = self.poll(is_quiet=quiet >= _CHECK, reads_products=is_due, is_over=is_over)
            yield progress
            now = time.monotonic()
            quiet += 1
            if progress.waiting + progress.in_work:
                quiet, busy = 0, now
            if progress.left == 0 or (is_over and quiet):
                return
            if is_due:
                looked, wait = now, 2 * wait
            time.sleep(pause)

    def poll(
        self, *, is_quiet: bool = False, reads_products: bool = False, is_over: bool = False
    ) -> JobProgress:
        """Read new results from the ledger, and return progress.

        With `is_quiet` (the caller found the queues empty) or `reads_products`, results that the
        ledger lacks are inferred from products. `is_over` says that the queues have been empty for
        so long that no request is left; `_status_of` describes what both change.
        """
        depths = [depth(self.sqs, queue_url) for queue_url in self.queue_urls]
        self._read_entries()
        if is_quiet or reads_products:
            self._read_products(is_quiet=is_quiet, is_over=is_over)
        numbers = self._count()
        return JobProgress(
            waiting=sum(found.waiting + found.delayed for found in depths),
            in_work=sum(found.in_flight for found in depths),
            complete=numbers[Status.COMPLETE],
            failed=numbers[Status.FAILED],
            skipped=numbers[Status.SKIPPED],
            left=len(self.requests) - sum(result.is_final for result in self._results.values()),
            is_quiet=is_quiet,
        )

    def result(self) -> JobResult:
        """Return the numbers of results read so far, and the products that still lack one."""
        numbers = self._count()
        results = self._others | self._results
        failed = {p: r for p, r in results.items() if r.status is Status.FAILED}
        return JobResult(
            complete=numbers[Status.COMPLETE],
            skipped=numbers[Status.SKIPPED],
            failed=len(failed),
            missing=tuple(sorted(map(str, self.requests.keys() - results.keys()))),
            errors=dict(Counter(result.error for result in failed.values())),
            reasons={str(p): result.reason for p, result in sorted(failed.items(), key=str)},
        )

    def _count(self) -> Counter[Status]:
        return Counter(result.status for result in self._results.values())

    def _read_entries(self) -> None:
        """Add or replace results, from ledger entries written since the previous call."""
        changed = self._changed_entries() if len(self.requests) > _FEW else [*self.requests]
        earliest = f"{self.began - timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"
        with ThreadPoolExecutor(_THREADS) as threads:
            entries = threads.map(lambda p: read_entry(self.s3, self.ledger, p), changed)
            for product, entry in zip(changed, entries, strict=True):
                stored = entry.stored
                if stored is None or (stored.last_modified or "") < earliest:
                    continue
                if self._etags.get(product) == stored.etag:
                    continue
                self._etags[product] = stored.etag
                cause, failure = self.requests[product].cause, entry.failure
                known = self._results.get(product)
                self._others.pop(product, None)
                if failure is not None and failure.cause == cause:
                    self._results[product] = RequestResult.of_failure(failure)
                elif entry.result is not None and entry.result.cause == cause:
                    self._results[product] = RequestResult(entry.result.status)
                elif known and (known.is_done or (failure and known.is_final)):
                    continue  # another request has replaced the entry
                else:  # a later attempt has cleared its failure
                    self._results.pop(product, None)
                    if failure is not None:
                        self._others[product] = RequestResult.of_failure(failure)

    def _changed_entries(self) -> list[S3Location]:
        """List the products whose entries were written since they were read last."""
        bucket = next(iter(self.requests)).bucket
        prefix = os.path.commonprefix([p.key for p in self.requests])  # noqa: RUF071  # not paths
        earliest = self.began - timedelta(seconds=1)
        changed = []
        for key, item in list_entries(self.s3, self.ledger, prefix):
            product = S3Location(bucket, key)
            is_new = item["LastModified"] >= earliest and self._etags.get(product) != item["ETag"]
            if product in self.requests and is_new:
                changed.append(product)
        return changed

    def _read_products(self, *, is_quiet: bool, is_over: bool) -> None:
        """Infer results from the products, for requests that have none yet."""
        left = [product for product in self.requests if product not in self._results]
        with ThreadPoolExecutor(_THREADS) as threads:
            found = threads.map(
                lambda p: self._status_of(p, is_quiet=is_quiet, is_over=is_over), left
            )
            for product, status in zip(left, found, strict=True):
                if status is not None:
                    self._results[product] = RequestResult(status)

    def _status_of(self, product: S3Location, *, is_quiet: bool, is_over: bool) -> Status | None:
        """Infer a request's status from its product; None if the product does not decide it.

        Complete: the request wrote it or, with `is_quiet` (queues empty), any request since the job
        began. Skipped: the function would keep it; `is_over` ignores its software version, because
        the function may be of another release than this program.
        """
        store, request = ObjectStore(self.s3), self.requests[product]
        source, found = request.source, store.find(product)
        provenance = Provenance.from_metadata(found.metadata) if found else None
        if not found or not provenance or not provenance.is_of_input(source.bucket, source.key):
            return None
        is_own = bool(provenance.cause) and provenance.cause == shortened(request.cause or "")
        is_later = (found.last_modified or "") > f"{self.began:%Y-%m-%dT%H:%M:%SZ}"
        if is_own or (is_quiet and is_later):
            return Status.COMPLETE
        # An older product is skipped if the function would keep it: same input, same mask.
        current = store.find(source) if request.on_existing is OnExisting.SKIP else None
        if current is None or state_of(current) != provenance.input_state:
            return None
        if not provenance.pinned:
            is_ours = is_over or provenance.software_version == __version__
            if not is_ours or provenance.science_encoding != self.encoding:
                return None
            entry = read_entry(self.s3, self.ledger, product)
            selected = self.select_mask(entry, request.context)
            if selected != (provenance.mask, provenance.mask_sha1):
                return None
        return Status.SKIPPED
