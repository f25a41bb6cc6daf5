"""Blocks of repeated planes, kept in S3 so that S3 can copy them into products by itself.

GROUPDQ of a raw exposure is one plane (or one per superstripe) repeated for every group and
integration, and ERR of a guider exposure is zeros. A block holds the same cycle of planes over and
over. Its key is a digest of the cycle: the mask, the detector window, the stripes and the user's
flags decide the planes, so that whatever gives the same planes shares a block, and nothing else
does. A block is checked before it is used, and copies are pinned to the state that was checked.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from core.errors import TransientFailure
from core.layout import Layout, Repeated, Segment
from handler.s3.assembly import Overtaken, Target, write
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore, StoredObject
from handler.s3.parts import Stretch

__all__ = ["Blocks"]

MIB = 1024 * 1024
_FORMAT = "1"
_BLOCK = 64 * MIB
"""A block has at least so many bytes: a product of several GB then takes a few dozen copies."""
_LONGEST_CYCLE = 512 * MIB
_LEAST_GAIN = 16 * MIB
"""Shorter repetitions are uploaded: see docs/performance.md for where the line lies and why."""
_PIECE = 1 * MIB


@dataclass
class Blocks:
    """The blocks below a prefix; remembers which of them have been checked.

    Attributes
    ----------
    prefix : `~handler.s3.locations.S3Location` or None
        Where they are kept; None to keep none.
    """

    prefix: S3Location | None
    _checked: dict[str, StoredObject] = field(default_factory=dict, repr=False)

    def keep(self, segment: Segment, store: ObjectStore) -> tuple[Stretch, StoredObject] | None:
        """Say where S3 has the bytes of a segment, making the block if it is not there.

        Parameters
        ----------
        segment : `~core.layout.Segment`
            Any segment; only long repetitions gain from a block.
        store : `~handler.s3.objects.ObjectStore`
            How to reach S3.

        Returns
        -------
        tuple of `~handler.s3.parts.Stretch` and `~handler.s3.objects.StoredObject`, or None
            The stretch, and the block that it speaks of.
        """
        if self.prefix is None or not isinstance(segment, Repeated) or not _gains(segment):
            return None
        segment = _shortest(segment)
        cycle = segment.planes.size * segment.each
        cycles = max(-(-_BLOCK // cycle), 2)
        location = self.prefix.below(_FORMAT, f"{_digest(segment)}.planes")
        block = self._checked.get(location.key)
        if block is None:
            content = Repeated(segment.planes, segment.each, cycles)
            block = self._checked[location.key] = _checked_block(location, content, store)
        stretch = Stretch(segment.length, str(block.location), 0, cycle, block.size)
        return stretch, block

    def forget(self) -> bool:
        """Check every block again before its next use; return whether any had been trusted."""
        trusted = bool(self._checked)
        self._checked.clear()
        return trusted


def _shortest(segment: Repeated) -> Repeated:
    """The same bytes, with the shortest cycle: one plane repeats itself, however many groups."""
    if len(segment.planes) > 1:
        return segment
    return Repeated(segment.planes, 1, segment.each * segment.count)


def _gains(segment: Repeated) -> bool:
    cycle = segment.planes.size * _shortest(segment).each
    return segment.length >= _LEAST_GAIN and cycle <= _LONGEST_CYCLE


def _digest(segment: Repeated) -> str:
    digest = hashlib.sha256(f"{len(segment.planes)} planes, each {segment.each} times".encode())
    digest.update(segment.planes.data)
    return digest.hexdigest()


def _checked_block(location: S3Location, content: Repeated, store: ObjectStore) -> StoredObject:
    """Find the block as it must be, or make it."""
    crc32 = _crc32(content)
    found = store.find(location)
    if found is not None and _is_whole(found, content, crc32):
        return found
    condition = {"IfNoneMatch": "*"} if found is None else {"IfMatch": found.etag}
    target = Target(location, {"crc32": crc32}, condition)
    try:
        return write(Layout.of([content]), None, target, store, keeper=lambda _: None)
    except Overtaken as exc:  # two invocations make the same block: either will do
        found = store.find(location)
        if found is not None and _is_whole(found, content, crc32):
            return found
        raise TransientFailure(f"{location}: changed while it was written: {exc}") from exc


def _is_whole(found: StoredObject, content: Repeated, crc32: str) -> bool:
    """Whether a block has the right length and content, as far as S3 and its maker say."""
    said = found.metadata.get("crc32") == crc32
    return said and found.size == content.length and found.crc32 in {None, crc32}


def _crc32(content: Repeated) -> str:
    """CRC-32 of a whole block, as S3 writes it."""
    value = 0
    for piece in _pieces(content):
        value = zlib.crc32(piece, value)
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def _pieces(content: Repeated) -> Iterator[memoryview]:
    for offset in range(0, content.length, _PIECE):
        yield content.window(offset, min(_PIECE, content.length - offset)).data
