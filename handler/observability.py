"""The function's logger (JSON lines) and metrics.

Metrics have no dimension but the stack: each combination of dimensions costs money per month.
Figures by detector come from the log of processing events, as in the dashboard.
"""

import logging
import os

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from handler.event import ProcessingEvent, Status

NAMESPACE = "JwstDqInit"
SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "dq_init")  # the stack's name, if deployed
_SMALLEST_IMAGE = 4096  # pixels; the fraction of bad pixels means little in smaller ones

_METRICS = {Status.COMPLETE: "Complete", Status.SKIPPED: "Skipped", Status.FAILED: "Failed"}

logger = Logger(service=SERVICE)


def adopt_other_loggers() -> None:
    """Log the messages of the step, Python and CRDS as JSON lines with the same keys."""
    for name in ("core", "handler", "py.warnings", "CRDS"):
        logging.getLogger(name)
    logging.captureWarnings(capture=True)
    copy_config_to_registered_loggers(
        source_logger=logger, include={"core", "handler", "py", "CRDS"}
    )


def measure(event: ProcessingEvent, is_published: bool = True) -> None:
    """Write the metrics of one attempt; an unpublished failure is counted as Retried."""
    reference, flags = event.findings.reference, event.findings.flags
    name = "Rejected" if event.error == "InputRejected" else _METRICS[event.status]
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
