"""Decide what to do about the object at a product's key.

the product's key holds                                what is done
nothing                                                BUILD
a product of equal provenance                          KEEP: published, if it was not yet
a pinned product of the same version of the input      PINNED: skipped
a product of the same input, built otherwise           BUILD
a product of a newer version of the input              SUPERSEDED: skipped
the product of another input, or something else        InputRejected

A direct request may say ``replace``: then whatever is there is built again; or ``error``: then
whatever is there is InputRejected. A retry of the same cause continues its own work nevertheless.
"""

from collections.abc import Callable
from enum import Enum, auto

from core.errors import InputRejected
from handler.events import OnExisting
from handler.provenance import Provenance
from handler.s3.objects import S3Location, StoredObject
from handler.s3.write import Target, unchanged

__all__ = ["Action", "action_for", "target_for"]


class Action(Enum):
    """What to do about the object at a product's key."""

    BUILD = auto()
    KEEP = auto()
    PINNED = auto()
    SUPERSEDED = auto()


def action_for(
    existing: StoredObject | None,
    provenance: Provenance,
    on_existing: OnExisting,
    is_current: Callable[[], bool],
) -> Action:
    """Decide by the table above.

    Parameters
    ----------
    existing : `~handler.s3.objects.StoredObject` or None
        The object at the product's key.
    provenance : `~handler.provenance.Provenance`
        Provenance of the product that the request asks for.
    on_existing : `~handler.events.OnExisting`
        The request's own rule.
    is_current : callable
        Says whether the request's version of the input is the current one; called only if the
        product's version was written in the same second.

    Raises
    ------
    InputRejected
        If the key is taken.
    """
    if existing is None:
        return Action.BUILD
    other = Provenance.from_metadata(existing.metadata)
    if other is not None and other == provenance:
        is_own = other.cause == provenance.cause
        if on_existing is OnExisting.SKIP or is_own:
            return Action.KEEP
    if on_existing is OnExisting.REPLACE:
        return Action.BUILD
    whose = "is no product of this software" if other is None else f"is of {other.input_uri}"
    if on_existing is OnExisting.ERROR:
        raise InputRejected(
            f"{existing.location}: already exists and {whose}; onExisting=error forbids "
            "replacing it"
        )
    if other is None or not other.is_of_input(provenance.input_bucket, provenance.input_key):
        raise InputRejected(
            f"{existing.location}: {whose}, expected nothing or a product of "
            f"{provenance.input_uri}; onExisting=replace replaces it"
        )
    if other.is_of_version(provenance):
        # A request that names a mask does not override an earlier one either: replace does.
        return Action.PINNED if other.pinned else Action.BUILD
    # LastModified has whole seconds. Of two versions of one second the current one is the newer.
    if other.input_modified == provenance.input_modified:
        return Action.BUILD if is_current() else Action.SUPERSEDED
    is_newer = other.input_modified > provenance.input_modified
    return Action.SUPERSEDED if is_newer else Action.BUILD


def target_for(
    product: S3Location, existing: StoredObject | None, provenance: Provenance
) -> Target:
    """Return where a product goes: only if what was found there is still there."""
    condition = unchanged(existing.etag if existing else None)
    return Target(product, provenance.to_metadata(), condition)
