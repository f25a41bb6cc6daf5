"""The closed loop: a Lambda function that rebuilds what the operational context affects.

`infra/mirror.yaml` runs it after every "CRDS Context Changed" event, and every hour, if its
parameter Reprocess is ``select`` or ``submit``. It updates the catalogue, selects, publishes the
selection, and, with ``submit``, sends it to the queue of backfills. The hourly run selects again
what a container processed that still believed the previous context, and what was lost.
"""

import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import boto3

from core.errors import ReferenceUnavailable, TransientFailure
from handler.events import ExposureRequest
from handler.ledger import Ledger
from handler.s3.objects import S3Location
from infra.aws import catalogue_in, job_in, ledger_in, put_event, read_entry
from infra.jobs.job import Job, JobChanged, JobFile, Request, join, request_key, submit
from infra.mirror.bucket import Mirror
from infra.mirror.changes import SOURCE
from infra.operate.messages import depth
from infra.reprocess.affected import Affected, Question, affected
from infra.reprocess.catalogue import Catalogue

__all__ = ["SELECTED", "Loop", "lambda_handler"]

SELECTED = "Reprocessing Selected"
_MOST = 200
"""Windows that are published one by one."""
_READING = 16
_REPEATS = 5
"""Selections of the same products in a row, all of them processed, before it is an error."""
_BELIEVED = timedelta(minutes=20)
"""A container may believe the previous context for three minutes, and work for fifteen."""
_LOST = timedelta(hours=12)

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)


