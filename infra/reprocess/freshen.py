"""The Lambda function that rebuilds products which the operational context affects.

infra/mirror.yaml runs it after every "CRDS Context Changed" event, if its parameter Reprocess is
``select`` or ``submit``. It updates the catalogue, selects, publishes the selection and, with
``submit``, sends it to BackfillQueue. With ``submit`` it also runs every hour, to select again the
products that a container built with the previous context meanwhile, and those whose requests were
lost. Products whose exposures were rejected are left to an operator.
"""

import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import boto3

from core.errors import InputRejected, ReferenceUnavailable, TransientFailure
from handler.event import Bus
from handler.events import ExposureRequest
from handler.s3.objects import S3Location
from infra.aws import catalogue_in, job_in, ledger_in, read_entry
from infra.jobs.job import Job, JobFile, Request, join, request_key, submit
from infra.mirror.bucket import Mirror
from infra.mirror.changes import SOURCE
from infra.operate.messages import EMPTY, depth
from infra.reprocess.catalogue import Catalogue
from infra.reprocess.select import Effect, Selection, select

SELECTED = "Reprocessing Selected"
_MOST_WINDOWS = 200  # in the event; EventBridge accepts 256 KB
_READERS = 16
_REPEATS = 5
"""Number of times that the same products are selected again, though processed, before it fails."""
_CONTEXT_DELAY = timedelta(minutes=20)
"""Time for which containers may still build products with the previous context (3 + 15 min)."""
_REJECTED = InputRejected.__name__
_LOST = timedelta(hours=12)
"""Age of a job after which requests without a result are sent again."""

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)


