"""S3: ranged reads of an object, and the execution of a layout."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import InputRejected, TransientFailure
from core.layout import Layout
from handler.errors import failures_of
from handler.locations import S3Location

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["ObjectStore", "StoredObject"]

MIB = 1024 * 1024
_WINDOW = 128 * 1024
"""Bytes fetched for a header: most primary headers and the next one fit into one request."""
_PART = 8 * MIB
"""Bytes of a part, and so of what is held in memory at a time."""
_MOST_PARTS = 10_000


@dataclass(frozen=True)
class StoredObject:
    """An object as S3 describes it; reads are pinned to this very state of it.

    Attributes
    ----------
    location : `~handler.locations.S3Location`
        Where it lies, with its version if the bucket is versioned.
    etag : str
        Its entity tag, in quotes. Not a checksum of the content.
    size : int
        Bytes.
    metadata : dict of str to str
        Its user-defined metadata.
    """

    location: S3Location
    etag: str
    size: int
    metadata: dict[str, str]


@dataclass
class ObjectStore:
    """S3, for the length of one exposure; it counts the bytes that pass through the function.

    Attributes
    ----------
    client : boto3 S3 client
        How to reach it.
    received, sent : int
        Bytes of content moved in and out.
    """

    client: "S3Client"
    received: int = 0
    sent: int = 0
    _window: tuple[int, bytes] = field(default=(0, b""), repr=False)

    def describe(self, location: S3Location, missing: type[Exception]) -> StoredObject:
        """Look an object up.

        Raises
        ------
        Exception
            `missing`, if it is not there.
        """
        with failures_of(f"{location}: looking it up", missing):
            answer = self.client.head_object(**_address(location))
        return StoredObject(
            location=S3Location(location.bucket, location.key, _version(answer)),
            etag=answer["ETag"],
            size=answer["ContentLength"],
            metadata=answer["Metadata"],
        )

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
                **_address(source.location),
                IfMatch=source.etag,
                Range=f"bytes={start}-{stop - 1}",
            )
            content = answer["Body"].read()
        self.received += len(content)
        if len(content) != stop - start:
            raise TransientFailure(
                f"{source.location}: S3 answered {len(content)} bytes, expected {stop - start}"
            )
        return content

    def read_headers(self, source: StoredObject, start: int, length: int) -> bytes:
        """Read a few bytes of an object, fetching a window around them at a time."""
        first, window = self._window
        if not first <= start <= start + length <= first + len(window):
            first, window = start, self.read(source, start, max(length, _WINDOW))
            self._window = (first, window)
        return window[start - first : start - first + length]

    def write(
        self, layout: Layout, source: StoredObject, target: S3Location, metadata: dict[str, str]
    ) -> StoredObject:
        """Execute a layout: write the product, whole or not at all, and check that it is there.

        Parameters
        ----------
        layout : `~core.layout.Layout`
            The product.
        source : `StoredObject`
            The input that the layout refers to.
        target : `~handler.locations.S3Location`
            Where the product goes.
        metadata : dict of str to str
            User-defined metadata of the product.

        Returns
        -------
        `StoredObject`
            The product.

        Raises
        ------
        TransientFailure
            If S3 cannot be reached, the input was replaced meanwhile, or the product has the
            wrong length.
        """
        if layout.length <= _PART:
            self._put(b"".join(self._content(layout, source, _PART)), target, metadata)
        else:
            self._upload(layout, source, target, metadata)
        product = self.describe(target, missing=TransientFailure)
        if product.size != layout.length or product.metadata != metadata:
            raise TransientFailure(
                f"{target}: has {product.size} bytes and metadata {product.metadata}, "
                f"expected {layout.length} bytes and {metadata}"
            )
        return product

    def _put(self, content: bytes, target: S3Location, metadata: dict[str, str]) -> None:
        with failures_of(f"{target}: writing it", TransientFailure):
            self.client.put_object(
                **_address(target),
                Body=content,
                Metadata=metadata,
                ContentType=_CONTENT_TYPE,
                ChecksumAlgorithm="CRC32",
            )
        self.sent += len(content)

    def _upload(
        self, layout: Layout, source: StoredObject, target: S3Location, metadata: dict[str, str]
    ) -> None:
        """Stream the layout as a multipart upload."""
        part_bytes = max(_PART, -(-layout.length // _MOST_PARTS))
        with self._multipart(target, metadata, layout.length) as (upload, parts):
            for part in _joined(self._content(layout, source, part_bytes), part_bytes):
                number = len(parts) + 1
                answer = self.client.upload_part(
                    **_address(target),
                    UploadId=upload,
                    PartNumber=number,
                    Body=part,
                    ChecksumAlgorithm="CRC32",
                )
                parts.append(
                    {
                        "PartNumber": number,
                        "ETag": answer["ETag"],
                        "ChecksumCRC32": answer["ChecksumCRC32"],
                    }
                )
                self.sent += len(part)

    @contextmanager
    def _multipart(
        self, target: S3Location, metadata: dict[str, str], length: int
    ) -> Iterator[tuple[str, list[Any]]]:
        """Open a multipart upload; complete it if all goes well, else leave nothing behind."""
        with failures_of(f"{target}: writing it", TransientFailure):
            upload = self.client.create_multipart_upload(
                **_address(target),
                Metadata=metadata,
                ContentType=_CONTENT_TYPE,
                ChecksumAlgorithm="CRC32",
                ChecksumType="FULL_OBJECT",
            )["UploadId"]
            parts: list[Any] = []
            try:
                yield upload, parts
                self.client.complete_multipart_upload(
                    **_address(target),
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                    ChecksumType="FULL_OBJECT",
                    MpuObjectSize=length,
                )
            except BaseException:
                self.client.abort_multipart_upload(**_address(target), UploadId=upload)
                raise

    def _content(self, layout: Layout, source: StoredObject, most: int) -> Iterator[Any]:
        """The bytes of the product in order, in bounded pieces."""
        for piece in layout.pieces(most):
            wanted = piece.source
            yield piece.render(
                self.read(source, wanted.start, wanted.length) if wanted is not None else b""
            )


_CONTENT_TYPE = "application/fits"  # registered by RFC 4047


def _address(location: S3Location) -> dict[str, Any]:
    address = {"Bucket": location.bucket, "Key": location.key}
    if location.version_id is not None:
        address["VersionId"] = location.version_id
    return address


def _version(answer: Any) -> str | None:
    """The version that S3 names; objects of an unversioned bucket have none."""
    version: str | None = answer.get("VersionId")
    return None if version == "null" else version


def _joined(content: Iterator[Any], part_bytes: int) -> Iterator[bytes]:
    """Cut a stream of pieces into parts of equal length; the last takes what is left."""
    part = io.BytesIO()
    for piece in content:
        rest = memoryview(piece)
        while rest:
            room = part_bytes - part.tell()
            part.write(rest[:room])
            rest = rest[room:]
            if part.tell() == part_bytes:
                yield part.getvalue()
                part = io.BytesIO()
    if part.tell():
        yield part.getvalue()
