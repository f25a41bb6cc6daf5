"""Publish results on EventBridge: at least once, each with one id.

If the product exists, the ledger decides what is published:

ledger                                     published
nothing, or an earlier result              Complete; then the ledger is written
published, for another cause               Skipped
published, for the same cause              nothing: its message was delivered again

If the function is killed between the event and the ledger, the next attempt publishes the event
again, with the same id; consumers ignore an id that they know. A failure is published at once if no
retry can help or the caller does not retry; otherwise the ledger keeps its reason.
"""

import logging
import os
from dataclasses import astuple, replace
from datetime import UTC, datetime

import numpy as np
from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit
from numpy.typing import NDArray

from core.compat import missing_asdf_warning
from core.errors import InputRejected
from core.exposure import Exposure
from core.flags import count_by_mnemonic, flagged_pixels, planes_sha256
from core.product import Form
from handler.crds.parameters import Value, known_parameters
from handler.event import (
    Bus,
    ExposureSummary,
    FlagSummary,
    MnemonicCount,
    ObjectSummary,
    ProcessingEvent,
    Status,
)
from handler.ledger import CatalogueRow, Failure, Ledger, is_usable
from handler.s3.objects import ObjectStore, S3Location, StoredObject

NAMESPACE = "JwstDqInit"
SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "dq_init")  # the stack's name, if deployed
_SMALLEST_IMAGE = 4096  # pixels; the fraction of bad pixels means little in smaller ones

_LARGEST_PIXEL = 2**31  # the catalogue's columns have 32 bits
_LONGEST_KEYWORD = 128  # characters

logger = Logger(service=SERVICE)


def publish_event(event: ProcessingEvent, bus: Bus) -> None:
    """Send a result to the bus, log its status and id, and write its metrics."""
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
    """Publish a failure if `is_final`, unless the ledger lists it as published; record it."""
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


def adopt_other_loggers() -> None:
    """Make the loggers of core, handler, CRDS and Python's warnings write as `logger` does."""
    for name in ("core", "handler", "py.warnings", "CRDS"):
        logging.getLogger(name)
    logging.captureWarnings(capture=True)
    copy_config_to_registered_loggers(
        source_logger=logger, include={"core", "handler", "py", "CRDS"}
    )


def measure(event: ProcessingEvent, is_published: bool = True) -> None:
    """Write the CloudWatch metrics of one attempt; an unpublished failure counts as Retried."""
    reference, flags = event.findings.reference, event.findings.flags
    # Each combination of dimensions costs money per month: there is none but the stack. Figures by
    # detector come from the log of processing events.
    name = "Rejected" if event.error == "InputRejected" else event.status.value
    metrics = EphemeralMetrics(namespace=NAMESPACE, service=SERVICE)
    metrics.add_metric(name if is_published else "Retried", MetricUnit.Count, 1)
    if event.error == "ReferenceUnavailable":
        metrics.add_metric("ReferenceUnavailable", MetricUnit.Count, 1)
    metrics.add_metric("Duration", MetricUnit.Seconds, event.function.duration_seconds)
    metrics.add_metric("BytesReceived", MetricUnit.Bytes, event.function.bytes_received)
    metrics.add_metric("BytesSent", MetricUnit.Bytes, event.function.bytes_sent)
    masked = reference is not None and reference.mask is not None
    if event.status is Status.COMPLETE and masked and flags and flags.pixels >= _SMALLEST_IMAGE:
        metrics.add_metric("DoNotUseFraction", MetricUnit.NoUnit, flags.do_not_use_fraction)
    metrics.flush_metrics()


def object_summary(stored: StoredObject) -> ObjectSummary:
    """Return the processing event's summary of an S3 object."""
    return ObjectSummary(
        stored.location.bucket,
        stored.location.key,
        stored.version_id,
        stored.etag,
        None if stored.version_id else stored.last_modified,
        stored.size,
    )


def product_summary(stored: StoredObject) -> ObjectSummary:
    """Return the processing event's summary of a product, with the form in its key."""
    return replace(object_summary(stored), form=Form.of_key(stored.location.key).value)


def exposure_summary(exposure: Exposure) -> ExposureSummary:
    """Return the processing event's summary of an exposure's headers."""
    names = ("INSTRUME", "DETECTOR", "EXP_TYPE", "SUBARRAY")
    values = (exposure.keywords.text(name) for name in names)
    instrument, detector, exposure_type, subarray = (
        value and value[:_LONGEST_KEYWORD] for value in values
    )
    return ExposureSummary(
        instrument,
        detector,
        exposure_type,
        subarray,
        exposure.kind.value,
        exposure.shape,
        missing_asdf_warning(exposure.hdus),
    )


def planes_summary(
    exposure: Exposure, dq: NDArray[np.uint32], pinned: bool
) -> tuple[FlagSummary, CatalogueRow]:
    """Return the numbers of flags in a product's PIXELDQ or DQ, and its catalogue row."""
    indices, flags = flagged_pixels(dq)
    counts = {name: MnemonicCount(*count) for name, count in count_by_mnemonic(flags).items()}
    unusable = counts["DO_NOT_USE"].pixels if "DO_NOT_USE" in counts else 0
    digest = planes_sha256(dq.shape, indices, flags)
    row = CatalogueRow(_parameters(exposure), _window(exposure), digest, pinned)
    return FlagSummary(dq.size, counts, unusable, unusable / dq.size), row


def _window(exposure: Exposure) -> tuple[int, int, int, int] | None:
    try:
        subarray = exposure.subarray
    except InputRejected:  # without a mask, the step does not need the keywords
        return None
    if subarray is None or max(map(abs, astuple(subarray))) >= _LARGEST_PIXEL:
        return None
    return astuple(subarray)


def _parameters(exposure: Exposure) -> dict[str, Value]:
    # A selection treats a parameter that is left out as UNDEFINED, as it does a missing keyword.
    values: dict[str, Value] = {}
    for name, value in known_parameters(exposure.header).items():
        if is_usable(value):
            values[name] = value[:_LONGEST_KEYWORD] if isinstance(value, str) else value
        else:
            logger.warning("%s: %s is %.80r, left out of the ledger", exposure.name, name, value)
    return values
