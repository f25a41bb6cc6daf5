"""Where an S3 object lies."""

from dataclasses import dataclass
from typing import Any

__all__ = ["S3Location", "version_of"]

_SCHEME = "s3://"


@dataclass(frozen=True)
class S3Location:
    """A bucket and a key, or a bucket and a key prefix.

    Attributes
    ----------
    bucket, key : str
        As S3 takes them: the key is not URL-encoded.
    version_id : str or None
        A version of the object; None for the current one.
    """

    bucket: str
    key: str
    version_id: str | None = None

    @classmethod
    def parse(cls, uri: str) -> "S3Location":
        """Parse ``s3://bucket/key``; the key is everything after the first slash, verbatim.

        Raises
        ------
        ValueError
            If the scheme, the bucket or the key is missing.
        """
        bucket, key = _split(uri)
        if not bucket or not key:
            raise ValueError(f"{uri!r}: expected s3://bucket/key")
        return cls(bucket, key)

    @classmethod
    def parse_prefix(cls, uri: str) -> "S3Location":
        """Parse ``s3://bucket[/prefix]``; one slash at the end does not matter.

        Raises
        ------
        ValueError
            If the scheme or the bucket is missing, or the prefix is nothing but slashes.
        """
        bucket, prefix = _split(uri)
        if not bucket or (prefix and not prefix.strip("/")):
            raise ValueError(f"{uri!r}: expected s3://bucket[/prefix]")
        return cls(bucket, prefix.removesuffix("/"))

    def below(self, *parts: str) -> "S3Location":
        """The location of something below this prefix."""
        return S3Location(self.bucket, "/".join(part for part in (self.key, *parts) if part))

    @property
    def address(self) -> dict[str, Any]:
        """An object's address as the S3 client takes it."""
        parts = {"Bucket": self.bucket, "Key": self.key}
        if self.version_id is not None:
            parts["VersionId"] = self.version_id
        return parts

    def __str__(self) -> str:
        version = f"?versionId={self.version_id}" if self.version_id else ""
        return f"{_SCHEME}{self.bucket}{'/' * bool(self.key)}{self.key}{version}"


def _split(uri: str) -> tuple[str, str]:
    """Split at the first slash: a URL parser would end a key at `#` or `?`."""
    scheme, found, rest = uri.partition(_SCHEME)
    bucket, _, key = rest.partition("/")
    return (bucket, key) if found and not scheme else ("", "")


def version_of(answer: Any) -> str | None:
    """Return the version that an answer of S3 names; unversioned buckets have none."""
    version: str | None = answer.get("VersionId")
    return None if version == "null" else version
