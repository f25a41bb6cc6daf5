"""What the world is told when the mirror's operational context has changed.

The detail follows infra/contracts/crds-context-changed-1.0.schema.json.
"""

import json
from typing import Any

from handler.s3.locations import S3Location
from infra.mirror.changes import Change

__all__ = ["CHANGED", "SOURCE", "announce", "detail_of"]

SOURCE = "jwst.crds_mirror"
CHANGED = "CRDS Context Changed"
_SCHEMA_VERSION = "1.0"
_MOST = 500
"""Changes that are told one by one: an event has room for 256 KB."""


def detail_of(
    mirror: S3Location, before: str | None, after: str, changed: list[Change]
) -> dict[str, Any]:
    """Return the event's detail.

    Parameters
    ----------
    mirror : `~handler.s3.locations.S3Location`
        The mirror.
    before, after : str
        Names of the contexts; None where there was none before.
    changed : list of `~infra.mirror.changes.Change`
        For which dates of observation another mask is chosen.
    """
    return {
        "schemaVersion": _SCHEMA_VERSION,
        "mirror": str(mirror),
        "before": before,
        "after": after,
        "changes": len(changed),
        "changedMasks": [
            {
                "instrument": change.instrument.upper(),
                "parameters": dict(change.parameters),
                "from": change.start or None,
                "until": change.stop or None,
                "before": change.before or None,
                "after": change.after or None,
            }
            for change in changed[:_MOST]
        ],
    }


def announce(events: Any, bus: str, kind: str, detail: dict[str, Any]) -> None:
    """Put an event on a bus.

    Raises
    ------
    RuntimeError
        If EventBridge does not take it.
    """
    entry = {
        "EventBusName": bus,
        "Source": SOURCE,
        "DetailType": kind,
        "Detail": json.dumps(detail),
    }
    answer = events.put_events(Entries=[entry])
    if answer["FailedEntryCount"]:
        raise RuntimeError(f"{bus}: the event was not taken: {answer['Entries'][0]}")
