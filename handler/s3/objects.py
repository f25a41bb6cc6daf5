"""S3 objects: locations, descriptions and reads."""

import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from handler.s3.errors import NO_BUCKET, error_code, is_missing, translate_errors

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_SCHEME = "s3://"
HEADERS = 128 * 1024  # most primary headers and the next one fit into one request
_NO_SUCH_RANGE = frozenset({"416", "InvalidRange"})
_READS = ("HeadObject", "GetObject", "UploadPartCopy", "ListObjectsV2")


@dataclass(frozen=True)
class S3Location:
    """A bucket and a key, or a bucket and a key prefix."""

    bucket: str
    key: str  # not URL-encoded
    version_id: str | None = None  # None: the current version

    @classmethod
    def parse(cls, uri: str) -> "S3Location":
        """Parse ``s3://bucket/key``, or raise ValueError."""
        bucket, key = _split(uri)
        if not bucket or not key:
            raise ValueError(f"{uri!r}: expected s3://bucket/key")
        return cls(bucket, key)

    @classmethod
    def parse_prefix(cls, uri: str) -> "S3Location":
        """Parse ``s3://bucket[/prefix]``, remove a slash at its end, or raise ValueError."""
        bucket, prefix = _split(uri)
        if not bucket or (prefix and not prefix.strip("/")):
            raise ValueError(f"{uri!r}: expected s3://bucket[/prefix]")
        return cls(bucket, prefix.removesuffix("/"))

    def below(self, *parts: str) -> "S3Location":
        """Return the location whose key is this key and the parts, joined by slashes."""
        return S3Location(self.bucket, "/".join(part for part in (self.key, *parts) if part))

    @property
    def as_kwargs(self) -> dict[str, Any]:
        """The parameters of the boto3 S3 client that name the object."""
        kwargs = {"Bucket": self.bucket, "Key": self.key}
        return kwargs if self.version_id is None else {**kwargs, "VersionId": self.version_id}

    def __str__(self) -> str:
        version = f"?versionId={self.version_id}" if self.version_id else ""
        return f"{_SCHEME}{self.bucket}{'/' * bool(self.key)}{self.key}{version}"


def _split(uri: str) -> tuple[str, str]:
    # A URL parser would end a key at # or ?, which are ordinary characters of a key.
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    return (bucket, key) if uri.startswith(_SCHEME) else ("", "")


@dataclass(frozen=True)
class StoredObject:
    """An object as S3 describes it; reads and copies fail if its ETag has changed."""

    location: S3Location  # with a version only if the request named one
    etag: str  # with quotes; not a checksum of the content
    size: int
    metadata: dict[str, str]
    version_id: str | None = None  # None: the object has no version ID
    last_modified: str | None = None  # ISO 8601, UTC; None in the answer to a write
    crc32: str | None = None  # base64, of the whole content; None if S3 names none


@dataclass
class ObjectStore:
    """S3 reads for one exposure; counts the bytes that pass through the function."""

    client: "S3Client"
    received: int = 0
    sent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def describe(self, location: S3Location, unavailable: type[Exception]) -> StoredObject:
        """Return an object's ETag, size and metadata, or raise `unavailable` if it is missing."""
        with translate_errors(f"{location}: looking it up", unavailable):
            return self._head(location)

    def find(self, location: S3Location) -> StoredObject | None:
        """Return an object's ETag, size and metadata; None if object or bucket is missing."""
        with translate_errors(f"{location}: looking it up"):
            try:
                return self._head(location)
            except ClientError as exc:
                if is_missing(exc):
                    return None
                raise

    def is_current(self, source: StoredObject) -> bool:
        """Say whether a version is the current one of its object; True if no version is named."""
        if source.location.version_id is None:
            return True
        now = self.find(replace(source.location, version_id=None))
        return now is not None and now.version_id == source.version_id

    def get(
        self, location: S3Location, limit: int, unavailable: type[Exception]
    ) -> tuple[bytes, str] | None:
        """Return content and ETag of an object; None if it does not exist.

        Raises `unavailable` if it has more than `limit` bytes or its bucket does not exist.
        """
        with translate_errors(f"{location}: reading it", unavailable):
            try:
                response = self.client.get_object(**location.as_kwargs)
            except ClientError as exc:
                if is_missing(exc) and error_code(exc) != NO_BUCKET:
                    return None
                raise
            with closing(response["Body"]) as body:
                size = response["ContentLength"]
                if size > limit:
                    raise unavailable(f"{location}: has {size:,} bytes, expected at most {limit:,}")
                content = body.read()
        self.count(received=len(content))
        return content, response["ETag"]

    def read(
        self,
        source: StoredObject,
        start: int,
        length: int,
        unavailable: type[Exception] | None = None,
    ) -> bytes:
        """Read a byte range, shorter at the end.

        Raises `TransientFailure` if the object was replaced or deleted: a retry finds its new
        state.
        """
        stop = min(start + length, source.size)
        if stop <= start:
            return b""
        task = f"{source.location}: reading bytes {start} to {stop}"
        with translate_errors(task, unavailable):
            try:
                response = self.client.get_object(
                    **source.location.as_kwargs,
                    IfMatch=source.etag,
                    Range=f"bytes={start}-{stop - 1}",
                )
            except ClientError as exc:
                if is_missing(exc):
                    text = f"{task}: the object was deleted meanwhile ({error_code(exc)}); retry"
                    raise TransientFailure(text) from exc
                raise
            content = response["Body"].read()
        self.count(received=len(content))
        if len(content) != stop - start:
            raise TransientFailure(
                f"{source.location}: S3 returned {len(content)} bytes, expected {stop - start}; "
                "retry"
            )
        return content

    def begin(
        self, location: S3Location, length: int, unavailable: type[Exception]
    ) -> "ObjectReader":
        """Read an object's first `length` bytes; return a reader that keeps them.

        Both raise `unavailable` if S3 lacks the object, and `TransientFailure` if a retry may help.
        """
        with translate_errors(f"{location}: reading it", unavailable):
            try:
                response = self.client.get_object(
                    **location.as_kwargs, Range=f"bytes=0-{length - 1}"
                )
            except ClientError as exc:
                if error_code(exc) not in _NO_SUCH_RANGE:
                    raise
                return ObjectReader(self, self._head(location), unavailable)  # it is empty
            with closing(response["Body"]) as body:
                content = body.read()
        self.count(received=len(content))
        if len(content) != (expected := response["ContentLength"]):
            raise TransientFailure(
                f"{location}: S3 returned {len(content)} bytes, expected {expected}; retry"
            )
        return ObjectReader(self, _description(location, response), unavailable, [(0, content)])

    def count(self, received: int = 0, sent: int = 0) -> None:
        """Add to the numbers of bytes received and sent; threads may call it at the same time."""
        with self._lock:
            self.received += received
            self.sent += sent

    def _head(self, location: S3Location) -> StoredObject:
        response = self.client.head_object(**location.as_kwargs, ChecksumMode="ENABLED")
        return _description(location, response)


