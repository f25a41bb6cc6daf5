"""The output file as an ordered list of segments, and how to render it piece by piece.

A segment is a run of output bytes: made here, a byte range of the input left as it is, planes
repeated n times, or a byte range of the input whose pixels change. Whoever executes a layout reads
the ranges it asks for, a bounded piece at a time, and writes what comes out in order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.fits.pixels import FLOAT32, PixelFormat, as_float32

__all__ = [
    "ByteRange",
    "Converted",
    "Copied",
    "Layout",
    "Literal",
    "Merged",
    "Piece",
    "Repeated",
    "Segment",
]

Content = bytes | memoryview
_PLANES_AT_ONCE = 1 << 16
"""Planes copied by one call: each needs an index of 8 bytes, more than a plane of one pixel has."""


@dataclass(frozen=True)
class ByteRange:
    """A byte range of the input object."""

    start: int
    length: int


class Segment(Protocol):
    """A run of output bytes, of which any part can be rendered by itself."""

    @property
    def length(self) -> int:
        """Bytes of output."""

    def source(self, offset: int, length: int) -> ByteRange | None:
        """Which bytes of the input a piece needs; None if it needs none."""

    def render(self, offset: int, source: bytes, out: memoryview) -> None:
        """Fill `out` with the output from `offset` on, given the input's bytes that it needs."""


@dataclass(frozen=True)
class Literal:
    """Bytes made by the step: headers, planes, padding."""

    content: Content

    @property
    def length(self) -> int:
        """Bytes of output."""
        return len(self.content)

    def source(self, offset: int, length: int) -> None:  # noqa: ARG002
        """Nothing of the input is needed."""
        return

    def render(self, offset: int, source: bytes, out: memoryview) -> None:  # noqa: ARG002
        """Some of the bytes."""
        out[:] = memoryview(self.content)[offset : offset + len(out)]


@dataclass(frozen=True)
class Copied:
    """A byte range of the input, left as it is."""

    start: int
    length: int

    def source(self, offset: int, length: int) -> ByteRange:
        """The same bytes of the input."""
        return ByteRange(self.start + offset, length)

    def render(self, offset: int, source: bytes, out: memoryview) -> None:  # noqa: ARG002
        """The bytes of the input."""
        out[:] = source


