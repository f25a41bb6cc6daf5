"""Conditional writes of S3 objects: one PUT, or a multipart upload."""

import base64
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from zlib_ng import zlib_ng

from core.errors import TransientFailure
from handler.s3.errors import (
    NETWORK,
    describe_denial,
    error_code,
    is_conflict,
    is_denied,
    is_transient,
    translate_errors,
)
from handler.s3.objects import ObjectStore, S3Location, StoredObject, version_of

log = logging.getLogger(__name__)

ABSENT: Mapping[str, str] = {"IfNoneMatch": "*"}
CompletedPart = dict[str, Any]


def unchanged(etag: str | None) -> Mapping[str, str]:
    """Return the precondition of a write: the object has this ETag; None: it does not exist."""
    return ABSENT if etag is None else {"IfMatch": etag}


@dataclass(frozen=True)
class Target:
    """The key, metadata and precondition of a write."""

    location: S3Location
    metadata: dict[str, str]  # ASCII without blanks at the ends, as S3 keeps it
    condition: Mapping[str, str]
    content_type: str = "application/fits"  # RFC 4047


class WriteConflict(Exception):
    """A failed write: its precondition failed, or a transient error occurred.

    The object may have been written: look it up.
    """


def put(content: bytes, target: Target, store: ObjectStore) -> StoredObject:
    """Write an object with one request.

    Raises `WriteConflict` if the precondition fails or a transient error occurs.
    """
    with _conflicts(target.location):
        response = store.client.put_object(
            **target.location.as_kwargs,
            Body=content,
            Metadata=target.metadata,
            ContentType=target.content_type,
            ChecksumCRC32=crc32_of([content]),
            **target.condition,  # type: ignore[arg-type]
        )
    store.count(sent=len(content))
    return _written(target, len(content), response)


@contextmanager
def multipart(target: Target, store: ObjectStore) -> Iterator["MultipartUpload"]:
    """Yield a multipart upload while S3 starts it; abort it unless it was completed."""
    with ThreadPoolExecutor(1) as threads:
        upload = MultipartUpload(target, threads.submit(_start, target, store), store)
        try:
            yield upload
        finally:
            if not upload.is_completed:
                upload.abort()


def _start(target: Target, store: ObjectStore) -> str:
    with translate_errors(f"{target.location}: writing it"):
        response = store.client.create_multipart_upload(
            **target.location.as_kwargs,
            Metadata=target.metadata,
            ContentType=target.content_type,
            ChecksumAlgorithm="CRC32",
            ChecksumType="FULL_OBJECT",
        )
    return response["UploadId"]


@dataclass
class MultipartUpload:
    """A multipart upload that `multipart` starts; its methods wait until it is started."""

    target: Target
    started: Future[str]
    store: ObjectStore
    is_completed: bool = False

    @property
    def upload_id(self) -> str:
        """The ID of the upload, once S3 has started it; raises the error if that failed."""
        return self.started.result()

    def put(self, number: int, content: bytes) -> CompletedPart:
        """Upload part `number`; return the description of it that `complete` takes."""
        with translate_errors(f"{self.target.location}: writing it"):
            response = self.store.client.upload_part(
                **self._kwargs,
                PartNumber=number,
                Body=content,
                ChecksumCRC32=crc32_of([content]),
            )
        self.store.count(sent=len(content))
        return _completed(number, response)

    def copy(
        self, number: int, source: S3Location, etag: str, first: int, length: int
    ) -> CompletedPart:
        """Copy `length` bytes of `source`, from byte `first` on, as part `number`.

        Returns the description that `complete` takes. Raises `TransientFailure` if `source` is
        missing or its ETag is not `etag`.
        """
        with translate_errors(f"{source}: copying from it", TransientFailure):
            response = self.store.client.upload_part_copy(
                **self._kwargs,
                PartNumber=number,
                CopySource=source.as_kwargs,  # type: ignore[arg-type]
                CopySourceRange=f"bytes={first}-{first + length - 1}",
                CopySourceIfMatch=etag,
            )
        return _completed(number, response["CopyPartResult"])

    def complete(self, parts: Sequence[CompletedPart], length: int) -> StoredObject:
        """Complete the upload; return the object, or raise `WriteConflict` as `put` does."""
        with _conflicts(self.target.location):
            response = self.store.client.complete_multipart_upload(
                **self._kwargs,
                MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
                ChecksumType="FULL_OBJECT",
                MpuObjectSize=length,
                **self.target.condition,  # type: ignore[arg-type]
            )
        self.is_completed = True
        return _written(self.target, length, response)

    def abort(self) -> None:
        """Abort the upload if it exists; only log a failure, because an earlier error is raised."""
        if self.started.exception():
            return
        try:
            self.store.client.abort_multipart_upload(**self._kwargs)
        except Exception as exc:
            if isinstance(exc, ClientError) and error_code(exc) == "NoSuchUpload":
                return
            log.warning(
                "%s: upload %s could not be aborted; the bucket's lifecycle rule removes it: %s",
                self.target.location,
                self.upload_id,
                describe_denial(exc) if isinstance(exc, ClientError) and is_denied(exc) else exc,
            )

    @property
    def _kwargs(self) -> dict[str, Any]:
        return {**self.target.location.as_kwargs, "UploadId": self.upload_id}


def crc32_of(pieces: Iterable[bytes | memoryview]) -> str:
    """Return the CRC-32 of the joined pieces in base64, as S3 writes it."""
    # botocore computes no checksum if it is given one; Python's zlib is several times slower.
    value = 0
    for piece in pieces:
        value = zlib_ng.crc32(piece, value)
    return base64.b64encode(value.to_bytes(4, "big")).decode()


@contextmanager
def _conflicts(location: S3Location) -> Iterator[None]:
    """Raise an AWS error as `WriteConflict` if it is transient or the precondition failed."""
    with translate_errors(f"{location}: writing it"):
        try:
            yield
        except (ClientError, *NETWORK) as exc:
            # NoSuchUpload is transient: botocore repeats a completion whose response was lost.
            if is_transient(exc) or (isinstance(exc, ClientError) and is_conflict(exc)):
                raise WriteConflict(f"{location}: {exc}") from exc
            raise


def _written(target: Target, size: int, response: Any) -> StoredObject:
    version = version_of(response)
    return StoredObject(target.location, response["ETag"], size, target.metadata, version)


def _completed(number: int, response: Any) -> CompletedPart:
    part = {"PartNumber": number, "ETag": response["ETag"]}
    if checksum := response.get("ChecksumCRC32"):  # not every S3 server returns one
        part["ChecksumCRC32"] = checksum
    return part
