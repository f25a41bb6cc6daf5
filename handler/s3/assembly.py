"""Writing a product: the parts of a layout are uploaded, or copied by S3 on its own side.

What lies unchanged in the input, and what lies in a block of repeated planes, never passes through
the function. Parts are moved side by side, each in bounded memory; the object appears whole, when
all of them are there, or not at all.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from core.layout import Copied, Layout, Segment
from handler.s3.errors import code_of, failures_of
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore, StoredObject, address
from handler.s3.parts import CopiedPart, Part, Stretch, UploadedPart, plan

__all__ = ["Overtaken", "Target", "write"]

MIB = 1024 * 1024
_UPLOADS_AT_ONCE = 2
"""Each holds a part in memory and takes its share of one CPU; two fill the network."""
_COPIES_AT_ONCE = 8
"""Copies cost the function nothing but waiting."""
_PIECE = 16 * MIB
"""Bytes of a part that are made at a time: few requests cost less than little memory."""
_LEAST_SOURCE = 5 * MIB
"""S3 copies ranges of larger objects only."""
_CONTENT_TYPE = "application/fits"  # registered by RFC 4047

Keeper = Callable[[Segment], tuple[Stretch, StoredObject] | None]
"""Says where S3 has the bytes of a repeated segment, if it has them."""


class Overtaken(Exception):
    """Somebody else has written the object meanwhile; nothing of ours is left."""


@dataclass(frozen=True)
class Target:
    """What is to be written.

    Attributes
    ----------
    location : `~handler.s3.locations.S3Location`
        Where.
    metadata : dict of str to str
        Its user-defined metadata.
    condition : dict
        ``IfNoneMatch`` or ``IfMatch``: the state of the place that was found before; what is
        written to it otherwise is left alone.
    """

    location: S3Location
    metadata: dict[str, str]
    condition: dict[str, Any]


def write(
    layout: Layout, source: StoredObject | None, target: Target, store: ObjectStore, keeper: Keeper
) -> StoredObject:
    """Execute a layout: write the object, whole or not at all, and check that it is there.

    Parameters
    ----------
    layout : `~core.layout.Layout`
        The object's content.
    source : `~handler.s3.objects.StoredObject` or None
        The input that the layout refers to, if it refers to one.
    target : `Target`
        Where it goes.
    store : `~handler.s3.objects.ObjectStore`
        How to reach S3.
    keeper : callable
        Says where S3 has the bytes of a repeated segment.

    Returns
    -------
    `~handler.s3.objects.StoredObject`
        The object.

    Raises
    ------
    Overtaken
        If the place is not as it was found before.
    TransientFailure
        If S3 cannot be reached, the input was replaced meanwhile, or the object has the wrong
        length.
    """
    objects: dict[str, StoredObject] = {}
    stretches = [_stretch(segment, source, keeper, objects) for segment in layout.segments]
    parts = plan(stretches)
    with failures_of(f"{target.location}: writing it", TransientFailure), _overtaken():
        if len(parts) == 1 and isinstance(parts[0], UploadedPart):
            _put(_content(layout, parts[0], source, store), target, store)
        else:
            _assemble(layout, parts, source, target, store, objects)
    return _checked(target, layout.length, store)


def _stretch(
    segment: Segment,
    source: StoredObject | None,
    keeper: Keeper,
    objects: dict[str, StoredObject],
) -> Stretch:
    """What the planner needs to know of a segment; notes the object that holds its bytes."""
    if isinstance(segment, Copied) and source is not None and source.size > _LEAST_SOURCE:
        key = str(source.location)
        objects[key] = source
        return Stretch(segment.length, key, segment.start)
    kept = keeper(segment)
    if kept is None:
        return Stretch(segment.length)
    stretch, block = kept
    objects[str(block.location)] = block
    return stretch


def _content(
    layout: Layout, part: UploadedPart, source: StoredObject | None, store: ObjectStore
) -> bytearray:
    """Make the bytes of a part, reading what it needs of the input."""
    content = bytearray(part.stop - part.start)
    out, position = memoryview(content), 0
    for piece in layout.pieces(_PIECE, part.start, part.stop):
        wanted = piece.source
        read = b""
        if wanted is not None and source is not None:
            read = store.read(source, wanted.start, wanted.length)
        piece.render(read, out[position : position + piece.length])
        position += piece.length
    return content


def _put(content: bytearray, target: Target, store: ObjectStore) -> None:
    store.client.put_object(
        **address(target.location),
        Body=bytes(content),
        Metadata=target.metadata,
        ContentType=_CONTENT_TYPE,
        ChecksumAlgorithm="CRC32",
        **target.condition,
    )
    store.count(sent=len(content))


def _assemble(
    layout: Layout,
    parts: list[Part],
    source: StoredObject | None,
    target: Target,
    store: ObjectStore,
    objects: Mapping[str, StoredObject],
) -> None:
    """Move all parts side by side in one multipart upload."""
    with _multipart(target, layout.length, store) as (upload, done):

        def move(number: int, part: Part) -> dict[str, Any]:
            if isinstance(part, CopiedPart):
                return _copy(part, number, upload, target, store, objects[part.key])
            content = _content(layout, part, source, store)
            return _upload(content, number, upload, target, store)

        with (
            ThreadPoolExecutor(_UPLOADS_AT_ONCE) as uploads,
            ThreadPoolExecutor(_COPIES_AT_ONCE) as copies,
        ):
            pools = {UploadedPart: uploads, CopiedPart: copies}
            moving = [pools[type(part)].submit(move, n, part) for n, part in enumerate(parts, 1)]
            try:
                done += [future.result() for future in moving]
            except BaseException:
                for pool in pools.values():
                    pool.shutdown(wait=False, cancel_futures=True)
                raise


def _upload(
    content: bytearray, number: int, upload: str, target: Target, store: ObjectStore
) -> dict[str, Any]:
    answer = store.client.upload_part(
        **address(target.location),
        UploadId=upload,
        PartNumber=number,
        Body=content,  # type: ignore[arg-type]  # botocore takes a bytearray
        ChecksumAlgorithm="CRC32",
    )
    store.count(sent=len(content))
    return _completed(number, answer)


def _copy(
    part: CopiedPart,
    number: int,
    upload: str,
    target: Target,
    store: ObjectStore,
    source: StoredObject,
) -> dict[str, Any]:
    """Have S3 copy a byte range, pinned to the state of the object that was found."""
    answer = store.client.upload_part_copy(
        **address(target.location),
        UploadId=upload,
        PartNumber=number,
        CopySource=address(source.location),  # type: ignore[arg-type]
        CopySourceRange=f"bytes={part.first}-{part.first + part.stop - part.start - 1}",
        CopySourceIfMatch=source.etag,
    )
    return _completed(number, answer["CopyPartResult"])


def _completed(number: int, answer: Any) -> dict[str, Any]:
    """What the completion must say of a part: its checksum too, where S3 has made one."""
    part = {"PartNumber": number, "ETag": answer["ETag"]}
    if answer.get("ChecksumCRC32"):
        part["ChecksumCRC32"] = answer["ChecksumCRC32"]
    return part


@contextmanager
def _multipart(
    target: Target, length: int, store: ObjectStore
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Open a multipart upload; complete it if all goes well, else leave nothing behind."""
    place = address(target.location)
    upload = store.client.create_multipart_upload(
        **place,
        Metadata=target.metadata,
        ContentType=_CONTENT_TYPE,
        ChecksumAlgorithm="CRC32",
        ChecksumType="FULL_OBJECT",
    )["UploadId"]
    parts: list[dict[str, Any]] = []
    try:
        yield upload, parts
        store.client.complete_multipart_upload(
            **place,
            UploadId=upload,
            MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
            ChecksumType="FULL_OBJECT",
            MpuObjectSize=length,
            **target.condition,
        )
    except BaseException:
        store.client.abort_multipart_upload(**place, UploadId=upload)
        raise


@contextmanager
def _overtaken() -> Iterator[None]:
    """Tell a failed condition on the target from one on the input."""
    try:
        yield
    except ClientError as exc:
        writing = exc.operation_name in {"PutObject", "CompleteMultipartUpload"}
        if writing and code_of(exc) in {"412", "PreconditionFailed"}:
            raise Overtaken(str(exc)) from exc
        raise


def _checked(target: Target, length: int, store: ObjectStore) -> StoredObject:
    """Look at what is there now."""
    product = store.describe(target.location, missing=TransientFailure)
    if product.size != length or product.metadata != target.metadata:
        raise TransientFailure(
            f"{target.location}: has {product.size} bytes and metadata {product.metadata}, "
            f"expected {length} bytes and {target.metadata}"
        )
    return product
