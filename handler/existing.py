"""What is to be done, given what lies at the product's key.

the product's key holds                            what is done
nothing                                            made
a product of equal provenance                      kept; announced, if it was not yet
a product of the same input, made otherwise        made anew
a product of a newer version of the input          kept; the request is superseded
the product of another input, or something else    InputRejected

A direct request may say ``replace``: then whatever is there is made anew; or ``error``: then
whatever is there is InputRejected. A retry of the same cause continues its own work all the same.
"""

from enum import Enum, auto

from core.errors import InputRejected
from handler.provenance import Provenance
from handler.requests import OnExisting
from handler.s3.locations import S3Location
from handler.s3.objects import StoredObject
from handler.s3.upload import Target, unchanged

__all__ = ["Action", "action_for", "target_for"]


class Action(Enum):
    """What is to be done."""

    MAKE = auto()
    KEEP = auto()
    SUPERSEDED = auto()


def action_for(
    existing: StoredObject | None, provenance: Provenance, on_existing: OnExisting
) -> Action:
    """Decide by the table above.

    Parameters
    ----------
    existing : `~handler.s3.objects.StoredObject` or None
        What lies at the product's key.
    provenance : `~handler.provenance.Provenance`
        What the product would be made from.
    on_existing : `~handler.requests.OnExisting`
        What the request says.

    Raises
    ------
    InputRejected
        If the key is taken.
    """
    if existing is None:
        return Action.MAKE
    other = Provenance.from_metadata(existing.metadata)
    if other is not None and other == provenance:
        is_own = other.cause == provenance.cause
        if on_existing is OnExisting.SKIP or is_own:
            return Action.KEEP
    if on_existing is OnExisting.REPLACE:
        return Action.MAKE
    whose = "is no product of this software" if other is None else f"is of {other.input_uri}"
    if on_existing is OnExisting.ERROR:
        raise InputRejected(f"{existing.location}: is there, and {whose}; onExisting is error")
    if other is None or not other.is_of_input(provenance.input_bucket, provenance.input_key):
        raise InputRejected(
            f"{existing.location}: {whose}, expected nothing or a product of "
            f"{provenance.input_uri}; onExisting: replace would put that in its place"
        )
    newer = other.input_version != provenance.input_version and (
        other.input_modified > provenance.input_modified
    )
    return Action.SUPERSEDED if newer else Action.MAKE


def target_for(
    product: S3Location, existing: StoredObject | None, provenance: Provenance
) -> Target:
    """Say where a product goes: only if what was found there is still there."""
    condition = unchanged(existing.etag if existing else None)
    return Target(product, provenance.to_metadata(), condition)
