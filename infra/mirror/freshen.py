"""A Lambda function that copies the latest context of a CRDS server into the mirror.

`infra/mirror.yaml` runs it daily. It verifies the mirror and raises an error if a file is wrong.
"""

import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3

from core.errors import ReferenceUnavailable
from handler.event import Bus
from handler.s3.objects import S3Location
from infra.cli import plural
from infra.mirror.bucket import Mirror
from infra.mirror.changes import CHANGED, SOURCE, Change, changes, detail_of
from infra.mirror.sources import Server
from infra.mirror.sync import copy, plan_sync, write_config
from infra.mirror.verify import verify

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001
    """Run `keep_fresh` with CRDS_MIRROR, CRDS_SERVER and EVENT_BUS, and return its result."""
    location = S3Location.parse_prefix(os.environ["CRDS_MIRROR"])
    mirror = Mirror(boto3.client("s3"), location)
    bus = os.environ.get("EVENT_BUS") or "default"
    return keep_fresh(mirror, os.environ["CRDS_SERVER"], bus)


def keep_fresh(mirror: Mirror, server: str, bus: str = "default") -> dict[str, Any]:
    """Sync the server's operational context, verify the mirror, send an event of a change.

    The synced context becomes operational, unless `use` chose another one. Returns a summary. If
    `verify` finds a fault, `ReferenceUnavailable` is raised and no event is sent.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Server(server, Path(folder))
        plan = plan_sync(source, mirror, "latest")
        copied = []
        for item in copy(plan, source, mirror):
            source.drop(item.name, item.instrument)
            copied.append(item.name)
        operational = write_config(plan, source, mirror)
    report = verify(mirror)
    for fault in report.faults:
        log.error("fault: %s", fault)
    if report.faults:
        raise ReferenceUnavailable(
            f"{mirror.location}: {plural(len(report.faults), 'fault')}, expected none; the log has "
            f"all, the first is: {report.faults[0]}"
        )
    # After verifying: consumers rebuild products with what is published.
    _publish_change(mirror, operational, bus)
    return {"operational": operational, "copied": copied, "masks": len(report.masks)}


def _publish_change(mirror: Mirror, operational: str, bus: str) -> None:
    """Send "CRDS Context Changed" unless the last such event had this operational context."""
    before = mirror.operational().announced_context
    if operational == before:
        return
    changed: list[Change] = []
    if before:
        try:
            changed = list(changes(mirror.context(before), mirror.context(operational)))
        except ReferenceUnavailable:  # pruned since
            log.warning("%s: cannot be compared; the event lists no masks", before, exc_info=True)
    detail = detail_of(mirror.location, before or None, operational, changed)
    Bus(bus, boto3.client("events")).put(SOURCE, CHANGED, detail)
    mirror.update(lambda config: replace(config, announced_context=operational))
