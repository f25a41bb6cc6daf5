"""The provenance of a product, kept in its object metadata.

S3 keeps metadata as ASCII, trims blanks at the ends of values, and limits all of it to 2 KB:
docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html. So values are percent-encoded, and
of a long one the beginning and a digest are kept.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from core import __version__
from core.product import NO_MASK, Encoding
from handler.s3.objects import StoredObject

if TYPE_CHECKING:  # the operator commands start faster without the crds package
    from handler.crds.masks import MaskChoice

_LONGEST = 512  # encoded characters; three values may be long (key, mask, cause)
_PLAIN = "/:@!$&'()*+,;=-._~"


@dataclass(frozen=True)
class Provenance:
    """Everything that a product was built from; equal if the products would be equal."""

    input_bucket: str
    input_key: str
    input_etag: str  # without quotes
    input_version: str  # empty if the bucket has no versions
    mask: str  # as R_MASK names it
    mask_sha1: str  # empty if no mask applies
    user_dq_etag: str  # empty without user-supplied DQ
    science_encoding: str
    software_version: str
    pinned: bool  # a request named the mask or user DQ: events and jobs leave the product alone
    # another context may choose the same mask
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
        """Return the provenance of a product that is to be built."""
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
        """Read the metadata of an object; None if it is not a product of this software."""
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
        """Return the product's metadata."""
        values = {**asdict(self), "pinned": "true" if self.pinned else "false"}
        return {name.replace("_", "-"): quote(v, safe=_PLAIN) for name, v in values.items()}

    def is_of_input(self, bucket: str, key: str) -> bool:
        """Say whether the product is of an exposure, in any version."""
        return (self.input_bucket, self.input_key) == (bucket, shortened(key))

    @property
    def input_state(self) -> tuple[str, str]:
        """The version of the exposure that the product is of, as `state_of` returns it."""
        return self.input_version, self.input_etag

    @property
    def input_uri(self) -> str:
        """The URI of the exposure."""
        return f"s3://{self.input_bucket}/{self.input_key}"


def state_of(source: StoredObject) -> tuple[str, str]:
    """Return version ID and ETag of an exposure, as provenance records them."""
    return source.version_id or "", source.etag.strip('"')


def shortened(text: str) -> str:
    """Return a text as it is recorded: unchanged, or its beginning and digest if it is long."""
    if len(quote(text, safe=_PLAIN)) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[:32]}...sha256:{digest}"
