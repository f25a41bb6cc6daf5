"""Decide what to do about the object at a product's key.

object at the product's key                          action
none                                                 BUILD
product of equal provenance                          KEEP: published, if it was not yet
pinned product of the same version of the input      PINNED: skipped
product of the same input, built otherwise           BUILD
product of a newer version of the input              SUPERSEDED: skipped
product of another input, or a foreign object        InputRejected

With onExisting=replace, any object is replaced; with onExisting=error, any object is InputRejected.
In both cases a retry of the same cause keeps the product that the cause has built.
"""

from collections.abc import Callable
from enum import Enum, auto

from core.errors import InputRejected
from handler.events import OnExisting
from handler.provenance import Provenance
from handler.s3.objects import S3Location, StoredObject
from handler.s3.write import Target, unchanged


class Action(Enum):
    """Action about the object at a product's key."""

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

    `is_current` says whether the input's version is the current one; it costs a request to S3.

    Raises
    ------
    InputRejected
        If the object may not be replaced.
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
    whose = "is not a product of this software" if other is None else f"is of {other.input_uri}"
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
    if other.input_state == provenance.input_state:
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
    """Return the product's target: written only if the object that was found is still there."""
    condition = unchanged(existing.etag if existing else None)
    return Target(product, provenance.to_metadata(), condition)
