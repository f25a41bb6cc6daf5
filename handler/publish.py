"""The rule by which a result is announced: at least once, always with the same id.

the product is there, and the ledger says     what is announced
nothing, or an earlier result                 Complete; then the ledger is written
that it was announced, to another             Skipped
that it was announced, to the same cause      nothing: its message was only delivered again

Who is killed between announcing and writing leaves a result that is announced again, with its id,
when the message comes back; consumers drop ids that they know. A failure is announced at once if
no retry would help or nobody tries again; else its reason is left in the ledger.
"""

import json
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from core import __version__
from core.errors import EXPECTED, InputRejected, TransientFailure
from core.product import NO_MASK
from handler.event import SOURCE, Findings, ObjectSummary, ProcessingEvent, Status, Usage
from handler.events import Attempt, ExposureRequest
from handler.ledger import CatalogueRow, Entry, Failure, Ledger
from handler.observability import logger, measure
from handler.s3.errors import failures_of
from handler.s3.objects import ObjectStore, S3Location

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient

__all__ = ["Announcer", "Bus", "Draft"]


@dataclass(frozen=True)
class Bus:
    """The EventBridge bus that results are announced on.

    Attributes
    ----------
    name : str
        Name or ARN.
    client : boto3 EventBridge client
        How to reach it.
    """

    name: str
    client: "EventBridgeClient"

    def send(self, event: ProcessingEvent) -> None:
        """Put an event on the bus.

        Raises
        ------
        TransientFailure
            If EventBridge does not take it.
        """
        entry = {
            "EventBusName": self.name,
            "Source": SOURCE,
            "DetailType": f"DQ Initialization {event.status}",
            "Detail": json.dumps(event.to_detail()),
        }
        with failures_of(f"{self.name}: announcing the result"):
            answer = self.client.put_events(Entries=[entry])  # type: ignore[list-item]
        if answer["FailedEntryCount"]:
            failed = answer["Entries"][0]
            raise TransientFailure(
                f"{self.name}: the event was not taken: {failed['ErrorCode']} "
                f"{failed['ErrorMessage']}"
            )


@dataclass(frozen=True)
class Draft:
    """What is known of an exposure so far, and how it ended.

    Attributes
    ----------
    findings : `~handler.event.Findings`
        What goes into the event.
    product : `~handler.s3.objects.S3Location` or None
        Where the product lies, or would lie.
    row : `~handler.ledger.CatalogueRow` or None
        What the product depends on; there once the product is.
    skipped : str or None
        Why nothing was done, if nothing was.
    previous : `~handler.event.ProcessingEvent` or None
        The announcement of the same result, if the ledger knows it.
    entry : `~handler.ledger.Entry`
        What the ledger said, as far as it was asked.
    """

    findings: Findings
    product: S3Location | None = None
    row: CatalogueRow | None = None
    skipped: str | None = None
    previous: ProcessingEvent | None = None
    entry: Entry = field(default_factory=Entry)

    @classmethod
    def of(cls, request: ExposureRequest) -> "Draft":
        """Return what is known before anything was looked at."""
        source = request.source
        asked = ObjectSummary(source.bucket, source.key, source.version_id)
        return cls(Findings(request.to_direct(), asked))

    @property
    def is_settled(self) -> bool:
        """Whether there is a result: a product, or a reason to skip it."""
        return self.findings.output is not None or self.skipped is not None

    def skip(self, reason: str) -> "Draft":
        """Return the draft of an exposure for which nothing is done."""
        return replace(self, skipped=reason)

    def know(self, **findings: Any) -> "Draft":
        """Return the draft with more findings."""
        return replace(self, findings=replace(self.findings, **findings))


