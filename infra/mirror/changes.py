"""Which masks change between two contexts; and what no context needs any more."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from core.errors import ReferenceUnavailable
from handler.crds.mirror import MirrorConfig
from handler.s3.objects import S3Location
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context

__all__ = [
    "CHANGED",
    "SOURCE",
    "Change",
    "announce",
    "changes",
    "detail_of",
    "keep_only",
    "superfluous",
]

SOURCE = "jwst.crds_mirror"
CHANGED = "CRDS Context Changed"
_SCHEMA_VERSION = "1.0"
_MOST = 500
"""Changes that are told one by one: an event has room for 256 KB."""


Match = tuple[str, tuple[tuple[str, str], ...]]
"""Instrument, and what a rule matches on."""


@dataclass(frozen=True)
class Change:
    """An interval of dates of observation, for which two contexts choose different masks.

    Attributes
    ----------
    instrument : str
        In lower case.
    parameters : tuple of (str, str)
        What is matched on: keyword of the data model, and value.
    start, stop : str
        From when on, and until when; empty for ever after.
    before, after : str
        The masks in force; empty where no rule holds.
    """

    instrument: str
    parameters: tuple[tuple[str, str], ...]
    start: str
    stop: str
    before: str
    after: str


def changes(a: Context, b: Context) -> Iterator[Change]:
    """Compare two contexts, match by match, over all dates of observation.

    A rule holds from its date until the next one of the same match.

    Parameters
    ----------
    a, b : `~infra.mirror.contexts.Context`
        The earlier and the later one.
    """
    before, after = _by_match(a), _by_match(b)
    for match in sorted(before.keys() | after.keys()):
        old, new = before.get(match, {}), after.get(match, {})
        dates = sorted(old.keys() | new.keys())
        in_force = [(date, _mask_at(old, date), _mask_at(new, date)) for date in dates]
        # Dates at which neither mask changes divide nothing.
        steps = [next(group) for _, group in groupby(in_force, key=lambda step: step[1:])]
        stops = [step[0] for step in steps[1:]] + [""]
        for (start, one, other), stop in zip(steps, stops, strict=True):
            if one != other:
                yield Change(*match, start, stop, one, other)


def _by_match(context: Context) -> dict[Match, dict[str, str]]:
    """Date -> mask, for every match."""
    found: dict[Match, dict[str, str]] = defaultdict(dict)
    for rule in context.rules:
        found[rule.instrument, rule.parameters][rule.after] = rule.mask
    return found


def _mask_at(masks: Mapping[str, str], date: str) -> str:
    begun = [start for start in masks if start <= date]
    return masks[max(begun)] if begun else ""


def superfluous(mirror: Mirror, contexts: list[Context]) -> list[str]:
    """Return the keys of the files that none of the contexts needs."""
    needed = {key for context in contexts for key in context.keys.values()}
    names = {name for context in contexts for name in context.keys}
    return [
        key
        for key in mirror.list_keys()
        if key not in needed and key.rpartition("/")[2] not in names
    ]


def keep_only(
    mirror: Mirror, contexts: list[Context], keys: list[str], before: MirrorConfig
) -> None:
    """Delete files that no context needs; the catalogue forgets them first.

    Parameters
    ----------
    mirror : `~infra.mirror.bucket.Mirror`
        The mirror.
    contexts : list of `~infra.mirror.contexts.Context`
        What is kept.
    keys : list of str
        Keys to delete, as `superfluous` returns them.
    before : `~handler.crds.mirror.MirrorConfig`
        The configuration when the keys were listed.

    Raises
    ------
    ReferenceUnavailable
        If a context in use is not among those that are kept, or a sync needs one of the files.
    """
    kept = {context.name for context in contexts}
    deleted = {key.rpartition("/")[2] for key in keys}

    def pruned(found: MirrorConfig | None) -> MirrorConfig:
        config = found or mirror.operational()
        for name in {config.operational_context, *config.builds.values()} - kept:
            raise ReferenceUnavailable(f"{name}: is in use, expected it to be kept")
        if deleted & (config.catalogue.keys() - before.catalogue.keys()):
            raise ReferenceUnavailable(
                f"{mirror.location}: was synced meanwhile; run mirror prune again"
            )
        names = {name for context in contexts for name in context.keys}
        added = config.catalogue.keys() - before.catalogue.keys()
        files = {n: d for n, d in config.catalogue.items() if n in names | added}
        return replace(config, catalogue=files, prunes=config.prunes + 1 + config.prunes % 2)

    begun = mirror.update(pruned).prunes
    for key in keys:
        mirror.delete(key)

    def ended(found: MirrorConfig | None) -> MirrorConfig:
        config = found or mirror.operational()
        # Another prune that began meanwhile ends the period in which no sync may publish.
        return replace(config, prunes=begun + 1) if config.prunes == begun else config

    mirror.update(ended)


def detail_of(
    mirror: S3Location, before: str | None, after: str, changed: list[Change]
) -> dict[str, Any]:
    """Return the event's detail.

    Parameters
    ----------
    mirror : `~handler.s3.objects.S3Location`
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
