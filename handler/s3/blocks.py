"""Blocks of repeated planes, kept in S3 so that S3 can copy them into products by itself.

GROUPDQ of a raw exposure is one plane (or one per superstripe) repeated for every group and
integration, and ERR of a guider exposure is zeros. A block holds the same cycle of planes over and
over. Its key is a digest of the cycle: the mask, the detector window, the stripes and the user's
flags decide the planes, so that whatever gives the same planes shares a block, and nothing else
does. A block is checked before it is used, and copies are pinned to the state that was checked.

Blocks only make products cheaper: where one cannot be had, its bytes are uploaded.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from core.layout import Repeated, Segment
from handler.s3.errors import NETWORK
from handler.s3.objects import ObjectStore, S3Location, StoredObject
from handler.s3.write import Target, WriteConflict, crc32_of, multipart, unchanged

__all__ = ["Blocks", "Extent"]

log = logging.getLogger(__name__)

MIB = 1024 * 1024
_FORMAT = "1"
_LONGEST_CYCLE = 512 * MIB
_PART = 8 * MIB
_PIECE = 1 * MIB


@dataclass(frozen=True)
class Extent:
    """A run of the output, and where S3 has the same bytes, if it has.

    Attributes
    ----------
    length : int
        Bytes.
    key : str or None
        Names the object that holds them; None where they must be uploaded.
    start : int
        Offset in that object of the first of them.
    period : int
        Zero for a plain range. Otherwise the object repeats the same `period` bytes, and so does
        the extent, from its own start.
    size : int
        Bytes of such an object: a period and ten MiB, or more.
    """

    length: int
    key: str | None = None
    start: int = 0
    period: int = 0
    size: int = 0

    def offset_in_object(self, offset: int) -> int:
        """Offset in the object of the byte at `offset` of the extent."""
        return offset % self.period if self.period else self.start + offset

    def longest_copy(self, wanted: int) -> int:
        """Bytes that one part copies, wherever in the extent it starts."""
        return min(self.size - self.period, wanted) if self.period else wanted


@dataclass
class Blocks:
    """The blocks below a prefix; remembers which of them have been checked.

    Attributes
    ----------
    prefix : `~handler.s3.objects.S3Location` or None
        Where they are kept; None to keep none.
    block_bytes : int
        A block has at least so many: a product of several GB then takes a few dozen copies.
    least_gain : int
        Shorter repetitions are uploaded: docs/performance.md says where the line lies and why.
    """

    prefix: S3Location | None
    block_bytes: int = 64 * MIB
    least_gain: int = 16 * MIB
    _checked: dict[str, StoredObject] = field(default_factory=dict, repr=False)

    def extent(self, segment: Segment, store: ObjectStore) -> tuple[Extent, StoredObject] | None:
        """Say where S3 has the bytes of a segment, making the block if it is not there.

        Parameters
        ----------
        segment : `~core.layout.Segment`
            Any segment; only long repetitions gain from a block.
        store : `~handler.s3.objects.ObjectStore`
            How to reach S3.

        Returns
        -------
        tuple of `~handler.s3.blocks.Extent` and `~handler.s3.objects.StoredObject`, or None
            The extent, and the block that it speaks of; None if the bytes must be uploaded.
        """
        if self.prefix is None or not isinstance(segment, Repeated) or not self._gains(segment):
            return None
        shortest = _shortest(segment)
        cycle = shortest.planes.size * shortest.each
        cycles = max(-(-self.block_bytes // cycle), 2)
        location = self.prefix.below(_FORMAT, f"{_digest(shortest)}.planes")
        block = self._block(location, Repeated(shortest.planes, shortest.each, cycles), store)
        if block is None:
            return None
        return Extent(segment.length, str(block.location), 0, cycle, block.size), block

    def forget(self) -> None:
        """Check every block again before its next use."""
        self._checked.clear()

    def _gains(self, segment: Repeated) -> bool:
        cycle = segment.planes.size * _shortest(segment).each
        return segment.length >= self.least_gain and cycle <= _LONGEST_CYCLE

    def _block(
        self, location: S3Location, content: Repeated, store: ObjectStore
    ) -> StoredObject | None:
        """The block, once it is known to be whole; None if it cannot be had."""
        if location.key not in self._checked:
            try:
                self._checked[location.key] = _checked_block(location, content, store)
            except (ClientError, TransientFailure, WriteConflict, *NETWORK):
                log.warning("%s: no block can be had; uploading instead", location, exc_info=True)
                return None
        return self._checked[location.key]


def _shortest(segment: Repeated) -> Repeated:
    """The same bytes, with the shortest cycle: one plane repeats itself, however many groups."""
    if len(segment.planes) > 1:
        return segment
    return Repeated(segment.planes, 1, segment.each * segment.count)


def _digest(segment: Repeated) -> str:
    digest = hashlib.sha256(f"{len(segment.planes)} planes, each {segment.each} times".encode())
    digest.update(segment.planes.data)
    return digest.hexdigest()


def _checked_block(location: S3Location, content: Repeated, store: ObjectStore) -> StoredObject:
    """Find the block as it must be, or make it."""
    crc32 = crc32_of(_pieces(content))
    existing = store.find(location)
    if existing is not None and _is_whole(existing, content, crc32):
        return existing
    etag = existing.etag if existing else None
    try:
        _write(content, Target(location, {"crc32": crc32}, unchanged(etag)), store)
    except WriteConflict:  # two invocations make the same block: either will do
        log.info("%s: is made by others, too", location)
    existing = store.describe(location, TransientFailure)
    if not _is_whole(existing, content, crc32):
        raise TransientFailure(f"{location}: is not the block that was written")
    return existing


def _write(content: Repeated, target: Target, store: ObjectStore) -> None:
    offsets = range(0, content.length, _PART)
    with multipart(target, store) as upload:
        parts = [
            upload.put(number, content.window(at, min(_PART, content.length - at)).tobytes())
            for number, at in enumerate(offsets, 1)
        ]
        upload.complete(parts, content.length)


def _is_whole(existing: StoredObject, content: Repeated, crc32: str) -> bool:
    """Whether a block has the right length and content, as far as S3 and its maker say."""
    noted = existing.metadata.get("crc32") == crc32
    return noted and existing.size == content.length and existing.crc32 in {None, crc32}


def _pieces(content: Repeated) -> Iterator[memoryview]:
    for offset in range(0, content.length, _PIECE):
        yield content.window(offset, min(_PIECE, content.length - offset)).data