@dataclass(frozen=True)
class Loop:
    """The mirror, products and queue that the reprocessing function uses in one `run`."""

    mirror: Mirror
    products: str  # bucket
    queue: str | None  # URL of BackfillQueue; None: only publish the selection
    bus: str = "default"  # name of the event bus
    topic: str = ""  # ARN of an SNS topic, or empty
    prefix: str = "dq_init/"  # of the products

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Loop":
        """Return the settings in `environment`, the variables that infra/mirror.yaml sets."""
        mirror = S3Location.parse_prefix(environment["CRDS_MIRROR"])
        submits = environment["REPROCESS"] == "submit"
        return cls(
            Mirror(boto3.client("s3"), mirror),
            environment["PRODUCT_BUCKET"],
            environment["BACKFILL_QUEUE_URL"] if submits else None,
            environment.get("EVENT_BUS") or "default",
            environment.get("TOPIC") or "",
            environment.get("OUTPUT_PREFIX") or "dq_init/",
        )

    def run(self, *, is_scheduled: bool = False) -> dict[str, Any]:
        """Update the catalogue, select for the operational context, submit, publish.

        Without `queue`, submit nothing. A scheduled run that selects nothing publishes nothing.
        Return the event's detail. `ReferenceUnavailable` if the same products were rebuilt five
        times and are still selected.
        """
        # The context in the event that started this run is not used: events may be late or forged.
        context = self.mirror.operational().operational_context
        with Catalogue.open(self.mirror.client, catalogue_in(self.products)) as catalogue:
            for _ in catalogue.update(ledger_in(self.products)):
                pass
            for entry, reason in catalogue.rejected.items():
                log.error("%s: %s; left out of the catalogue", entry, reason)
            selection = select(catalogue, self.mirror, context, by_pixels=True)
            for _ in selection.decide():
                pass
            affected = selection.count(relabel=False)
            # A request for a product of an earlier OutputPrefix would build another product.
            requests: list[Request] = list(selection.requests(self.prefix, relabel=False))
        if affected > len(requests):
            log.error("%d products outside %s not rebuilt", affected - len(requests), self.prefix)
        rejected = self._submit(context, requests, self.queue) if self.queue is not None else 0
        selected = len(requests) - rejected
        detail = _detail_of(selection, selected, submitted=self.queue is not None)
        detail["undecided"] += affected - selected
        if rejected:
            log.error("%d products not rebuilt: their requests were rejected", rejected)
        if selected or not is_scheduled:
            self._publish(detail)
        return detail

    def _submit(self, context: str, wanted: list[Request], queue: str) -> int:
        """Send `wanted`, except pending and rejected requests; count the rejected ones."""
        file = JobFile(self.mirror.client, job_in(self.products, "closed-loop"))
        last, now = file.read()
        if last is None:
            if not wanted:
                return 0
            last = Job(now, ())
        ends = self._ends(last, wanted)
        job = file.write(self._next_job(last, context, wanted, ends, now, queue))
        if job is None:
            raise TransientFailure(
                f"{file.location}: another run replaced this job; the next run selects again"
            )
        if job.repeats >= _REPEATS:
            raise ReferenceUnavailable(
                f"s3://{self.products}: {len(wanted)} products were rebuilt {_REPEATS} times and "
                f"are not of {context} yet, so no more requests are sent; find the cause in "
                "FailedQueue, or set CrdsContext of their stack to latest, then delete the list of "
                f"requests, {file.location}"
            )
        for _ in submit(file, job, boto3.client("sqs"), queue):
            pass
        return sum(end == _REJECTED for end in ends.values())

    def _next_job(
        self,
        last: Job,
        context: str,
        wanted: list[Request],
        ends: Mapping[str, str | None],
        now: datetime,
        queue: str,
    ) -> Job:
        """Return a job of `wanted`; unfinished, rejected or unsent ones of `last` keep their cause.

        An unfinished one (None in `ends`) is lost 12 h after `last` began, or after 20 min if
        `queue` (URL) is empty: it gets a new cause and is sent again.
        """
        is_late = now - last.began > _CONTEXT_DELAY
        waiting = {key for key, end in ends.items() if end is None}
        if waiting and depth(boto3.client("sqs"), queue) == EMPTY and is_late:
            # The ledger does not record a Skipped by a container that uses an earlier context.
            waiting = set()
        stays = {key for key, end in ends.items() if end == _REJECTED}
        is_same = len(ends) == len({request_key(request) for request in wanted})
        repeats = 0
        if len(ends) > len(stays) and is_same and not waiting and last.context == context:
            repeats = min(last.repeats + is_late, _REPEATS)
        if now - last.began > _LOST:
            waiting = set()
        kept = [
            (number, request)
            for number, request in enumerate(last.requests)
            if number >= last.sent or request_key(request) in waiting | stays
        ]
        sent = sum(number < last.sent for number, _ in kept)
        left = replace(last, requests=tuple(r for _, r in kept), sent=sent, result=None)
        began = last.began if waiting else now
        job = join(left, wanted, now)
        return replace(job, began=began, context=context, repeats=repeats, etag=last.etag)

    def _ends(self, last: Job, wanted: list[Request]) -> dict[str, str | None]:
        """Return how the requests of `last` that were sent and are still wanted ended.

        By `request_key`, as the ledger shows; None for one that has not ended.
        """
        keys = {request_key(request) for request in wanted}
        again = {request_key(r): r for r in last.requests[: last.sent] if request_key(r) in keys}

        def end_of(request: Request) -> str | None:
            ledger, cause = ledger_in(self.products), request.get("cause")
            entry = read_entry(self.mirror.client, ledger, self.product_of(request))
            if entry.failure is not None and entry.failure.cause == cause:
                return entry.failure.error if entry.failure.published else None  # SQS retries it
            return "" if entry.result is not None and entry.result.cause == cause else None

        with ThreadPoolExecutor(_READERS) as pool:
            return dict(zip(again, pool.map(end_of, again.values()), strict=True))

    def product_of(self, request: Request) -> S3Location:
        """Return the location of a direct request's product, or raise `InputRejected`."""
        return ExposureRequest.from_direct(request).target(self.products, self.prefix)

    def _publish(self, detail: dict[str, Any]) -> None:
        """Publish "Reprocessing Selected" and, if `topic` is set, a summary to that topic."""
        Bus(self.bus, boto3.client("events")).put(SOURCE, SELECTED, detail)
        if not self.topic:
            return
        text = (
            f"{detail['to']} changes {detail['selected']} of {detail['products']} products in "
            f"s3://{self.products}. "
            f"{'They are being rebuilt.' if detail['submitted'] else 'Nothing was started.'}"
        )
        subject = f"{SELECTED}: {detail['to']}"
        boto3.client("sns").publish(TopicArn=self.topic, Subject=subject, Message=text)


def _detail_of(selection: Selection, selected: int, *, submitted: bool) -> dict[str, Any]:
    """Return the detail of "Reprocessing Selected": totals, and at most 200 windows."""
    totals = selection.totals()
    windows = [
        {"instrument": instrument, "detector": detector, "window": window, **vars(total)}
        for (instrument, detector, window), total in totals.items()
        if total.by_change[Effect.PIXELS.value]
    ]
    return {
        "schemaVersion": "1.0",
        "to": selection.after.context,
        "products": sum(total.exposures for total in totals.values()),
        "selected": selected,
        "submitted": submitted,
        "windows": windows[:_MOST_WINDOWS],
        "undecided": sum(selection.problems().values()),
    }


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001
    """Handle a "CRDS Context Changed" event or a scheduled run; return what `run` returns."""
    is_scheduled = event.get("source") == "aws.events"
    detail = Loop.from_environment(os.environ).run(is_scheduled=is_scheduled)
    log.info("%s", json.dumps(detail))
    return detail
