"""The function's logger and metrics. Every line is JSON and says which request it belongs to."""

import logging
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

__all__ = ["adopt_other_loggers", "logger", "measure", "report"]

NAMESPACE = "JwstDqInit"
SERVICE = "dq_init"

_COUNTED = {
    "Complete": "Processed",
    "Skipped": "Skipped",
    "Failed": "GivenUp",
    "InputRejected": "Rejected",
}

logger = Logger(service=SERVICE)


def adopt_other_loggers() -> None:
    """Make the step's, Python's and CRDS's own messages JSON lines with the same keys."""
    names = ("core", "py.warnings", "CRDS")
    for name in names:
        logging.getLogger(name)
    logging.captureWarnings(capture=True)
    copy_config_to_registered_loggers(source_logger=logger, include={"core", "py", "CRDS"})


def report(detail: dict[str, Any]) -> None:
    """Log and measure what was announced.

    Parameters
    ----------
    detail : dict
        The processing event's detail.
    """
    logger.info("DQ initialization %s", detail["status"], extra={"detail": detail})
    measure(detail, _COUNTED[detail["error"] if detail["error"] in _COUNTED else detail["status"]])


def measure(detail: dict[str, Any], counted_as: str) -> None:
    """Publish the metrics of one exposure: by instrument and detector, and for the whole service.

    Parameters
    ----------
    detail : dict
        The processing event's detail.
    counted_as : str
        The count it goes into: Processed, Skipped, Rejected, GivenUp or Retried.
    """
    exposure, flags, function = detail["exposure"] or {}, detail["flags"], detail["function"]
    metrics = EphemeralMetrics(namespace=NAMESPACE, service=SERVICE)
    metrics.add_dimension("instrument", exposure.get("instrument") or "unknown")
    metrics.add_dimension("detector", exposure.get("detector") or "unknown")
    metrics.add_dimensions(service=SERVICE)
    metrics.add_metric(counted_as, MetricUnit.Count, 1)
    if detail["error"] == "ReferenceUnavailable":
        metrics.add_metric("MirrorTrouble", MetricUnit.Count, 1)
    metrics.add_metric("Duration", MetricUnit.Seconds, function["durationSeconds"])
    metrics.add_metric("BytesReceived", MetricUnit.Bytes, function["bytesReceived"])
    metrics.add_metric("BytesSent", MetricUnit.Bytes, function["bytesSent"])
    if detail["status"] == "Complete":
        metrics.add_metric("DoNotUseFraction", MetricUnit.NoUnit, flags["doNotUseFraction"])
    metrics.flush_metrics()
