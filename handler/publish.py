"""Publish results on EventBridge: at least once, each with one id.

the product exists, and the ledger says    published
nothing, or an earlier result              Complete; then the ledger is written
published, for another cause               Skipped
published, for the same cause              nothing: its message was delivered again

If the function is killed between the event and the ledger, the next attempt publishes the event
again, with the same id; consumers ignore an id that they know. A failure is published at once if no
retry can help or the caller does not retry; otherwise the ledger keeps its reason.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from core.errors import TransientFailure
from handler.event import SOURCE, ProcessingEvent
from handler.ledger import Failure, Ledger
from handler.observability import logger, measure
from handler.s3.errors import translate_errors
from handler.s3.objects import ObjectStore, S3Location

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient


@dataclass(frozen=True)
class Bus:
    """The EventBridge bus of the processing events, by name or ARN."""

    name: str
    client: "EventBridgeClient"

    def send(self, event: ProcessingEvent) -> None:
        """Put an event on the bus.

        Raises
        ------
        TransientFailure
            If EventBridge does not accept it.
        """
        entry = {
            "EventBusName": self.name,
            "Source": SOURCE,
            "DetailType": f"DQ Initialization {event.status}",
            "Detail": json.dumps(event.to_detail()),
        }
        with translate_errors(f"{self.name}: publishing the result"):
            answer = self.client.put_events(Entries=[entry])  # type: ignore[list-item]
        if answer["FailedEntryCount"]:
            failed = answer["Entries"][0]
            raise TransientFailure(
                f"{self.name}: EventBridge did not accept the event: {failed['ErrorCode']} "
                f"{failed['ErrorMessage']}"
            )


def publish_event(event: ProcessingEvent, bus: Bus) -> None:
    """Publish a result, log it and count it."""
    bus.send(event)
    # The log group of the events has the whole event; logging it here would be paid for twice.
    logger.info("DQ initialization %s", event.status, extra={"event_id": event.id})
    measure(event)


def publish_failed_event(
    event: ProcessingEvent,
    product: S3Location | None,
    is_final: bool,
    bus: Bus,
    ledger: Ledger,
    store: ObjectStore,
) -> None:
    """Publish a failure once if it is final, and record it in the ledger in any case."""
    # A message may be delivered again after its failure was published.
    recorded = ledger.read(product, store).failure if product and is_final else None
    is_same = recorded and (recorded.cause, recorded.error) == (event.cause, event.error)
    published = bool(recorded and is_same and recorded.published)
    try:
        if is_final and not published:
            publish_event(event, bus)
            published = True
        else:
            measure(event, is_published=False)
    finally:  # if the bus is down, the reason must outlive this attempt
        if product is not None:
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            reason = event.to_detail()["reason"] or ""
            failure = Failure(event.cause, event.error or "", reason, at, published)
            ledger.record_failure(product, failure, store)
