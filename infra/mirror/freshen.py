"""The mirror kept fresh: a Lambda function that syncs the latest context, and then verifies.

`infra/mirror.yaml` runs it every day. A fault is raised, and so counted as an error of it.
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
from infra.mirror.bucket import Mirror
from infra.mirror.changes import CHANGED, Change, announce, changes, detail_of
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
    mirror = Mirror(boto3.client("s3"), location)
    bus = os.environ.get("EVENT_BUS") or "default"
    return keep_fresh(mirror, os.environ["CRDS_SERVER"], bus)


def keep_fresh(mirror: Mirror, server: str, bus: str = "default") -> dict[str, Any]:
    """Copy the server's latest context into a mirror, and verify all that is there.

    Another operational context is announced once all that is there was found whole: what is
    damaged is for no one to work from. Which one was announced last is kept in the mirror, so
    that whatever fails here is made good by the next day's run.

    Parameters
    ----------
    mirror : `~infra.mirror.bucket.Mirror`
        The mirror.
    server : str
        The CRDS server's address.
    bus : str
        Where another context is announced.
    """
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
    _announce(mirror, operational, bus)
    return {"operational": operational, "copied": copied, "masks": len(report.masks)}


def _announce(mirror: Mirror, operational: str, bus: str) -> None:
    before = mirror.operational().announced_context
    if operational == before:
        return
    changed: list[Change] = []
    if before:
        try:
            changed = list(changes(mirror.context(before), mirror.context(operational)))
        except ReferenceUnavailable:  # it was pruned since
            log.warning("%s cannot be compared with %s", before, operational, exc_info=True)
    detail = detail_of(mirror.location, before or None, operational, changed)
    announce(boto3.client("events"), bus, CHANGED, detail)

    def announced(config: MirrorConfig | None) -> MirrorConfig:
        return replace(config or mirror.operational(), announced_context=operational)

    mirror.update(announced)
