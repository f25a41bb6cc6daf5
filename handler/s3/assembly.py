"""Writing a product: the parts of a layout are uploaded, or copied by S3 on its own side.

What lies unchanged in the input, and what lies in a block of repeated planes, never passes through
the function. Parts are moved side by side, each in bounded memory; the object appears whole, when
all of them are there, or not at all.
"""

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO

from core.errors import InputRejected, TransientFailure
from core.layout import Copied, Layout, Segment
from handler.s3.blocks import Blocks, Extent
from handler.s3.objects import ObjectStore, StoredObject
from handler.s3.write import (
    CompletedPart,
    MultipartUpload,
    Target,
    WriteConflict,
    Written,
    multipart,
    put,
)

__all__ = [
    "Assembly",
    "CopiedPart",
    "PartLimits",
    "UploadedPart",
    "plan",
]

MIB = 1024 * 1024


@dataclass(frozen=True)
class PartLimits:
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


def plan(extents: Sequence[Extent], figures: PartLimits = PartLimits()) -> list[Part]:
    """Plan the parts of an output with the fewest uploaded bytes.

    Parameters
    ----------
    extents : sequence of `Extent`
        The output, in order.
    figures : `PartLimits`
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


def _cheapest(extents: Sequence[Extent], starts: list[int], figures: PartLimits) -> _Plan:
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
    way: _Plan, extents: Sequence[Extent], starts: list[int], figures: PartLimits
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


def _with_uploads(copies: list[CopiedPart], length: int, figures: PartLimits) -> list[Part]:
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


log = logging.getLogger(__name__)

_UPLOADS_AT_ONCE = 2
"""Each holds a part in memory and takes its share of one CPU; two fill the network."""
_COPIES_AT_ONCE = 32
"""Copies cost the function nothing but waiting."""
_PIECE = 8 * MIB
"""Bytes of a part that are made at a time: few requests cost less than little memory."""
_LEAST_SOURCE = 5 * MIB
"""S3 copies ranges of larger objects only."""


class _BlockFailure(TransientFailure):
    """A block that was trusted is not there, or not as it was."""


@dataclass(frozen=True)
class Assembly:
    """How a layout is executed.

    Attributes
    ----------
    layout : `~core.layout.Layout`
        The object's content.
    source : `~handler.s3.objects.StoredObject`
        The input that the layout refers to.
    blocks : `~handler.s3.blocks.Blocks`
        Where S3 has the bytes of repeated segments.
    store : `~handler.s3.objects.ObjectStore`
        How to reach S3.
    least_source : int
        Inputs of fewer bytes are streamed.
    """

    layout: Layout
    source: StoredObject
    blocks: Blocks
    store: ObjectStore
    least_source: int = _LEAST_SOURCE + 1

    def write(self, target: Target, is_same: Callable[[StoredObject], bool]) -> StoredObject:
        """Write the object; what a block turns out not to have is uploaded.

        Parameters
        ----------
        target : `~handler.s3.write.Target`
            Where it goes.
        is_same : callable
            Says whether an object that is there after all is the one that was to be written: by
            another invocation, or by this one, whose answer was lost.

        Returns
        -------
        `~handler.s3.objects.StoredObject`
            The object.

        Raises
        ------
        TransientFailure
            If S3 cannot be reached, the input was replaced meanwhile, or something else was
            written.
        """
        try:
            return self._write(target)
        except _BlockFailure:
            log.warning("writing again without blocks", exc_info=True)
            self.blocks.forget()
            return replace(self, blocks=Blocks(None)).write(target, is_same)
        except WriteConflict as exc:
            existing = self.store.find(target.location)
            if existing is None or not is_same(existing):
                raise TransientFailure(f"{target.location}: not written: {exc}") from exc
            return existing

    def _write(self, target: Target) -> StoredObject:
        sources: dict[str, StoredObject] = {str(self.source.location): self.source}
        extents = []
        for segment in self.layout.segments:
            extent, holder = self._extent(segment)
            extents.append(extent)
            if holder is not None:
                sources[str(holder.location)] = holder
        parts = plan(extents)
        if len(parts) == 1 and isinstance(parts[0], UploadedPart):
            return self._described(target, put(self._content(parts[0]), target, self.store))
        with multipart(target, self.store) as upload:
            moved = self._move(parts, sources, upload)
            self._check_sources({p.key for p in parts if isinstance(p, CopiedPart)}, sources)
            return self._described(target, upload.complete(moved, self.layout.length))

    def _described(self, target: Target, written: Written) -> StoredObject:
        """The object as it is now; where there are no versions, its time tells it from others."""
        if written.version_id is None:
            return self.store.describe(target.location, TransientFailure)
        return StoredObject(
            target.location, written.etag, self.layout.length, target.metadata, written.version_id
        )

    def _extent(self, segment: Segment) -> tuple[Extent, StoredObject | None]:
        """Where S3 has the bytes of a segment, and the block that holds them, if one does."""
        if isinstance(segment, Copied) and self.source.size >= self.least_source:
            return Extent(segment.length, str(self.source.location), segment.start), None
        return self.blocks.extent(segment, self.store) or (Extent(segment.length), None)

    def _move(
        self, parts: list[Part], sources: dict[str, StoredObject], upload: MultipartUpload
    ) -> list[CompletedPart]:
        """Move all parts side by side."""

        def move(number: int, part: Part) -> CompletedPart:
            if isinstance(part, UploadedPart):
                return upload.put(number, self._content(part))
            source, length = sources[part.key], part.stop - part.start
            try:
                return upload.copy(number, source.location, source.etag, part.first, length)
            except TransientFailure as exc:
                if source is self.source:
                    raise
                raise _BlockFailure(str(exc)) from exc

        with (
            ThreadPoolExecutor(_UPLOADS_AT_ONCE) as uploads,
            ThreadPoolExecutor(_COPIES_AT_ONCE) as copies,
        ):
            pools = {UploadedPart: uploads, CopiedPart: copies}
            moving = [pools[type(part)].submit(move, n, part) for n, part in enumerate(parts, 1)]
            try:
                return [future.result() for future in moving]
            except BaseException:
                for pool in pools.values():
                    pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _check_sources(self, keys: set[str], sources: dict[str, StoredObject]) -> None:
        """Look again at what was copied from: not every server heeds the condition of a copy."""
        for source in (sources[key] for key in sorted(keys)):
            now = self.store.find(source.location)
            if now is None or now.etag != source.etag:
                error = TransientFailure if source is self.source else _BlockFailure
                raise error(f"{source.location}: was replaced while it was copied")

    def _content(self, part: UploadedPart) -> bytes:
        """Make the bytes of a part, reading what it needs of the input."""
        content = BytesIO(bytes(part.stop - part.start))
        with content.getbuffer() as out:
            position = 0
            for piece in self.layout.pieces(_PIECE, part.start, part.stop):
                wanted = piece.source
                read = b""
                if wanted is not None:
                    read = self.store.read(self.source, wanted.start, wanted.length, InputRejected)
                piece.render(read, out[position : position + piece.length])
                position += piece.length
        return content.getvalue()  # without a copy: the buffer is of that very length
