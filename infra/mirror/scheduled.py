"""The mirror kept fresh: a Lambda function that syncs the latest context, and then verifies.

`infra/mirror.yaml` runs it every day. A fault is raised, and so counted as an error of it.
"""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import boto3

from core.errors import ReferenceUnavailable
from handler.s3.locations import S3Location
from infra.mirror.bucket import Mirror
from infra.mirror.sources import Server
from infra.mirror.sync import copy, make_plan, publish
from infra.mirror.verify import Report, verify

__all__ = ["lambda_handler"]

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001
    """Sync and verify the mirror that the environment names.

    Returns
    -------
    dict
        The context, and how many files were copied and are whole.

    Raises
    ------
    ReferenceUnavailable
        If the server cannot be reached or sends something wrong, or verify finds a fault.
    """
    location = S3Location.parse_prefix(os.environ["CRDS_MIRROR"])
    return keep_fresh(Mirror(boto3.client("s3"), location), os.environ["CRDS_SERVER"])


def keep_fresh(mirror: Mirror, server: str) -> dict[str, Any]:
    """Copy the server's latest context into a mirror, and verify all that is there."""
    with tempfile.TemporaryDirectory() as folder:
        source = Server(server, Path(folder))
        plan = make_plan(source, mirror, "latest")
        copied = []
        for item in copy(plan, source, mirror):
            source.drop(item.name, item.instrument)
            copied.append(item.name)
        operational = publish(plan, source, mirror)
    report = Report()
    for _, read in verify(mirror):
        report = read
    for fault in report.faults:
        log.error("fault: %s", fault)
    if report.faults:
        raise ReferenceUnavailable(
            f"{mirror.location}: {len(report.faults)} faults, the first of them: {report.faults[0]}"
        )
    return {"operational": operational, "copied": copied, "masks": len(report.masks)}
