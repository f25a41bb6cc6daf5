"""What a product is made from: a value that can be compared, kept in the product's metadata.

S3 keeps metadata as ASCII, trims blanks at the ends of values, and takes 2 KB in all. So values are
percent-encoded, and of what is too long a digest is kept.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from urllib.parse import quote, unquote

from core import __version__
from core.product import NO_MASK, Encoding
from handler.s3.objects import StoredObject

__all__ = ["Provenance", "shortened"]

_LONGEST = 512
"""Encoded characters of a value: three of them may be long (key, mask, cause)."""
_PLAIN = "/:@!$&'()*+,;=-._~"


@dataclass(frozen=True)
class Provenance:
    """What a product is made from. Two of them are equal if the products would be the same.

    Attributes
    ----------
    input_bucket, input_key, input_etag, input_version : str
        The exposure; the version is empty where the bucket has none, the tag is without quotes.
    mask, mask_sha1 : str
        As R_MASK names it, and its SHA-1; ``N/A`` and empty where none applies.
    user_dq_etag : str
        Of the user-supplied DQ; empty where there is none.
    science_encoding, software_version : str
        How the science pixels are written, and by what.
    pinned : bool
        Whether the request named the mask or user DQ: events and jobs leave such a product alone.
    crds_context : str
        The context that chose the mask; another may choose the same.
    input_modified : str
        When the exposure was written (ISO 8601, UTC): tells the newer of two versions.
    cause : str
        Who asked for the product.
    """

    input_bucket: str
    input_key: str
    input_etag: str
    input_version: str
    mask: str
    mask_sha1: str
    user_dq_etag: str
    science_encoding: str
    software_version: str
    pinned: bool
    crds_context: str = field(compare=False)
    input_modified: str = field(compare=False)
    cause: str = field(compare=False)

    @classmethod
    def of(
        cls,
        source: StoredObject,
        reference: tuple[str | None, str, str],
        user_dq: StoredObject | None,
        encoding: Encoding,
        cause: str,
        pinned: bool = False,
    ) -> "Provenance":
        """Say what a product is going to be made from.

        Parameters
        ----------
        source : `~handler.s3.objects.StoredObject`
            The exposure.
        reference : tuple of str
            What R_MASK says (None where no mask applies), the mask's SHA-1, the context.
        user_dq : `~handler.s3.objects.StoredObject` or None
            The user-supplied DQ.
        encoding : `~core.product.Encoding`
            How the science pixels are written.
        cause : str
            Who asks.
        pinned : bool
            Whether the request named the mask or user DQ.
        """
        label, sha1, context = reference
        return cls(
            input_bucket=source.location.bucket,
            input_key=shortened(source.location.key),
            input_etag=source.etag.strip('"'),
            input_version=source.version_id or "",
            mask=shortened(label or NO_MASK),
            mask_sha1=sha1,
            user_dq_etag=user_dq.etag.strip('"') if user_dq else "",
            science_encoding=encoding.value,
            software_version=__version__,
            pinned=pinned,
            crds_context=context,
            input_modified=source.last_modified or "",
            cause=shortened(cause),
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Provenance | None":
        """Read the metadata of an object; None if it is not a product of ours.

        What an earlier release did not write is empty: the product was made otherwise.
        """
        if not {"input-bucket", "input-key", "software-version"} <= metadata.keys():
            return None
        names = (field.name for field in fields(cls))
        values = {name: unquote(metadata.get(name.replace("_", "-"), "")) for name in names}
        pinned = _is_pinned(values.pop("pinned"), values)
        return cls(**values, pinned=pinned)

    def to_metadata(self) -> dict[str, str]:
        """Return the product's metadata."""
        values = {**asdict(self), "pinned": "true" if self.pinned else "false"}
        return {name.replace("_", "-"): quote(v, safe=_PLAIN) for name, v in values.items()}

    def is_of_input(self, bucket: str, key: str) -> bool:
        """Say whether the product is one of an exposure, in whatever version."""
        return (self.input_bucket, self.input_key) == (bucket, shortened(key))

    def is_of_version(self, other: "Provenance") -> bool:
        """Say whether two products of one exposure are of the same version of it."""
        own = (self.input_version, self.input_etag)
        return own == (other.input_version, other.input_etag)

    @property
    def input_uri(self) -> str:
        """Where the exposure lies."""
        return f"s3://{self.input_bucket}/{self.input_key}"


def _is_pinned(pinned: str, values: Mapping[str, str]) -> bool:
    """Read ``pinned``; releases before it wrote such a mask's own URI, and the user DQ's ETag."""
    if pinned:
        return pinned == "true"
    return values["mask"].startswith("s3://") or bool(values["user_dq_etag"])


def shortened(text: str) -> str:
    """Return a text as it is recorded: as it is, or its beginning and its digest if it is long."""
    if len(quote(text, safe=_PLAIN)) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[:32]}...sha256:{digest}"