@dataclass(frozen=True)
class Repeated:
    """Planes of bytes, each repeated `each` times, the whole cycle `count` times.

    GROUPDQ of a ramp is one plane repeated for every group of every integration; of superstripes,
    one plane per stripe, each repeated for every group, the cycle for every super-integration.

    Attributes
    ----------
    planes : ndarray of uint8
        Shape (planes, bytes of a plane).
    each, count : int
        Repetitions of a plane, and of the whole cycle.
    """

    planes: NDArray[np.uint8]
    each: int
    count: int

    @property
    def length(self) -> int:
        """Bytes of output."""
        return self.planes.size * self.each * self.count

    def source(self, offset: int, length: int) -> None:  # noqa: ARG002
        """Nothing of the input is needed."""
        return

    def render(self, offset: int, source: bytes, out: memoryview) -> None:  # noqa: ARG002
        """The bytes at `offset`, of as many planes as they span."""
        plane_bytes = self.planes.shape[1]
        first, position = -(-offset // plane_bytes), min(-offset % plane_bytes, len(out))
        if position:
            out[:position] = self._part(offset, position).data
        while whole := min((len(out) - position) // plane_bytes, _PLANES_AT_ONCE):
            stop = position + whole * plane_bytes
            into = np.frombuffer(out[position:stop], np.uint8).reshape(whole, plane_bytes)
            order = np.arange(first, first + whole) // self.each % len(self.planes)
            np.take(self.planes, order, axis=0, out=into, mode="clip")
            first, position = first + whole, stop
        if position < len(out):
            out[position:] = self._part(offset + position, len(out) - position).data

    def window(self, offset: int, length: int) -> NDArray[np.uint8]:
        """Return `length` bytes of the sequence, starting at `offset`."""
        plane_bytes = self.planes.shape[1]
        if offset // plane_bytes == (offset + length - 1) // plane_bytes:
            return self._part(offset, length)  # a view
        window = np.empty(length, np.uint8)
        self.render(offset, b"", window.data)
        return window

    def _part(self, offset: int, length: int) -> NDArray[np.uint8]:
        """Return `length` bytes that lie inside one plane."""
        number, skip = divmod(offset, self.planes.shape[1])
        plane = self.planes[number // self.each % len(self.planes)]
        part: NDArray[np.uint8] = plane[skip : skip + length]
        return part


@dataclass(frozen=True)
class Merged:
    """GROUPDQ of the input, with the flags of repeated planes set in it.

    Attributes
    ----------
    start : int
        Where the input's array lies.
    pixel_format : `~core.fits.pixels.PixelFormat`
        How its pixels are stored.
    planes : `Repeated`
        One byte per pixel, as many as the array has.
    """

    start: int
    pixel_format: PixelFormat
    planes: Repeated

    @property
    def length(self) -> int:
        """Bytes of output: one per pixel."""
        return self.planes.length

    def source(self, offset: int, length: int) -> ByteRange:
        """The same pixels of the input."""
        size = self.pixel_format.itemsize
        return ByteRange(self.start + offset * size, length * size)

    def render(self, offset: int, source: bytes, out: memoryview) -> None:
        """The input's flags and the planes' together."""
        existing = self.pixel_format.decode(source).astype(np.uint8)
        out[:] = (existing | self.planes.window(offset, len(out))).data


@dataclass(frozen=True)
class Converted:
    """Pixels of the input, written as big-endian float32.

    Attributes
    ----------
    start : int
        Where the input's array lies.
    pixels : int
        How many pixels it has.
    pixel_format : `~core.fits.pixels.PixelFormat`
        How they are stored.
    """

    start: int
    pixels: int
    pixel_format: PixelFormat

    @property
    def length(self) -> int:
        """Bytes of output."""
        return self.pixels * FLOAT32.itemsize

    def source(self, offset: int, length: int) -> ByteRange:
        """The input's pixels, of which the first and the last may be needed in part."""
        first, last = _pixels(offset, length)
        size = self.pixel_format.itemsize
        return ByteRange(self.start + first * size, (last - first) * size)

    def render(self, offset: int, source: bytes, out: memoryview) -> None:
        """The pixels as float32."""
        if offset % FLOAT32.itemsize == 0 and len(out) % FLOAT32.itemsize == 0:
            as_float32(source, self.pixel_format, np.frombuffer(out, ">f4"))
            return
        first, last = _pixels(offset, len(out))  # a part may begin or end inside a pixel
        whole = np.empty(last - first, ">f4")
        as_float32(source, self.pixel_format, whole)
        skip = offset - first * FLOAT32.itemsize
        out[:] = whole.view(np.uint8).data[skip : skip + len(out)]


def _pixels(offset: int, length: int) -> tuple[int, int]:
    """The float32 pixels that a byte range of the output touches: first, and one past the last."""
    return offset // FLOAT32.itemsize, -(-(offset + length) // FLOAT32.itemsize)


@dataclass(frozen=True)
class Piece:
    """A bounded part of a segment."""

    segment: Segment
    offset: int
    length: int

    @property
    def source(self) -> ByteRange | None:
        """Which bytes of the input it needs."""
        return self.segment.source(self.offset, self.length)

    def render(self, source: bytes, out: memoryview) -> None:
        """Fill `out`, of the piece's length, given the bytes of the input that it needs."""
        self.segment.render(self.offset, source, out)


@dataclass(frozen=True)
class Layout:
    """The whole output file.

    Attributes
    ----------
    segments : tuple of `Segment`
        In order; copied ranges that follow one another in the input are joined.
    """

    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, segments: list[Segment]) -> "Layout":
        """Join neighbouring segments where that changes nothing; drop empty ones."""
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
        """Bytes of the output file."""
        return sum(segment.length for segment in self.segments)

    def pieces(self, most: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """Walk through the output in order, in bounded pieces.

        Parameters
        ----------
        most : int
            Bytes that a piece has at most.
        start, stop : int
            The part of the output to walk through; all of it by default.
        """
        end = self.length if stop is None else stop
        position = 0
        for segment in self.segments:
            first, last = max(start - position, 0), min(end - position, segment.length)
            for offset in range(first, last, most):
                yield Piece(segment, offset, min(most, last - offset))
            position += segment.length
