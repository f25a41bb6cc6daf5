"""Blocks: cached objects of repeated planes that S3 copies into products.

GROUPDQ of a raw exposure is one plane (or one per superstripe) repeated for every group and
integration; ERR of a guider exposure is zeros. A block repeats one cycle of planes. Its key is the
digest of the cycle, so products with equal planes share a block.
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

log = logging.getLogger(__name__)

MIB = 1024 * 1024
_FORMAT = "1"
_LARGEST_CYCLE = 512 * MIB
_PART = 8 * MIB
_PIECE = 1 * MIB


@dataclass(frozen=True)
class Extent:
    """A byte range of the product, and the object that holds the same bytes, if any."""

    length: int
    source: StoredObject | None = None  # None: the bytes must be uploaded
    start: int = 0  # offset in the source
    period: int = 0  # > 0: source and extent both repeat the same `period` bytes

    def offset_in_source(self, offset: int) -> int:
        """Return the offset in the source object of the byte at `offset` of the extent."""
        return offset % self.period if self.period else self.start + offset

    def largest_copy(self, wanted: int) -> int:
        """Return how many bytes, up to `wanted`, a copy from any `offset_in_source` can have."""
        if self.source is None or not self.period:
            return wanted
        return min(self.source.size - self.period, wanted)


@dataclass
class Blocks:
    """The blocks below a key prefix; with None, no block is used."""

    prefix: S3Location | None
    # A product of several GB then takes a few dozen copies.
    block_bytes: int = 64 * MIB
    # Shorter repetitions are uploaded: docs/explanation/performance.md has the measurement.
    min_repeated_bytes: int = 16 * MIB
    _checked: dict[str, StoredObject] = field(default_factory=dict, repr=False)

    def extent(self, segment: Segment, store: ObjectStore) -> Extent | None:
        """Return a segment's extent, with a block that is found or written as its source."""
        if self.prefix is None or not isinstance(segment, Repeated):
            return None
        planes = segment.planes
        each = segment.each if len(planes) > 1 else 1  # a single plane is its own cycle
        cycle = planes.size * each
        if segment.length < self.min_repeated_bytes or cycle > _LARGEST_CYCLE:
            return None
        digest = hashlib.sha256(f"{len(planes)} planes, each {each} times".encode())
        digest.update(planes.data)
        location = self.prefix.below(_FORMAT, f"{digest.hexdigest()}.planes")
        if location.key not in self._checked:
            content = Repeated(planes, each, max(-(-self.block_bytes // cycle), 2))
            try:
                self._checked[location.key] = _find_or_write(location, content, store)
            except (ClientError, TransientFailure, WriteConflict, *NETWORK):
                # Blocks only make products cheaper.
                log.warning("%s: uploading the planes instead of a block", location, exc_info=True)
                return None
        return Extent(segment.length, self._checked[location.key], 0, cycle)

    def forget(self) -> None:
        """Forget which blocks were checked, so that each is checked again before its next use."""
        self._checked.clear()


def _find_or_write(location: S3Location, content: Repeated, store: ObjectStore) -> StoredObject:
    crc32 = crc32_of(_pieces(content, _PIECE))

    def is_valid(block: StoredObject) -> bool:
        recorded = block.metadata.get("crc32") == crc32
        return recorded and block.size == content.length and block.crc32 in {None, crc32}

    existing = store.find(location)
    if existing is not None and is_valid(existing):
        return existing
    target = Target(location, {"crc32": crc32}, unchanged(existing.etag if existing else None))
    try:
        with multipart(target, store) as upload:
            pieces = enumerate(_pieces(content, _PART), 1)
            parts = [upload.put(number, piece.tobytes()) for number, piece in pieces]
            upload.complete(parts, content.length)
    except WriteConflict:
        log.info("%s: written by another invocation, too", location)
    written = store.describe(location, TransientFailure)
    if not is_valid(written):
        raise TransientFailure(
            f"{location}: found another block, expected the one just written; retry"
        )
    return written


def _pieces(content: Repeated, size: int) -> Iterator[memoryview]:
    for offset in range(0, content.length, size):
        yield content.window(offset, min(size, content.length - offset)).data
