"""The output file as an ordered list of segments, each rendered in bounded pieces."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.fits.hdus import Reader
from core.fits.pixels import FLOAT32, PixelFormat, as_float32, encode_uint32

# Planes copied by one call of numpy; each needs an index of 8 bytes, and a plane may be one pixel.
_PLANES_AT_ONCE = 1 << 16
_PIECE = 8 * 1024 * 1024


@dataclass(frozen=True)
class ByteRange:
    """A byte range of the input file: offset and number of bytes."""

    start: int
    length: int


class Segment(Protocol):
    """A run of output bytes; any part of it can be rendered on its own."""

    @property
    def length(self) -> int:
        """Size of the segment in the output file, in bytes."""

    def source(self, offset: int, length: int) -> ByteRange | None:
        """Return the byte range of the input that a part of the segment is rendered from.

        The part is `length` bytes of the segment, from byte `offset` on. None if it needs no bytes
        of the input.
        """

    def render(self, offset: int, source: bytes, out: memoryview) -> None:
        """Fill `out` with the bytes of the segment from byte `offset` on.

        `source` holds the input's bytes in the range that ``self.source(offset, len(out))``
        returns; it is empty if that is None.
        """


@dataclass(frozen=True)
class Literal:
    """Bytes that the step created."""

    content: bytes

    @property
    def length(self) -> int:
        """Size of the created bytes."""
        return len(self.content)

    def source(self, offset: int, length: int) -> None:  # noqa: ARG002
        """Return None: created bytes need no bytes of the input."""
        return

    def render(self, offset: int, source: bytes, out: memoryview) -> None:  # noqa: ARG002
        """Fill `out` with the created bytes from `offset` on."""
        out[:] = memoryview(self.content)[offset : offset + len(out)]


@dataclass(frozen=True)
class FlagImage:
    """The flags of PIXELDQ or DQ: a virtual product keeps them as an image (core.virtual)."""

    flags: NDArray[np.uint32]  # contiguous
    name: str  # of the HDU

    @property
    def length(self) -> int:
        """Size of the stored flags in bytes: 4 per pixel."""
        return self.flags.nbytes

    def source(self, offset: int, length: int) -> None:  # noqa: ARG002
        """Return None: the flags need no bytes of the input."""
        return

    def render(self, offset: int, source: bytes, out: memoryview) -> None:  # noqa: ARG002
        """Fill `out` with the flags as FITS stores them, from byte `offset` on.

        `out` may start or end inside a pixel.
        """
        first, last = _pixels(offset, len(out))
        skip = offset - first * self.flags.itemsize
        out[:] = encode_uint32(self.flags.reshape(-1)[first:last])[skip : skip + len(out)]


@dataclass(frozen=True)
class Copied:
    """A byte range of the input, unchanged."""

    start: int
    length: int

    def source(self, offset: int, length: int) -> ByteRange:
        """Return the range of the input that equals this range of the segment."""
        return ByteRange(self.start + offset, length)

    def render(self, offset: int, source: bytes, out: memoryview) -> None:  # noqa: ARG002
        """Fill `out` with the bytes of the input in `source`, unchanged."""
        out[:] = source


@dataclass(frozen=True)
class Repeated:
    """Planes of bytes: each repeated `each` times, and the sequence of all `count` times.

    In GROUPDQ, `each` is the number of groups. A ramp has one plane, for `count` integrations;
    superstripes with a mask have one per stripe, for `count` super-integrations.
    """

    planes: NDArray[np.uint8]  # shape (planes, bytes of a plane)
    each: int
    count: int

    @property
    def length(self) -> int:
        """Size of all repetitions of the planes, in bytes."""
        return self.planes.size * self.each * self.count

    def source(self, offset: int, length: int) -> None:  # noqa: ARG002
        """Return None: repeated planes need no bytes of the input."""
        return

    def render(self, offset: int, source: bytes, out: memoryview) -> None:  # noqa: ARG002
        """Fill `out` with repeated planes from byte `offset` on, which may be inside a plane."""
        plane_bytes = self.planes.shape[1]
        first, position = -(-offset // plane_bytes), min(-offset % plane_bytes, len(out))
        if position:
            out[:position] = self.window(offset, position).data
        while whole := min((len(out) - position) // plane_bytes, _PLANES_AT_ONCE):
            stop = position + whole * plane_bytes
            into = np.frombuffer(out[position:stop], np.uint8).reshape(whole, plane_bytes)
            order = np.arange(first, first + whole) // self.each % len(self.planes)
            np.take(self.planes, order, axis=0, out=into, mode="clip")
            first, position = first + whole, stop
        if position < len(out):
            out[position:] = self.window(offset + position, len(out) - position).data

    def window(self, offset: int, length: int) -> NDArray[np.uint8]:
        """Return `length` bytes of the repeated planes from `offset` on; a view if in one plane."""
        number, skip = divmod(offset, self.planes.shape[1])
        part: NDArray[np.uint8]
        if skip + length <= self.planes.shape[1]:
            part = self.planes[number // self.each % len(self.planes)][skip : skip + length]
            return part
        part = np.empty(length, np.uint8)
        self.render(offset, b"", part.data)
        return part


@dataclass(frozen=True)
class Merged:
    """GROUPDQ of the input, with the flags of repeated planes merged into it."""

    start: int  # offset of the array in the input
    pixel_format: PixelFormat
    planes: Repeated  # one byte per pixel

    @property
    def length(self) -> int:
        """Size of the merged GROUPDQ in bytes: one per pixel."""
        return self.planes.length

    def source(self, offset: int, length: int) -> ByteRange:
        """Return the range of the input with `length` pixels of GROUPDQ from `offset` on."""
        size = self.pixel_format.itemsize
        return ByteRange(self.start + offset * size, length * size)

    def render(self, offset: int, source: bytes, out: memoryview) -> None:
        """Fill `out` with the input's flags in `source`, merged with those of the planes.

        `out` begins at pixel `offset`. Flags of the input above the lowest 8 bits are dropped.
        """
        with np.errstate(invalid="ignore"):  # NaN among floats; numpy converts it to some integer
            existing = self.pixel_format.decode(source).astype(np.uint8)
        out[:] = (existing | self.planes.window(offset, len(out))).data


@dataclass(frozen=True)
class Converted:
    """Pixels of the input, converted to big-endian float32."""

    start: int  # offset of the array in the input
    pixels: int
    pixel_format: PixelFormat  # of the input

    @property
    def length(self) -> int:
        """Size of the float32 pixels in bytes: 4 per pixel."""
        return self.pixels * FLOAT32.itemsize

    def source(self, offset: int, length: int) -> ByteRange:
        """Return the range of the input with all pixels that this range of the segment overlaps."""
        first, last = _pixels(offset, length)
        size = self.pixel_format.itemsize
        return ByteRange(self.start + first * size, (last - first) * size)

    def render(self, offset: int, source: bytes, out: memoryview) -> None:
        """Fill `out` with the float32 pixels from byte `offset` of the segment on.

        `source` holds the input's pixels that overlap `out`, which may start or end inside a pixel.
        """
        if offset % FLOAT32.itemsize == 0 and len(out) % FLOAT32.itemsize == 0:
            as_float32(source, self.pixel_format, np.frombuffer(out, ">f4"))
            return
        first, last = _pixels(offset, len(out))
        whole = np.empty(last - first, ">f4")
        as_float32(source, self.pixel_format, whole)
        skip = offset - first * FLOAT32.itemsize
        out[:] = whole.view(np.uint8).data[skip : skip + len(out)]


def _pixels(offset: int, length: int) -> tuple[int, int]:
    """Return the first 4-byte pixel that overlaps a byte range, and the last one plus 1."""
    return offset // FLOAT32.itemsize, -(-(offset + length) // FLOAT32.itemsize)


@dataclass(frozen=True)
class Piece:
    """A byte range of a segment, short enough to be rendered in memory."""

    segment: Segment
    offset: int
    length: int

    @property
    def source(self) -> ByteRange | None:
        """The byte range of the input that the piece needs; None if it needs none."""
        return self.segment.source(self.offset, self.length)

    def render(self, source: bytes, out: memoryview) -> None:
        """Fill `out`, of the piece's length, given the input's bytes of the property `source`."""
        self.segment.render(self.offset, source, out)


@dataclass(frozen=True)
class Layout:
    """The output file: its segments in order."""

    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, segments: list[Segment]) -> "Layout":
        """Return the layout of segments: empty ones left out, adjacent copied ranges joined."""
        joined: list[Segment] = []
        for segment in segments:
            last = joined[-1] if joined else None
            if (
                isinstance(last, Copied)
                and isinstance(segment, Copied)
                and last.start + last.length == segment.start
            ):
                joined[-1] = Copied(last.start, last.length + segment.length)
            elif segment.length:
                joined.append(segment)
        return cls(tuple(joined))

    @property
    def length(self) -> int:
        """Size of the output file in bytes."""
        return sum(segment.length for segment in self.segments)

    def pieces(self, most: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """Yield bytes `start` to `stop` (exclusive) in pieces of at most `most` bytes."""
        end = self.length if stop is None else stop
        position = 0
        for segment in self.segments:
            first, last = max(start - position, 0), min(end - position, segment.length)
            for offset in range(first, last, most):
                yield Piece(segment, offset, min(most, last - offset))
            position += segment.length

    def render(self, read: Reader, out: memoryview, start: int = 0) -> None:
        """Fill `out` with the output from byte `start` on; `read` reads the input."""
        position = 0
        for piece in self.pieces(_PIECE, start, start + len(out)):
            wanted = piece.source
            stored = read(wanted.start, wanted.length) if wanted is not None else b""
            piece.render(stored, out[position : position + piece.length])
            position += piece.length
