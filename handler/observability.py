"""The function's logger and metrics. Every line is JSON and says which request it belongs to.

Metrics are of the whole stack: each combination of dimensions is paid for by the month. What is
wanted by detector is asked of the log of processing events, as the dashboard does.
"""

import logging
import os

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from handler.event import ProcessingEvent, Status

__all__ = ["adopt_other_loggers", "logger", "measure"]

NAMESPACE = "JwstDqInit"
SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "dq_init")
"""The stack's name, where there is a stack: several may live side by side."""
_LEAST_WINDOW = 4096
"""Pixels of a window that is large enough for its share of bad pixels to mean something."""

_COUNTED = {Status.COMPLETE: "Processed", Status.SKIPPED: "Skipped", Status.FAILED: "Failed"}

logger = Logger(service=SERVICE)


def adopt_other_loggers() -> None:
    """Make the step's, Python's and CRDS's own messages JSON lines with the same keys."""
    names = ("core", "handler", "py.warnings", "CRDS")
    for name in names:
        logging.getLogger(name)
    logging.captureWarnings(capture=True)
    copy_config_to_registered_loggers(
        source_logger=logger, include={"core", "handler", "py", "CRDS"}
    )


def measure(event: ProcessingEvent, is_announced: bool = True) -> None:
    """Publish the metrics of one exposure.

    Parameters
    ----------
    event : `~handler.event.ProcessingEvent`
        How it ended.
    is_announced : bool
        Whether that is final; what somebody tries again is counted as Retried.
    """
    reference, flags = event.findings.reference, event.findings.flags
    metrics = EphemeralMetrics(namespace=NAMESPACE, service=SERVICE)
    metrics.add_metric(_counted_as(event, is_announced), MetricUnit.Count, 1)
    if event.error == "ReferenceUnavailable":
        metrics.add_metric("ReferenceUnavailable", MetricUnit.Count, 1)
    metrics.add_metric("Duration", MetricUnit.Seconds, event.function.duration_seconds)
    metrics.add_metric("BytesReceived", MetricUnit.Bytes, event.function.bytes_received)
    metrics.add_metric("BytesSent", MetricUnit.Bytes, event.function.bytes_sent)
    masked = reference is not None and reference.mask is not None
    if event.status is Status.COMPLETE and masked and flags and flags.pixels >= _LEAST_WINDOW:
        metrics.add_metric("DoNotUseFraction", MetricUnit.NoUnit, flags.do_not_use_fraction)
    metrics.flush_metrics()


def _counted_as(event: ProcessingEvent, is_announced: bool) -> str:
    if not is_announced:
        return "Retried"
    return "Rejected" if event.error == "InputRejected" else _COUNTED[event.status]
