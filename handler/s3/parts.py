"""How S3 can assemble a file on its own side: a layout as the parts of a multipart upload.

A part is either uploaded or copied from a byte range of an object that lies in S3 already. Every
part but the last has at least 5 MiB, every part at most 5 GiB, and there are at most 10,000 of them
(Amazon S3 User Guide, "Multipart upload limits"). What was made and is too short for a part of its
own takes in neighbouring bytes; the plan is the one that uploads the fewest bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = [
    "LARGEST_PART",
    "MOST_PARTS",
    "SMALLEST_PART",
    "CopiedPart",
    "Extent",
    "UploadedPart",
    "plan",
]

MIB = 1024 * 1024
SMALLEST_PART = 5 * MIB
LARGEST_PART = 5 * 1024 * MIB
MOST_PARTS = 10_000
_UPLOAD = 8 * MIB
"""Bytes of an uploaded part, and so of what is held in memory for it."""


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

    @property
    def longest_copy(self) -> int:
        """Bytes that one part can copy, wherever in the extent it starts."""
        return min(self.size - self.period, LARGEST_PART) if self.period else LARGEST_PART


@dataclass(frozen=True)
class UploadedPart:
    """Bytes `start` to `stop` of the output, to be uploaded."""

    start: int
    stop: int


@dataclass(frozen=True)
class CopiedPart:
    """Bytes `start` to `stop` of the output, to be copied from `first` on of the object `key`."""

    start: int
    stop: int
    key: str
    first: int


Part = UploadedPart | CopiedPart


@dataclass(frozen=True)
class _Plan:
    """A way to plan the output up to some extent that is copied.

    `lent` bytes of that extent's beginning are uploaded with what comes before it.
    """

    cost: int
    index: int = -1
    lent: int = 0
    before: "_Plan | None" = field(default=None, repr=False)


def plan(extents: Sequence[Extent]) -> list[Part]:
    """Plan the parts of an output with the fewest uploaded bytes.

    Parameters
    ----------
    extents : sequence of `Extent`
        The output, in order.

    Returns
    -------
    list of `UploadedPart` and `CopiedPart`
        In order, without gaps. A single uploaded part may have any size; it need not be a
        multipart upload at all.
    """
    extents = [extent for extent in extents if extent.length]
    starts = [0]
    for extent in extents:
        starts.append(starts[-1] + extent.length)
    copies = _copies(_cheapest(extents, starts), extents, starts)
    return _with_uploads(copies, starts[-1])


def _cheapest(extents: Sequence[Extent], starts: list[int]) -> _Plan:
    """Choose which extents are copied, and how much of each is lent to its neighbours.

    What is uploaded between two copies must make a part: where it is too short, the copy before it
    lends first (what it keeps back is of no use to anyone after it), then the one after it.
    """
    ways: list[list[_Plan]] = [[_Plan(0)]]
    for index, extent in enumerate(extents):
        ways_here: list[_Plan] = []
        if extent.key is not None:
            for before in (way for group in ways for way in group):
                way = _copied(before, index, extents, starts)
                if way is not None:
                    ways_here.append(way)
        ways.append(_best_of(ways_here))
    length = starts[-1]
    finished = [
        (way.cost + length - (starts[way.index + 1] if way.index >= 0 else 0), number, way)
        for number, way in enumerate(way for group in ways for way in group)
    ]
    return min(finished)[2]


def _copied(
    before: _Plan, index: int, extents: Sequence[Extent], starts: list[int]
) -> _Plan | None:
    """Copy extent `index` after the way `before`; None if S3's rules do not allow it."""
    between = starts[index] - (starts[before.index + 1] if before.index >= 0 else 0)
    missing = max(SMALLEST_PART - between, 0) if between else 0
    borrowed = 0
    if before.index >= 0:
        spare = extents[before.index].length - before.lent - SMALLEST_PART
        if spare < 0:
            return None
        borrowed = min(missing, spare)
    lent = missing - borrowed
    # The last part of all may be as short as it likes.
    least = SMALLEST_PART if index + 1 < len(extents) else 1
    if extents[index].length - lent < least:
        return None
    return _Plan(before.cost + between + missing, index, lent, before)


def _best_of(ways: list[_Plan]) -> list[_Plan]:
    """Drop every way that costs no less and lends no less than another."""
    best: list[_Plan] = []
    for way in sorted(ways, key=lambda way: (way.cost, way.lent)):
        if not best or way.lent < best[-1].lent:
            best.append(way)
    return best


def _copies(way: _Plan, extents: Sequence[Extent], starts: list[int]) -> list[CopiedPart]:
    """The copied parts of a way, in order."""
    parts: list[CopiedPart] = []
    following: _Plan | None = None
    step: _Plan | None = way
    while step is not None and step.index >= 0:
        extent, start = extents[step.index], starts[step.index]
        stop = start + extent.length
        if following is not None:
            between = starts[following.index] - stop
            missing = max(SMALLEST_PART - between, 0) if between else 0
            stop -= missing - following.lent
        parts = _split_copy(extent, start, start + step.lent, stop) + parts
        following, step = step, step.before
    return parts


def _split_copy(extent: Extent, origin: int, start: int, stop: int) -> list[CopiedPart]:
    """Divide one copy evenly into parts that are not too long."""
    return [
        CopiedPart(first, last, extent.key or "", extent.offset_in_object(first - origin))
        for first, last in _evenly(start, stop, -(-(stop - start) // extent.longest_copy))
    ]


def _with_uploads(copies: list[CopiedPart], length: int) -> list[Part]:
    """Fill the gaps between the copies with uploaded parts."""
    gaps: list[tuple[int, int]] = []
    position = 0
    for copy in [*copies, CopiedPart(length, length, "", 0)]:
        if copy.start > position:
            gaps.append((position, copy.start))
        position = copy.stop
    uploaded = sum(stop - start for start, stop in gaps)
    room = MOST_PARTS - len(copies) - len(gaps)
    size = max(_UPLOAD, -(-uploaded // max(room, 1)))
    parts: list[Part] = [*copies]
    for start, stop in gaps:
        parts += [
            UploadedPart(*ends) for ends in _evenly(start, stop, max((stop - start) // size, 1))
        ]
    return sorted(parts, key=lambda part: part.start)


def _evenly(start: int, stop: int, count: int) -> list[tuple[int, int]]:
    """Divide a range into `count` ranges of nearly equal length."""
    length = stop - start
    edges = [start + length * number // count for number in range(count + 1)]
    return [(edges[number], edges[number + 1]) for number in range(count)]
