"""Writing an object: in one request, or as a multipart upload; whole, or not at all.

Every write has a condition, the state of the place that was found before, so that of two writers
one wins and the other learns of it.
"""

import base64
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError
from zlib_ng import zlib_ng

from core.errors import TransientFailure
from handler.s3.errors import (
    CONFLICTS,
    NETWORK,
    code_of,
    denial_of,
    failures_of,
    is_denied,
    is_transient,
)
from handler.s3.objects import S3Location, version_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = [
    "ABSENT",
    "CompletedPart",
    "MultipartUpload",
    "Target",
    "WriteConflict",
    "Written",
    "crc32_of",
    "multipart",
    "put",
    "unchanged",
]

log = logging.getLogger(__name__)

ABSENT: Mapping[str, str] = {"IfNoneMatch": "*"}
"""The condition that nothing is there."""

CompletedPart = dict[str, Any]


def unchanged(etag: str | None) -> Mapping[str, str]:
    """Return the condition that what was found is still there; None: that nothing is."""
    return ABSENT if etag is None else {"IfMatch": etag}


class Sender(Protocol):
    """S3, and the count of the bytes that are sent to it."""

    client: "S3Client"

    def count(self, received: int = 0, sent: int = 0) -> None:
        """Count bytes."""


@dataclass(frozen=True)
class Written:
    """What S3 answers of an object that was written: its entity tag and, if any, its version."""

    etag: str
    version_id: str | None


class WriteConflict(Exception):
    """It is not known that the object was written: look what is there.

    Somebody else was faster, or the write succeeded and its answer was lost.
    """


@dataclass(frozen=True)
class Target:
    """What is to be written.

    Attributes
    ----------
    location : `~handler.s3.objects.S3Location`
        Where.
    metadata : dict of str to str
        Its user-defined metadata, as S3 keeps it: ASCII without blanks at the ends.
    condition : mapping of str to str
        ``IfNoneMatch`` or ``IfMatch``: what is there otherwise is left alone.
    content_type : str
        Its media type; FITS is registered by RFC 4047.
    """

    location: S3Location
    metadata: dict[str, str]
    condition: Mapping[str, str]
    content_type: str = "application/fits"


def put(content: bytes, target: Target, store: Sender) -> Written:
    """Write an object in one request.

    Raises
    ------
    WriteConflict
        If it is not known that the object was written.
    """
    with _writing(target.location), _conflicts(target.location):
        answer = store.client.put_object(
            **target.location.as_kwargs,
            Body=content,
            Metadata=target.metadata,
            ContentType=target.content_type,
            ChecksumCRC32=crc32_of([content]),
            **target.condition,  # type: ignore[arg-type]
        )
    store.count(sent=len(content))
    return Written(answer["ETag"], version_of(answer))


@dataclass(frozen=True)
class MultipartUpload:
    """A multipart upload that is going on; `multipart` opens one.

    Attributes
    ----------
    target : `Target`
        What is written.
    upload_id : str
        S3's name for the upload.
    store : `Sender`
        How to reach S3.
    """

    target: Target
    upload_id: str
    store: Sender

    def put(self, number: int, content: bytes) -> CompletedPart:
        """Upload a part; return what the completion must say of it."""
        with _writing(self.target.location):
            answer = self.store.client.upload_part(
                **self._address,
                PartNumber=number,
                Body=content,
                ChecksumCRC32=crc32_of([content]),
            )
        self.store.count(sent=len(content))
        return _completed(number, answer)

    def copy(
        self, number: int, source: S3Location, etag: str, first: int, length: int
    ) -> CompletedPart:
        """Have S3 copy a byte range, pinned to the state of the object that was found.

        Raises
        ------
        TransientFailure
            If the object is not as it was, or S3 cannot be reached.
        """
        with failures_of(f"{source}: copying from it", TransientFailure):
            answer = self.store.client.upload_part_copy(
                **self._address,
                PartNumber=number,
                CopySource=source.as_kwargs,  # type: ignore[arg-type]
                CopySourceRange=f"bytes={first}-{first + length - 1}",
                CopySourceIfMatch=etag,
            )
        return _completed(number, answer["CopyPartResult"])

    def complete(self, parts: Sequence[CompletedPart], length: int) -> Written:
        """Let the object appear.

        Raises
        ------
        WriteConflict
            If it is not known that it did.
        """
        with _writing(self.target.location), _conflicts(self.target.location):
            answer = self.store.client.complete_multipart_upload(
                **self._address,
                MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
                ChecksumType="FULL_OBJECT",
                MpuObjectSize=length,
                **self.target.condition,  # type: ignore[arg-type]
            )
        return Written(answer["ETag"], version_of(answer))

    def abort(self) -> None:
        """Leave nothing behind; what goes wrong here never hides what went wrong before."""
        try:
            self.store.client.abort_multipart_upload(**self._address)
        except (ClientError, *NETWORK) as exc:
            log.warning(
                "%s: upload %s could not be aborted (the bucket's rule for abandoned uploads "
                "removes it): %s",
                self.target.location,
                self.upload_id,
                denial_of(exc) if isinstance(exc, ClientError) and is_denied(exc) else exc,
            )

    @property
    def _address(self) -> dict[str, Any]:
        return {**self.target.location.as_kwargs, "UploadId": self.upload_id}


@contextmanager
def multipart(target: Target, store: Sender) -> Iterator[MultipartUpload]:
    """Open a multipart upload; it is aborted if anything goes wrong before it is complete."""
    with _writing(target.location):
        answer = store.client.create_multipart_upload(
            **target.location.as_kwargs,
            Metadata=target.metadata,
            ContentType=target.content_type,
            ChecksumAlgorithm="CRC32",
            ChecksumType="FULL_OBJECT",
        )
    upload = MultipartUpload(target, answer["UploadId"], store)
    try:
        yield upload
    except BaseException:
        upload.abort()
        raise


def _writing(location: S3Location) -> AbstractContextManager[None]:
    """Name the object in every failure to write it."""
    return failures_of(f"{location}: writing it")


@contextmanager
def _conflicts(location: S3Location) -> Iterator[None]:
    """Tell what leaves it open whether the object is there from what does not."""
    try:
        yield
    except ClientError as exc:
        # botocore sends a completion again whose answer was lost; its upload is gone then. What
        # was to be replaced may have been deleted: S3 answers an If-Match then with NoSuchKey.
        if code_of(exc) in {*CONFLICTS, "NoSuchUpload", "NoSuchKey"} or is_transient(exc):
            raise WriteConflict(f"{location}: {exc}") from exc
        raise
    except NETWORK as exc:
        raise WriteConflict(f"{location}: {exc}") from exc


def crc32_of(pieces: Iterable[bytes | memoryview]) -> str:
    """Return the CRC-32 of a content as S3 writes it.

    That of Python's own zlib is several times slower than the rest of sending; botocore, which is
    handed this, computes none.
    """
    value = 0
    for piece in pieces:
        value = zlib_ng.crc32(piece, value)
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def _completed(number: int, answer: Any) -> CompletedPart:
    """What the completion must say of a part: its checksum too, where S3 has made one."""
    part = {"PartNumber": number, "ETag": answer["ETag"]}
    if answer.get("ChecksumCRC32"):
        part["ChecksumCRC32"] = answer["ChecksumCRC32"]
    return part