@dataclass
class ObjectReader:
    """Reader of byte ranges of one state of an S3 object; bytes that it keeps are read once."""

    store: ObjectStore
    described: StoredObject
    unavailable: type[Exception]
    _kept: list[tuple[int, bytes]] = field(default_factory=list, repr=False)  # offset, content

    def read(self, start: int, length: int) -> bytes:
        """Read a byte range, shorter at the end; errors as of `ObjectStore.read`."""
        kept = self._kept_from(start, length)
        first = start + len(kept)
        return kept + self.store.read(self.described, first, length - len(kept), self.unavailable)

    def read_ahead(self, start: int, length: int) -> bytes:
        """Return a byte range as `read` does; keep the range and more for later reads."""
        size = self.described.size
        kept = self._kept_from(start, length)
        if len(kept) == min(length, max(size - start, 0)):
            return kept
        # The last HDU, of ASDF, is small. It is read at the same time, in case that large ones lie
        # between.
        last = max(size - HEADERS, start + max(length, HEADERS))
        with ThreadPoolExecutor(1) as thread:
            reading = thread.submit(self.read, last, HEADERS)
            content = self.read(start, max(length, HEADERS))
        self._kept += [(start, content), (last, reading.result())]
        return content[:length]

    def _kept_from(self, start: int, length: int) -> bytes:
        """Return the bytes from `start` on, at most `length`, that are kept in memory."""
        overlaps = (
            content[start - first : start - first + length]
            for first, content in self._kept
            if first <= start < first + len(content)
        )
        return max(overlaps, key=len, default=b"")


def enable_requester_pays(s3: "S3Client", buckets: Collection[str]) -> None:
    """Make an S3 client send ``RequestPayer`` with every read of these Requester Pays buckets."""

    def add_payer(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        source = params.get("CopySource")
        bucket = source["Bucket"] if isinstance(source, dict) else params.get("Bucket")
        return {**params, "RequestPayer": "requester"} if bucket in buckets else params

    for operation in _READS if buckets else ():
        s3.meta.events.register(f"provide-client-params.s3.{operation}", add_payer)  # type: ignore[arg-type]


def version_of(response: Any) -> str | None:
    """Return the version ID in an S3 response; None if there is none or it is "null"."""
    version: str | None = response.get("VersionId")
    return None if version == "null" else version


def _description(location: S3Location, response: Any) -> StoredObject:
    # A composite checksum is the checksum of the parts' checksums, not of the content.
    is_composite = response.get("ChecksumType") == "COMPOSITE"
    size = response.get("ContentRange", "").rpartition("/")[2] or response["ContentLength"]
    return StoredObject(
        location=location,
        etag=response["ETag"],
        size=int(size),
        metadata=response["Metadata"],
        version_id=version_of(response),
        last_modified=response["LastModified"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        crc32=None if is_composite else response.get("ChecksumCRC32"),
    )
