"""How S3 can assemble a file on its own side: a layout as the parts of a multipart upload.

A part is either uploaded or copied from a byte range of an object that lies in S3 already. Every
part but the last has at least 5 MiB, every part at most 5 GiB, and there are at most 10,000 of them
(Amazon S3 User Guide, "Multipart upload limits"). What was made and is too short for a part of its
own takes in neighbouring bytes; the plan is the one that uploads the fewest bytes.

One copy request moves some 60 MB/s and is silent until it is done (s3fs-fuse PR 940, sftpgo 898,
aws-sdk-go-v2 712), so that copies are divided and run side by side. While they run the function
waits, and is paid for: n requests and the wait for one n-th of the bytes together cost the least
where n is the square root of what one request would cost to wait for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["CopiedPart", "Extent", "Figures", "UploadedPart", "plan"]

MIB = 1024 * 1024


@dataclass(frozen=True)
class Figures:
    """What a plan is reckoned with.

    Attributes
    ----------
    smallest, largest, most : int
        S3's limits: bytes of a part, and parts of an upload.
    upload : int
        Bytes of an uploaded part, and so of what is held in memory for it.
    copy_rate : float
        Bytes a second that one copy request moves.
    requests_per_second : float
        Part requests that a second of waiting is worth: 1.3 in money (5 USD per million against
        512 MB at 0.0000133334 USD per GB-second), the rest for an answer that comes sooner.
    longest_copy : int
        Bytes of a copied part, so that no request comes near a time-out.
    """

    smallest: int = 5 * MIB
    largest: int = 5 * 1024 * MIB
    most: int = 10_000
    upload: int = 16 * MIB
    copy_rate: float = 60e6
    requests_per_second: float = 3.0
    longest_copy: int = 256 * MIB

    def copied_part(self, copied: int) -> int:
        """Return how many bytes a copied part should have, where so many are copied in all."""
        requests = math.sqrt(self.requests_per_second * copied / self.copy_rate)
        wanted = math.ceil(copied / max(math.ceil(requests), 1))
        return min(wanted, self.longest_copy, self.largest)


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


def plan(extents: Sequence[Extent], figures: Figures = Figures()) -> list[Part]:
    """Plan the parts of an output with the fewest uploaded bytes.

    Parameters
    ----------
    extents : sequence of `Extent`
        The output, in order.
    figures : `Figures`
        What the plan is reckoned with.

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
    runs = _copies(_cheapest(extents, starts, figures), extents, starts, figures)
    wanted = figures.copied_part(sum(run.stop - run.start for run in runs))
    copies = [part for run in runs for part in run.divided(wanted, figures.smallest)]
    return _with_uploads(copies, starts[-1], figures)


def _cheapest(extents: Sequence[Extent], starts: list[int], figures: Figures) -> _Plan:
    """Choose which extents are copied, and how much of each is lent to its neighbours.

    What is uploaded between two copies must make a part: where it is too short, the copy before it
    lends first (what it keeps back is of no use to anyone after it), then the one after it.
    """
    ways: list[list[_Plan]] = [[_Plan(0)]]
    for index, extent in enumerate(extents):
        ways_here: list[_Plan] = []
        if extent.key is not None:
            for before in (way for group in ways for way in group):
                way = _copied(before, index, extents, starts, figures.smallest)
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
    before: _Plan, index: int, extents: Sequence[Extent], starts: list[int], smallest: int
) -> _Plan | None:
    """Copy extent `index` after the way `before`; None if S3's rules do not allow it."""
    between = starts[index] - (starts[before.index + 1] if before.index >= 0 else 0)
    missing = max(smallest - between, 0) if between else 0
    borrowed = 0
    if before.index >= 0:
        spare = extents[before.index].length - before.lent - smallest
        if spare < 0:
            return None
        borrowed = min(missing, spare)
    lent = missing - borrowed
    # The last part of all may be as short as it likes.
    least = smallest if index + 1 < len(extents) else 1
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


@dataclass(frozen=True)
class _Run:
    """Bytes `start` to `stop` of the output that are copied; the extent begins at `origin`."""

    extent: Extent
    origin: int
    start: int
    stop: int

    def divided(self, wanted: int, smallest: int) -> list[CopiedPart]:
        """Divide it evenly into parts that are not too long."""
        length, longest = self.stop - self.start, self.extent.longest_copy(wanted)
        count = max(min(-(-length // longest), length // smallest), 1)
        return [
            CopiedPart(
                first,
                last,
                self.extent.key or "",
                self.extent.offset_in_object(first - self.origin),
            )
            for first, last in _evenly(self.start, self.stop, count)
        ]


def _copies(
    way: _Plan, extents: Sequence[Extent], starts: list[int], figures: Figures
) -> list[_Run]:
    """What a way copies, in order."""
    runs: list[_Run] = []
    following: _Plan | None = None
    step: _Plan | None = way
    while step is not None and step.index >= 0:
        extent, start = extents[step.index], starts[step.index]
        stop = start + extent.length
        if following is not None:
            between = starts[following.index] - stop
            missing = max(figures.smallest - between, 0) if between else 0
            stop -= missing - following.lent
        runs.insert(0, _Run(extent, start, start + step.lent, stop))
        following, step = step, step.before
    return runs


def _with_uploads(copies: list[CopiedPart], length: int, figures: Figures) -> list[Part]:
    """Fill the gaps between the copies with uploaded parts."""
    gaps: list[tuple[int, int]] = []
    position = 0
    for copy in [*copies, CopiedPart(length, length, "", 0)]:
        if copy.start > position:
            gaps.append((position, copy.start))
        position = copy.stop
    uploaded = sum(stop - start for start, stop in gaps)
    room = figures.most - len(copies) - len(gaps)
    size = max(figures.upload, -(-uploaded // max(room, 1)))
    parts: list[Part] = [*copies]
    for start, stop in gaps:
        count = max((stop - start) // size, 1)
        parts += [UploadedPart(*ends) for ends in _evenly(start, stop, count)]
    return sorted(parts, key=lambda part: part.start)


def _evenly(start: int, stop: int, count: int) -> list[tuple[int, int]]:
    """Divide a range into `count` ranges of nearly equal length."""
    length = stop - start
    edges = [start + length * number // count for number in range(count + 1)]
    return [(edges[number], edges[number + 1]) for number in range(count)]
