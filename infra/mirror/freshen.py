"""A Lambda function that syncs the mirror with the CRDS server's latest context and verifies it.

`infra/mirror.yaml` runs it every day. A fault is raised, so that Lambda counts it as an error.
"""

import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3

from core.errors import ReferenceUnavailable
from handler.crds.mirror import MirrorConfig
from handler.s3.objects import S3Location
from infra.aws import put_event
from infra.mirror.bucket import Mirror
from infra.mirror.changes import CHANGED, SOURCE, Change, changes, detail_of
from infra.mirror.sources import Server
from infra.mirror.sync import copy, plan_sync, publish
from infra.mirror.verify import Report, verify

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001
    """Sync and verify the mirror that the environment names."""
    location = S3Location.parse_prefix(os.environ["CRDS_MIRROR"])
    mirror = Mirror(boto3.client("s3"), location)
    bus = os.environ.get("EVENT_BUS") or "default"
    return keep_fresh(mirror, os.environ["CRDS_SERVER"], bus)


def keep_fresh(mirror: Mirror, server: str, bus: str = "default") -> dict[str, Any]:
    """Copy the server's latest context into a mirror, verify it, publish a new context."""
    with tempfile.TemporaryDirectory() as folder:
        source = Server(server, Path(folder))
        plan = plan_sync(source, mirror, "latest")
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
    # After verifying: consumers rebuild products with what is published.
    _publish_change(mirror, operational, bus)
    return {"operational": operational, "copied": copied, "masks": len(report.masks)}


def _publish_change(mirror: Mirror, operational: str, bus: str) -> None:
    """Publish an event unless it was; the mirror records it, so that the next run can catch up."""
    before = mirror.operational().announced_context
    if operational == before:
        return
    changed: list[Change] = []
    if before:
        try:
            changed = list(changes(mirror.context(before), mirror.context(operational)))
        except ReferenceUnavailable:  # pruned since
            log.warning("%s cannot be compared with %s", before, operational, exc_info=True)
    detail = detail_of(mirror.location, before or None, operational, changed)
    put_event(boto3.client("events"), bus, SOURCE, CHANGED, detail)

    def record(config: MirrorConfig | None) -> MirrorConfig:
        return replace(config or mirror.operational(), announced_context=operational)

    mirror.update(record)
