"""Provenance of products, and the decision about the object at a product's key.

object at the product's key                          action
none                                                 BUILD
product of equal provenance, in any context          KEEP: published, if it was not yet
pinned product of the same version of the input      PINNED: skipped
product of the same input, built otherwise           BUILD
product of a newer version, if ours is not current   SUPERSEDED: skipped
product of another input, or a foreign object        InputRejected

With onExisting=replace, any object is replaced; with onExisting=error, any object is InputRejected.
In both cases a retry of the same cause keeps the product that the cause has built.

Provenance is kept in the product's object metadata. S3 keeps metadata as ASCII, trims blanks at the
ends of values, and limits all of it to 2 KB, so values are percent-encoded and long ones shortened:
docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum, auto
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from core import __version__
from core.errors import InputRejected
from core.product import NO_MASK, Encoding
from handler.events import OnExisting
from handler.s3.objects import S3Location, StoredObject
from handler.s3.write import Target, unchanged

if TYPE_CHECKING:  # the operator commands start faster without the crds package
    from handler.crds.masks import MaskChoice

_LONGEST = 512  # encoded characters; three values may be long (key, mask, cause)
_PLAIN = "/:@!$&'()*+,;=-._~"


@dataclass(frozen=True)
class Provenance:
    """Everything a product was built from; context, input time and cause are not compared."""

    input_bucket: str
    input_key: str
    input_etag: str  # without quotes
    input_version: str  # empty if the bucket has no versions
    mask: str  # as R_MASK names it (N/A if no mask applies), `shortened`
    mask_sha1: str  # empty if no mask applies
    user_dq_etag: str  # empty without user-supplied DQ
    science_encoding: str
    software_version: str
    # A request named mask or user DQ; others replace it only with onExisting=replace or a new
    # input.
    pinned: bool
    # not compared, because another context may choose the same mask
    crds_context: str = field(compare=False)
    input_modified: str = field(compare=False)  # ISO 8601, UTC: orders versions of the input
    cause: str = field(compare=False)

    @classmethod
    def of(
        cls,
        source: StoredObject,
        mask: "MaskChoice",
        user_dq: StoredObject | None,
        encoding: Encoding,
        cause: str,
        pinned: bool = False,
    ) -> "Provenance":
        """Return the provenance of a product that is to be built from these inputs."""
        version, etag = state_of(source)
        return cls(
            input_bucket=source.location.bucket,
            input_key=shortened(source.location.key),
            input_etag=etag,
            input_version=version,
            mask=shortened(mask.label or NO_MASK),
            mask_sha1=mask.sha1,
            user_dq_etag=user_dq.etag.strip('"') if user_dq else "",
            science_encoding=encoding.value,
            software_version=__version__,
            pinned=pinned,
            crds_context=mask.context,
            input_modified=source.last_modified or "",
            cause=shortened(cause),
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Provenance | None":
        """Return the provenance in an object's metadata; None if input or release is missing."""
        if not {"input-bucket", "input-key", "software-version"} <= metadata.keys():
            return None
        names = (field.name for field in fields(cls))
        # A value that an earlier release did not write is empty, so its product is not equal.
        values = {name: unquote(metadata.get(name.replace("_", "-"), "")) for name in names}
        pinned = values.pop("pinned")
        # Releases before ``pinned`` wrote the URI of such a mask, and the ETag of the user DQ.
        was_pinned = values["mask"].startswith("s3://") or bool(values["user_dq_etag"])
        return cls(**values, pinned=pinned == "true" if pinned else was_pinned)

    def to_metadata(self) -> dict[str, str]:
        """Return the provenance as S3 object metadata of the product."""
        values = {**asdict(self), "pinned": "true" if self.pinned else "false"}
        return {name.replace("_", "-"): quote(v, safe=_PLAIN) for name, v in values.items()}

    def is_of_input(self, bucket: str, key: str) -> bool:
        """Say whether the product was built from this exposure, in any version."""
        return (self.input_bucket, self.input_key) == (bucket, shortened(key))

    @property
    def input_state(self) -> tuple[str, str]:
        """Version ID and ETag of the product's exposure, written as by `state_of`."""
        return self.input_version, self.input_etag

    @property
    def input_uri(self) -> str:
        """The URI of the exposure that the product was built from; a long key is shortened."""
        return f"s3://{self.input_bucket}/{self.input_key}"


def state_of(source: StoredObject) -> tuple[str, str]:
    """Return version ID (empty without versions) and unquoted ETag of an exposure."""
    return source.version_id or "", source.etag.strip('"')


def shortened(text: str) -> str:
    """Return a text unchanged or, if long, its first 32 characters and its SHA-256."""
    if len(quote(text, safe=_PLAIN)) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[:32]}...sha256:{digest}"


class Action(Enum):
    """Decision about a request: BUILD or KEEP its product, or skip the request."""

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
    """Decide about `existing`, the object at the product's key, by the table of this module.

    Raises `InputRejected` if it must not be replaced. `is_current` says whether the input's version
    is the current one; it is called only if the decision needs it.
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
    # The current version wins over one of the same second, and over a later one that was deleted.
    is_newer = provenance.input_modified > other.input_modified
    return Action.BUILD if is_newer or is_current() else Action.SUPERSEDED


def target_for(
    product: S3Location, existing: StoredObject | None, provenance: Provenance
) -> Target:
    """Return the target of a product's write, which fails unless `existing` is unchanged."""
    condition = unchanged(existing.etag if existing else None)
    return Target(product, provenance.to_metadata(), condition)
