"""Masks that change from one context to another, the event about them, and unneeded files."""

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

SOURCE = "jwst.crds_mirror"
CHANGED = "CRDS Context Changed"
_SCHEMA_VERSION = "1.0"
# An event has room for 256 KB: docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html
_MOST_LISTED = 500


@dataclass(frozen=True)
class Change:
    """An interval of observation dates in which two contexts differ in the mask of a rule."""

    instrument: str  # lower case
    parameters: tuple[tuple[str, str], ...]  # as in `infra.mirror.contexts.Rule`
    start: str  # first date and time, the USEAFTER of a rule
    stop: str  # date and time before which it ends; empty: it does not end
    before: str  # file name of the mask, N/A, or empty if no rule applies
    after: str  # as `before`


def changes(a: Context, b: Context) -> Iterator[Change]:
    """Yield the intervals of observation dates in which `a` and `b` select different masks."""
    before, after = _by_match(a), _by_match(b)
    for match in sorted(before.keys() | after.keys()):
        old, new = before.get(match, {}), after.get(match, {})
        dates = sorted(old.keys() | new.keys())
        in_force = [(date, _mask_at(old, date), _mask_at(new, date)) for date in dates]
        # Merge neighbouring intervals that have the same two masks.
        steps = [next(group) for _, group in groupby(in_force, key=lambda step: step[1:])]
        stops = [step[0] for step in steps[1:]] + [""]
        for (start, one, other), stop in zip(steps, stops, strict=True):
            if one != other:
                yield Change(*match, start, stop, one, other)


def _by_match(context: Context) -> Mapping[tuple[str, Any], dict[str, str]]:
    """Return the masks by USEAFTER date, for every instrument and set of parameters."""
    found: dict[tuple[str, Any], dict[str, str]] = defaultdict(dict)
    for rule in context.rules:
        found[rule.instrument, rule.parameters][rule.after] = rule.mask
    return found


def _mask_at(masks: Mapping[str, str], date: str) -> str:
    """Return the mask with the latest USEAFTER date up to an observation date; empty if none."""
    begun = [start for start in masks if start <= date]
    return masks[max(begun)] if begun else ""


def detail_of(
    mirror: S3Location, before: str | None, after: str, changed: list[Change]
) -> dict[str, Any]:
    """Return the detail of a "CRDS Context Changed" event."""
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
            for change in changed[:_MOST_LISTED]
        ],
    }


def unneeded_keys(mirror: Mirror, contexts: list[Context]) -> list[str]:
    """Return keys, relative to the mirror's prefix, of files that none of the contexts needs."""
    needed = {key for context in contexts for key in context.keys.values()}
    names = {name for context in contexts for name in context.keys}
    return [
        key
        for key in mirror.list_keys()
        if key not in needed and key.rpartition("/")[2] not in names
    ]


def delete_unneeded(
    mirror: Mirror, contexts: list[Context], keys: list[str], before: MirrorConfig
) -> None:
    """Delete files that no kept context needs, from the configuration and then from S3.

    `keys` come from `unneeded_keys` for `contexts`, `before` is the configuration then. Nothing is
    deleted, with `ReferenceUnavailable`, if a sync or `use` has needed more files since.
    """
    kept = {context.name for context in contexts}
    names = {name for context in contexts for name in context.keys}
    deleted = {key.rpartition("/")[2] for key in keys}

    def begin(config: MirrorConfig) -> MirrorConfig:
        in_use = {config.operational_context, *config.builds.values()}
        added = config.catalogue.keys() - before.catalogue.keys()
        if in_use - kept or deleted & added:
            raise ReferenceUnavailable(
                f"{mirror.location}: needs more files than before, because a sync or mirror use "
                "ran meanwhile; nothing was deleted; run dq-init mirror prune again"
            )
        files = {n: d for n, d in config.catalogue.items() if n in names | added}
        # An odd number of prunes: files are being deleted.
        return replace(config, catalogue=files, prunes=config.prunes + 1 + config.prunes % 2)

    _, begun = mirror.update(begin)
    for key in keys:
        mirror.delete(key)

    def end(config: MirrorConfig) -> MirrorConfig:
        # If another prune has begun, that one marks the end.
        is_last = config.prunes == begun.prunes
        return replace(config, prunes=config.prunes + 1) if is_last else config

    mirror.update(end)