@dataclass(frozen=True)
class Loop:
    """What the function works with.

    Attributes
    ----------
    mirror : `~infra.mirror.bucket.Mirror`
        The CRDS mirror.
    products : str
        The product bucket.
    queue : str or None
        Address of the queue that the selection is sent to; None to only tell of it.
    bus, topic : str
        EventBridge bus, and ARN of the SNS topic (empty for none).
    prefix : str
        Key prefix of the products.
    """

    mirror: Mirror
    products: str
    queue: str | None
    bus: str = "default"
    topic: str = ""
    prefix: str = "dq_init/"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Loop":
        """Read the environment that infra/mirror.yaml gives."""
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

    def run(self, *, is_tick: bool = False) -> dict[str, Any]:
        """Select for the operational context, submit, and publish; returns the event's detail.

        What an event says of the context is not used: it may be late, repeated or forged.

        Parameters
        ----------
        is_tick : bool
            Whether the schedule calls: then nothing is published if nothing is selected.

        Raises
        ------
        ReferenceUnavailable
            If the same products are selected again and again although they were processed.
        """
        context = self.mirror.operational().operational_context
        place = catalogue_in(self.products)
        with ExitStack() as stack:
            catalogue = stack.enter_context(Catalogue.open(self.mirror.client, place))
            for _ in catalogue.update(Ledger(ledger_in(self.products))):
                pass
            for entry, reason in catalogue.rejected.items():
                log.error("%s: %s; skipped", entry, reason)
            question = Question(context)
            answer = stack.enter_context(affected(catalogue, self.mirror, question))
            requests: list[Request] = list(answer.requests(question.wanted(relabel=False)))
        if self.queue is not None:
            self._submit(context, requests, self.queue)
        detail = detail_of(answer, len(requests), submitted=self.queue is not None)
        if requests or not is_tick:
            self._publish(detail)
        return detail

    def _submit(self, context: str, wanted: list[Request], queue: str) -> None:
        """Send what is selected, except requests of the last job that still wait."""
        file = JobFile(self.mirror.client, job_in(self.products, "closed-loop"))
        last, now = file.read()
        if last is None and not wanted:
            return
        job = self._next(last, context, wanted, now, queue)
        try:
            job = file.write(replace(job, etag=last.etag if last else None))
        except JobChanged as exc:  # another event is being answered
            raise TransientFailure(f"{file.location}: was replaced meanwhile; run again") from exc
        if job.repeats >= _REPEATS:
            raise ReferenceUnavailable(
                f"s3://{self.products}: {len(wanted)} products were selected for {context} "
                f"{_REPEATS} times after they were processed, expected products of that context; "
                f"set CrdsContext of their stack to latest, then delete {file.location}"
            )
        for _ in submit(file, job, boto3.client("sqs"), queue):
            pass

    def _next(
        self,
        last: Job | None,
        context: str,
        wanted: list[Request],
        now: datetime,
        queue: str,
    ) -> Job:
        """Return the job to send: requests that wait keep their cause and are not sent again."""
        if last is None:
            return replace(join(None, wanted, now), context=context)
        asked = {request_key(request) for request in wanted}
        open_ = [
            (number, request)
            for number, request in enumerate(last.requests)
            if request_key(request) in asked
        ]
        with ThreadPoolExecutor(_READING) as reading:
            ended = list(reading.map(lambda item: self._has_ended(item[1]), open_))
        is_late = now - last.began > _BELIEVED
        # The ledger does not record a skip, by a container that believes an earlier context.
        if open_ and _is_empty(queue) and is_late:
            ended = [True] * len(open_)
        waiting = tuple(item for item, has_ended in zip(open_, ended, strict=True) if not has_ended)
        if now - last.began > _LOST:  # a message that waits so long is lost: send it again
            waiting = ()
        kept = replace(
            last,
            requests=tuple(request for _, request in waiting),
            sent=sum(number < last.sent for number, _ in waiting),
            result=None,
        )
        job = join(kept, wanted, now)
        again = bool(wanted) and len(open_) == len(asked) and all(ended)
        repeats = last.repeats + is_late if again and last.context == context else 0
        return replace(job, context=context, repeats=min(repeats, _REPEATS))

    def _has_ended(self, request: Request) -> bool:
        """Whether the ledger shows a result of the request."""
        ledger = ledger_in(self.products)
        entry = read_entry(self.mirror.client, ledger, self.product_of(request))
        causes = [part.cause for part in (entry.result, entry.failure) if part is not None]
        return request.get("cause") in causes

    def product_of(self, request: Request) -> S3Location:
        """Return the product that a request names."""
        return ExposureRequest.from_direct(request).target(self.products, self.prefix)

    def _publish(self, detail: dict[str, Any]) -> None:
        put_event(boto3.client("events"), self.bus, SOURCE, SELECTED, detail)
        if not self.topic:
            return
        text = (
            f"{detail['to']} changes {detail['selected']} of {detail['products']} products in "
            f"s3://{self.products}. "
            f"{'They are being rebuilt.' if detail['submitted'] else 'Nothing was started.'}"
        )
        subject = f"{SELECTED}: {detail['to']}"
        boto3.client("sns").publish(TopicArn=self.topic, Subject=subject, Message=text)


def _is_empty(queue: str) -> bool:
    """Whether no message waits or is in work, as far as SQS knows."""
    count = depth(boto3.client("sqs"), queue)
    return count.waiting + count.in_flight + count.delayed == 0


def detail_of(answer: Affected, selected: int, *, submitted: bool) -> dict[str, Any]:
    """Return the event's detail: counts, by window where something changes."""
    tallies = answer.tallies()
    windows = [
        {"instrument": instrument, "detector": detector, "window": window, **tally.to_plain()}
        for (instrument, detector, window), tally in tallies.items()
        if tally.by_change.get("pixels")
    ]
    return {
        "schemaVersion": "1.0",
        "to": answer.to,
        "products": sum(tally.exposures for tally in tallies.values()),
        "selected": selected,
        "submitted": submitted,
        "windows": windows[:_MOST],
        "undecided": sum(answer.problems().values()),
    }


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001
    """Answer a "CRDS Context Changed" event, or the schedule."""
    is_tick = event.get("source") == "aws.events"
    detail = Loop.from_environment(os.environ).run(is_tick=is_tick)
    log.info("%s", json.dumps(detail))
    return detail
