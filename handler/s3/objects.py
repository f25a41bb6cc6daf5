"""What an object is, and reads of it, in ranges or as a whole."""

import threading
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from handler.s3.errors import failures_of, is_missing

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client

__all__ = [
    "ObjectBody",
    "ObjectStore",
    "S3Location",
    "StoredObject",
    "Window",
    "agree_to_pay",
    "version_of",
]

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
    def as_kwargs(self) -> dict[str, Any]:
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


_READS = ("HeadObject", "GetObject", "UploadPartCopy", "ListObjectsV2")


def agree_to_pay(s3: "S3Client", buckets: Collection[str]) -> None:
    """Have a client say with every read of these buckets that the requester pays.

    Parameters
    ----------
    s3 : boto3 S3 client
        The client; nothing else of it changes.
    buckets : collection of str
        Names.
    """

    def agree(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        source = params.get("CopySource")
        read = source["Bucket"] if isinstance(source, dict) else params.get("Bucket")
        return {**params, "RequestPayer": "requester"} if read in buckets else params

    for operation in _READS if buckets else ():
        s3.meta.events.register(f"provide-client-params.s3.{operation}", agree)  # type: ignore[arg-type]


_WINDOW = 128 * 1024
"""Bytes fetched for a header: most primary headers and the next one fit into one request."""
_PIECE = 8 * 1024 * 1024
"""Bytes of a whole object that are held at a time."""


@dataclass(frozen=True)
class StoredObject:
    """An object as S3 describes it; reads and copies are pinned to this state by its ETag.

    Attributes
    ----------
    location : `~handler.s3.objects.S3Location`
        Where it lies; with a version only where the request for it named one.
    etag : str
        Its entity tag, in quotes. Not a checksum of the content.
    size : int
        Bytes.
    metadata : dict of str to str
        Its user-defined metadata.
    version_id : str or None
        Its version, where the bucket has versions.
    last_modified : str or None
        ISO 8601, UTC.
    crc32 : str or None
        Its CRC-32, in base64, where S3 has one of the whole object.
    """

    location: S3Location
    etag: str
    size: int
    metadata: dict[str, str]
    version_id: str | None = None
    last_modified: str | None = None
    crc32: str | None = None


@dataclass(frozen=True)
class ObjectBody:
    """An object whose content is on its way.

    Attributes
    ----------
    described : `StoredObject`
        The object.
    pieces : iterator of bytes
        Its content, from the beginning.
    """

    described: StoredObject
    pieces: Iterator[bytes]


@dataclass
class ObjectStore:
    """S3, for the length of one exposure; it counts the bytes that pass through the function.

    Attributes
    ----------
    client : boto3 S3 client
        How to reach it.
    received, sent : int
        Bytes of content moved in and out. Copies within S3 do not count.
    """

    client: "S3Client"
    received: int = 0
    sent: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def describe(self, location: S3Location, unavailable: type[Exception]) -> StoredObject:
        """Look an object up.

        Raises
        ------
        Exception
            `unavailable`, if it is not there or may not be read.
        """
        with failures_of(f"{location}: looking it up", unavailable):
            return self._head(location)

    def find(self, location: S3Location) -> StoredObject | None:
        """Look an object up that may not be there."""
        with failures_of(f"{location}: looking it up"):
            try:
                return self._head(location)
            except ClientError as exc:
                if is_missing(exc):
                    return None
                raise

    def read(
        self,
        source: StoredObject,
        start: int,
        length: int,
        unavailable: type[Exception] | None = None,
    ) -> bytes:
        """Read a byte range of an object, less where the object ends.

        Raises
        ------
        Exception
            `unavailable`, if the object has been deleted meanwhile or may not be read.
        TransientFailure
            If it was replaced meanwhile, or S3 cannot be reached.
        """
        stop = min(start + length, source.size)
        if stop <= start:
            return b""
        with failures_of(f"{source.location}: reading bytes {start} to {stop}", unavailable):
            answer = self.client.get_object(
                **source.location.as_kwargs,
                IfMatch=source.etag,
                Range=f"bytes={start}-{stop - 1}",
            )
            content = answer["Body"].read()
        self.count(received=len(content))
        if len(content) != stop - start:
            raise TransientFailure(
                f"{source.location}: S3 answered {len(content)} bytes, expected {stop - start}"
            )
        return content

    @contextmanager
    def open(self, location: S3Location, unavailable: type[Exception]) -> Iterator[ObjectBody]:
        """Look an object up and read it as a whole, in one request.

        Raises
        ------
        Exception
            `unavailable`, if it is not there or may not be read.
        TransientFailure
            If S3 cannot be reached or its answer breaks off, also while the pieces are taken.
        """
        with failures_of(f"{location}: reading it", unavailable):
            answer = self.client.get_object(**location.as_kwargs)
        with closing(answer["Body"]) as body:
            yield ObjectBody(_described(location, answer), self._pieces(location, body))

    def count(self, received: int = 0, sent: int = 0) -> None:
        """Count bytes that passed through the function; parts are moved side by side."""
        with self._counting:
            self.received += received
            self.sent += sent

    def _head(self, location: S3Location) -> StoredObject:
        answer = self.client.head_object(**location.as_kwargs, ChecksumMode="ENABLED")
        return _described(location, answer)

    def _pieces(self, location: S3Location, body: "StreamingBody") -> Iterator[bytes]:
        while True:
            with failures_of(f"{location}: reading it"):
                content = body.read(_PIECE)
            if not content:
                return
            self.count(received=len(content))
            yield content


@dataclass
class Window:
    """Reads a few bytes of an object at a time, fetching what lies around them, too."""

    store: ObjectStore
    source: StoredObject
    unavailable: type[Exception]
    _first: int = 0
    _content: bytes = field(default=b"", repr=False)

    def read(self, start: int, length: int) -> bytes:
        """Read a byte range, less where the object ends."""
        if not self._first <= start <= start + length <= self._first + len(self._content):
            wanted = max(length, _WINDOW)
            self._content = self.store.read(self.source, start, wanted, self.unavailable)
            self._first = start
        return self._content[start - self._first : start - self._first + length]


def _described(location: S3Location, answer: Any) -> StoredObject:
    """What S3's answer says of an object."""
    return StoredObject(
        location=location,
        etag=answer["ETag"],
        size=answer["ContentLength"],
        metadata=answer["Metadata"],
        version_id=version_of(answer),
        last_modified=answer["LastModified"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        crc32=_crc32_of_whole(answer),
    )


def _crc32_of_whole(answer: Any) -> str | None:
    """A composite checksum is one of the parts' checksums, not of the content."""
    crc32: str | None = answer.get("ChecksumCRC32")
    return None if answer.get("ChecksumType") == "COMPOSITE" else crc32
