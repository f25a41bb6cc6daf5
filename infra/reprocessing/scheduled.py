"""The closed loop: a Lambda function that is told of another context, and selects what it affects.

`infra/mirror.yaml` runs it where its parameter Reprocess says ``select`` or ``submit``. The
catalogue is brought up to date, the selection is told by an event and by the topic of the alarms,
and, with ``submit``, sent to the queue of backfills.
"""

import json
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import boto3

from handler.ledger import Ledger
from handler.s3.locations import S3Location
from infra.campaign.campaign import Campaign
from infra.campaign.prefixes import catalogue_in, ledger_in
from infra.campaign.submit import submit
from infra.mirror.announcement import announce
from infra.mirror.bucket import Mirror
from infra.reprocessing.affected import Affected, Question, affected
from infra.reprocessing.catalogue import Catalogue
from infra.reprocessing.manifests import campaign_place

__all__ = ["SELECTED", "Loop", "lambda_handler"]

SELECTED = "Reprocessing Selected"
_MOST = 200
"""Windows that are told one by one."""

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
    """

    mirror: Mirror
    products: str
    queue: str | None
    bus: str = "default"
    topic: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Loop":
        """Read the environment that infra/mirror.yaml gives."""
        mirror = S3Location.parse_prefix(environment["CRDS_MIRROR"])
        submits = environment["REPROCESS"] == "submit"
        return cls(
            Mirror(boto3.client("s3"), mirror),
            environment["PRODUCT_BUCKET"],
            environment["BACKFILL_QUEUE"] if submits else None,
            environment.get("EVENT_BUS") or "default",
            environment.get("TOPIC") or "",
        )

    def run(self, to: str, event_id: str) -> dict[str, Any]:
        """Select for a context, submit, and tell; returns the event's detail.

        Parameters
        ----------
        to : str
            The context.
        event_id : str
            Of the event that told of it: a retry of the same event goes on where it was.
        """
        place = catalogue_in(self.products)
        with ExitStack() as stack:
            catalogue = stack.enter_context(Catalogue.open(self.mirror.client, place))
            for _ in catalogue.update(Ledger(ledger_in(self.products))):
                pass
            question = Question(to)
            answer = stack.enter_context(affected(catalogue, self.mirror, question))
            requests = list(answer.requests(question.wanted(relabel=False)))
        if requests and self.queue is not None:
            self._submit(f"{answer.to}-{event_id}", requests, self.queue)
        detail = detail_of(answer, len(requests), submitted=self.queue is not None)
        self._tell(detail)
        return detail

    def _submit(self, name: str, requests: list[dict[str, str]], queue: str) -> None:
        """Send what is not in the queue yet; nobody follows it."""
        campaign = Campaign(self.mirror.client, campaign_place(self.products, name))
        if campaign.has_ended:
            return
        manifest = campaign.unfinished() or campaign.begin(requests)
        for _ in submit(campaign, manifest, boto3.client("sqs"), queue):
            pass
        campaign.end({"sent": len(manifest.lines)})

    def _tell(self, detail: dict[str, Any]) -> None:
        announce(boto3.client("events"), self.bus, SELECTED, detail)
        if not self.topic:
            return
        text = (
            f"{detail['to']} has {detail['selected']} products made otherwise, of "
            f"{detail['products']} in s3://{self.products}. "
            f"{'They are being made anew.' if detail['submitted'] else 'Nothing was started.'}"
        )
        subject = f"{SELECTED}: {detail['to']}"
        boto3.client("sns").publish(TopicArn=self.topic, Subject=subject, Message=text)


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
    """Answer a "CRDS Context Changed" event."""
    detail = Loop.from_environment(os.environ).run(event["detail"]["after"], event["id"])
    log.info("%s", json.dumps(detail))
    return detail