@dataclass(frozen=True)
class Announcer:
    """Announces how one exposure ended.

    Attributes
    ----------
    bus : `Bus`
        Where to.
    ledger : `~handler.ledger.Ledger`
        What was announced before.
    attempt : `~handler.events.Attempt`
        Who asked.
    store : `~handler.s3.objects.ObjectStore`
        How to reach S3; it has counted the bytes.
    """

    bus: Bus
    ledger: Ledger
    attempt: Attempt
    store: ObjectStore
    _started: float = field(default_factory=time.perf_counter)

    def note(self, draft: Draft) -> None:
        """Let every line of the log say what is known."""
        source, reference = draft.findings.input, draft.findings.reference
        logger.append_keys(
            exposure=f"s3://{source.bucket}/{source.key}" if source else None,
            mask=reference and (reference.mask or NO_MASK),
            context=reference and reference.context,
            cause=self.attempt.cause,
        )

    def announced_before(self, draft: Draft) -> ProcessingEvent | None:
        """Return the announcement of a product that is there, if the ledger knows it."""
        result = draft.entry.result
        same = result is not None and result.id == self._event(Status.COMPLETE, draft).id
        return result if same else None

    def conclude(self, draft: Draft) -> ProcessingEvent:
        """Announce how it ended, unless that was done: the table of this module's first lines.

        Raises
        ------
        TransientFailure
            If EventBridge does not take the event.
        """
        previous = draft.previous
        if previous is not None or draft.skipped is not None:
            self._forget_failure(draft)
        if previous is not None and previous.cause == self.attempt.cause:
            return previous
        if previous is not None:
            request = previous.function.request_id
            reason = f"was announced as {previous.status} by request {request}"
            return self._announced(self._event(Status.SKIPPED, draft, reason))
        if draft.skipped is not None:
            return self._announced(self._event(Status.SKIPPED, draft, draft.skipped))
        event = self._announced(self._event(Status.COMPLETE, draft))
        if draft.product is not None:
            entry = Entry(event, draft.row, None, draft.entry.stored)
            output = draft.findings.output
            etag = output.etag if output else None
            self.ledger.record(draft.product, etag, entry, self.store)
        return event

    def _forget_failure(self, draft: Draft) -> None:
        """Take an earlier attempt's failure out of the ledger, where there is nothing to do."""
        output = draft.findings.output
        if draft.product is not None and draft.entry.failure is not None and output is not None:
            entry = replace(draft.entry, failure=None)
            self.ledger.record(draft.product, output.etag, entry, self.store)

    def failed(self, draft: Draft, error: Exception) -> ProcessingEvent:
        """Publish a failure, unless the caller retries and a retry may help; note it in any case.

        A failure whose event was published for the same cause is not published again: a message may
        be delivered again after that, and a state machine may hand its request to a queue.

        Raises
        ------
        TransientFailure
            If EventBridge does not take the event.
        """
        name = type(error).__name__
        event = self._event(Status.FAILED, draft, str(error), name)
        is_bug = not isinstance(error, EXPECTED)
        logger.error("DQ initialization failed: %s: %s", name, error, exc_info=is_bug and error)
        return self._publish_failure(event, draft.product, is_final=self._is_final(error))

    def _is_final(self, error: Exception) -> bool:
        return not self.attempt.is_retried or isinstance(error, InputRejected)

    def is_own(self, failure: Failure) -> bool:
        """Say whether an attempt of the same cause has left a failure."""
        return failure.cause == self.attempt.cause

    def failed_before(self, draft: Draft, failure: Failure) -> ProcessingEvent:
        """Publish a failure that an attempt has left in the ledger, unless that was done."""
        event = self._event(Status.FAILED, draft, failure.reason, failure.error)
        return self._publish_failure(event, draft.product, is_final=True)

    def _publish_failure(
        self, event: ProcessingEvent, product: S3Location | None, *, is_final: bool
    ) -> ProcessingEvent:
        """Publish a failure if it is final, and leave it in the ledger: published, or not yet."""
        published = is_final and self._is_published(event, product)
        try:
            if published or not is_final:
                measure(event, is_announced=False)
            else:
                self._announced(event)
                published = True
        finally:  # if the bus is down, the reason must outlive this attempt
            self._remember(event, product, published)
        return event

    def _is_published(self, event: ProcessingEvent, product: S3Location | None) -> bool:
        failure = self.ledger.read(product, self.store).failure if product else None
        same = failure is not None and (failure.cause, failure.error) == (event.cause, event.error)
        return failure is not None and same and failure.published

    def _event(
        self, status: Status, draft: Draft, reason: str | None = None, error: str | None = None
    ) -> ProcessingEvent:
        usage = Usage(
            __version__,
            self.attempt.request_id,
            round(time.perf_counter() - self._started, 3),
            self.store.received,
            self.store.sent,
        )
        return ProcessingEvent(status, reason, error, self.attempt.cause, draft.findings, usage)

    def _announced(self, event: ProcessingEvent) -> ProcessingEvent:
        self.bus.send(event)
        # The whole event is in the log group of events: what is logged twice is paid for twice.
        logger.info("DQ initialization %s", event.status, extra={"event_id": event.id})
        measure(event)
        return event

    def _remember(
        self, event: ProcessingEvent, product: S3Location | None, published: bool
    ) -> None:
        """Leave the reason in the ledger, beside the last result."""
        if product is None:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        reason = event.to_detail()["reason"] or ""
        failure = Failure(event.cause, event.error or "", reason, now, published)
        self.ledger.note(product, failure, self.store)
