"""S3: what an object is, and reads of it, in ranges or as a whole."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import InputRejected, TransientFailure
from handler.s3.errors import failures_of
from handler.s3.locations import S3Location

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client

__all__ = ["Arriving", "ObjectStore", "StoredObject", "address"]

_WINDOW = 128 * 1024
"""Bytes fetched for a header: most primary headers and the next one fit into one request."""
_PIECE = 8 * 1024 * 1024
"""Bytes of a whole object that are held at a time."""


@dataclass(frozen=True)
class StoredObject:
    """An object as S3 describes it; reads are pinned to this very state of it.

    Attributes
    ----------
    location : `~handler.s3.locations.S3Location`
        Where it lies, with its version if the bucket is versioned.
    etag : str
        Its entity tag, in quotes. Not a checksum of the content.
    size : int
        Bytes.
    metadata : dict of str to str
        Its user-defined metadata.
    crc32 : str or None
        Its CRC-32, in base64, where S3 has one of the whole object.
    """

    location: S3Location
    etag: str
    size: int
    metadata: dict[str, str]
    crc32: str | None = None


@dataclass(frozen=True)
class Arriving:
    """An object whose content is on its way.

    Attributes
    ----------
    stored : `StoredObject`
        The object.
    pieces : iterator of bytes
        Its content, from the beginning.
    """

    stored: StoredObject
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
    _window: tuple[int, bytes] = field(default=(0, b""), repr=False)

    def describe(self, location: S3Location, missing: type[Exception]) -> StoredObject:
        """Look an object up.

        Raises
        ------
        Exception
            `missing`, if it is not there.
        """
        with failures_of(f"{location}: looking it up", missing):
            answer = self.client.head_object(**address(location), ChecksumMode="ENABLED")
        return _described(location, answer)

    def find(self, location: S3Location) -> StoredObject | None:
        """Look an object up that may not be there."""
        try:
            return self.describe(location, missing=FileNotFoundError)
        except FileNotFoundError:
            return None

    def read(self, source: StoredObject, start: int, length: int) -> bytes:
        """Read a byte range of an object, less where the object ends.

        Raises
        ------
        InputRejected
            If the object has been deleted meanwhile.
        TransientFailure
            If it was replaced meanwhile, or S3 cannot be reached.
        """
        stop = min(start + length, source.size)
        if stop <= start:
            return b""
        with failures_of(f"{source.location}: reading bytes {start} to {stop}", InputRejected):
            answer = self.client.get_object(
                **address(source.location),
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
    def open(self, location: S3Location, missing: type[Exception]) -> Iterator[Arriving]:
        """Look an object up and read it as a whole, in one request.

        Raises
        ------
        Exception
            `missing`, if it is not there.
        TransientFailure
            If S3 cannot be reached or its answer breaks off, also while the pieces are taken.
        """
        with failures_of(f"{location}: reading it", missing):
            answer = self.client.get_object(**address(location))
        with closing(answer["Body"]) as body:
            yield Arriving(_described(location, answer), self._pieces(location, body))

    def _pieces(self, location: S3Location, body: "StreamingBody") -> Iterator[bytes]:
        while True:
            with failures_of(f"{location}: reading it", TransientFailure):
                content = body.read(_PIECE)
            if not content:
                return
            self.count(received=len(content))
            yield content

    def read_headers(self, source: StoredObject, start: int, length: int) -> bytes:
        """Read a few bytes of an object, fetching a window around them at a time."""
        first, window = self._window
        if not first <= start <= start + length <= first + len(window):
            first, window = start, self.read(source, start, max(length, _WINDOW))
            self._window = (first, window)
        return window[start - first : start - first + length]

    def count(self, received: int = 0, sent: int = 0) -> None:
        """Count bytes that passed through the function; parts are moved side by side."""
        with self._counting:
            self.received += received
            self.sent += sent


def address(location: S3Location) -> dict[str, Any]:
    """Return an object's address as the S3 client takes it."""
    parts = {"Bucket": location.bucket, "Key": location.key}
    if location.version_id is not None:
        parts["VersionId"] = location.version_id
    return parts


def _described(location: S3Location, answer: Any) -> StoredObject:
    """What S3's answer says of an object."""
    return StoredObject(
        location=S3Location(location.bucket, location.key, _version(answer)),
        etag=answer["ETag"],
        size=answer["ContentLength"],
        metadata=answer["Metadata"],
        crc32=_crc32_of_whole(answer),
    )


def _crc32_of_whole(answer: Any) -> str | None:
    """A composite checksum is one of the parts' checksums, not of the content."""
    crc32: str | None = answer.get("ChecksumCRC32")
    return None if answer.get("ChecksumType") == "COMPOSITE" else crc32


def _version(answer: Any) -> str | None:
    """The version that S3 names; objects of an unversioned bucket have none."""
    version: str | None = answer.get("VersionId")
    return None if version == "null" else version
