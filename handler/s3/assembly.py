"""Assembly of a product in S3: unchanged bytes are copied within S3, all others are uploaded."""

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise

from core.errors import TransientFailure
from core.layout import Copied, Layout
from handler.s3.blocks import Blocks, Extent
from handler.s3.objects import ObjectReader, ObjectStore, StoredObject
from handler.s3.write import CompletedPart, MultipartUpload, Target, WriteConflict, multipart, put

log = logging.getLogger(__name__)

MIB = 1024 * 1024
SMALLEST_SOURCE = 5 * MIB + 1  # S3 copies byte ranges of larger objects only
_UPLOADS_AT_ONCE = 2  # each holds a part in memory; two use the CPU and the network fully
# The function only waits for copies; max_pool_connections in handler.services allows as many.
_COPIES_AT_ONCE = 32


@dataclass(frozen=True)
class PartLimits:
    """S3's limits of a multipart upload, and the sizes and speeds that the planner assumes."""

    # docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
    smallest: int = 5 * MIB
    largest: int = 5 * 1024 * MIB
    most: int = 10_000
    upload: int = 16 * MIB  # an uploaded part is held in memory
    copy_rate: float = 60e6  # bytes per second of one copy request
    # Part requests that are worth one second: 1.3 in money (5 USD per million requests, 512 MB at
    # 0.0000133334 USD per GB-second), the rest for an earlier result.
    requests_per_second: float = 4.0
    shortest_copy: int = 24 * MIB  # 0.4 s: meanwhile the planes of a full frame are uploaded
    longest_copy: int = 224 * MIB  # 4 s, far from the read timeout

    def copied_part(self, copied: int) -> int:
        """Return the largest copied part, in bytes, if `copied` bytes are copied in all."""
        requests = math.sqrt(self.requests_per_second * copied / self.copy_rate)
        wanted = copied / max(math.ceil(requests), 1)
        # A run that is little longer than the best size is not worth another request.
        best = max(math.ceil(1.1 * wanted), self.shortest_copy)
        return min(best, self.longest_copy, self.largest)


@dataclass(frozen=True)
class UploadedPart:
    """Bytes `start` to `stop` (exclusive) of the product, to be uploaded."""

    start: int
    stop: int


@dataclass(frozen=True)
class CopiedPart:
    """Bytes `start` to `stop` (exclusive) of the product, to be copied from `source`."""

    start: int
    stop: int
    source: StoredObject
    first: int


Part = UploadedPart | CopiedPart


@dataclass(frozen=True)
class _Run:
    """Bytes `start` to `stop` (exclusive) of the product that might be copied from `source`."""

    extent: Extent
    source: StoredObject
    origin: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def plan_parts(extents: Sequence[Extent], limits: PartLimits = PartLimits()) -> list[Part]:
    """Divide a product, given as its `extents` in order, into parts to upload or to copy.

    An extent with a source may be uploaded in whole or in part, because only the last part may be
    shorter than `limits.smallest`.
    """
    candidates, length = [], 0
    for extent in extents:
        if extent.source is not None and extent.length:
            stop = length + extent.length
            candidates.append(_Run(extent, extent.source, length, length, stop))
        length += extent.length
    runs = _choose_runs(candidates, length, limits.smallest)

    parts: list[Part] = []
    wanted = limits.copied_part(sum(run.length for run in runs))
    for run in runs:
        extent, most = run.extent, run.length // limits.smallest
        count = max(min(-(-run.length // extent.largest_copy(wanted)), most), 1)
        for start, stop in _divide(run.start, run.stop, count):
            first = extent.offset_in_source(start - run.origin)
            parts.append(CopiedPart(start, stop, run.source, first))

    starts = [0, *(run.stop for run in runs)]
    stops = [*(run.start for run in runs), length]
    gaps = [(start, stop) for start, stop in zip(starts, stops, strict=True) if stop > start]
    room = max(limits.most - len(parts) - len(gaps), 1)
    size = max(limits.upload, -(-sum(stop - start for start, stop in gaps) // room))
    for start, stop in gaps:
        count = max((stop - start) // size, 1)
        parts += [UploadedPart(*ends) for ends in _divide(start, stop, count)]
    return sorted(parts, key=lambda part: part.start)


def _choose_runs(candidates: list[_Run], length: int, smallest: int) -> list[_Run]:
    """Return the runs to copy in a product of `length` bytes, shortened as by `_shorten`.

    The longest are tried first. A run adds up to two parts, so it must save more uploaded bytes
    than the smallest part has.
    """
    chosen: list[_Run] = []
    runs: list[_Run] = []
    for candidate in sorted(candidates, key=lambda run: -run.length):
        trial = sorted([*chosen, candidate], key=lambda run: run.start)
        shortened = _shorten(trial, length, smallest)
        saved = sum(run.length for run in shortened) - sum(run.length for run in runs)
        if saved > smallest:
            chosen, runs = trial, shortened
    return runs


def _shorten(runs: list[_Run], length: int, smallest: int) -> list[_Run]:
    """Shorten runs until each gap before a run is empty or has at least `smallest` bytes.

    A gap takes bytes from the run before it first: no later gap needs them. [] if a run would have
    fewer bytes than `smallest` (1, if it ends the product of `length` bytes).
    """
    shortened: list[_Run] = []
    end = 0
    for run in runs:
        gap = run.start - end
        missing = smallest - gap if 0 < gap < smallest else 0
        end = run.stop
        if shortened:
            taken = min(missing, shortened[-1].length - smallest)
            shortened[-1] = replace(shortened[-1], stop=shortened[-1].stop - taken)
            missing -= taken
        least = 1 if run.stop == length else smallest  # the last part can be shorter
        if run.length - missing < least:
            return []
        shortened.append(replace(run, start=run.start + missing))
    return shortened


def _divide(start: int, stop: int, count: int) -> list[tuple[int, int]]:
    edges = [start + (stop - start) * number // count for number in range(count + 1)]
    return list(pairwise(edges))


class _BlockFailure(TransientFailure):
    """A failed copy from a block, for example of one that was deleted after its check."""


@dataclass(frozen=True)
class Assembly:
    """The layout of a product, and the S3 objects that its bytes are copied from."""

    layout: Layout
    source: ObjectReader
    blocks: Blocks
    store: ObjectStore

    def write(
        self,
        target: Target,
        is_same: Callable[[StoredObject], bool],
        started: MultipartUpload | None = None,
    ) -> StoredObject:
        """Write the product to `target`; return its object, or an equal one that exists.

        `is_same` says whether the object found after a conflict is equal; if not, raises
        `TransientFailure`. `started`, an upload for `target`, is used even if one PUT would do.
        """
        try:
            return self._write(target, started)
        except _BlockFailure:
            log.warning("%s: writing again without blocks", target.location, exc_info=True)
            self.blocks.forget()
            # Not with `started`: Ceph refuses an upload with more parts than are completed.
            return replace(self, blocks=Blocks(None)).write(target, is_same)
        except WriteConflict as exc:
            existing = self.store.find(target.location)
            # With onExisting=replace, the product to be replaced may be equal; it was not written.
            is_older = existing is not None and existing.etag == target.condition.get("IfMatch")
            if existing is None or is_older or not is_same(existing):
                raise TransientFailure(
                    f"{exc}: the product was not written, because another request wrote or deleted "
                    "it meanwhile, or S3 did not answer; a queued message is retried, repeat a "
                    "direct request"
                ) from exc
            return existing

    def _write(self, target: Target, started: MultipartUpload | None) -> StoredObject:
        source = self.source.described
        can_copy = source.size >= SMALLEST_SOURCE
        extents = []
        for segment in self.layout.segments:
            if can_copy and isinstance(segment, Copied):
                extent: Extent | None = Extent(segment.length, source, segment.start)
            else:
                extent = self.blocks.extent(segment, self.store)
            extents.append(extent or Extent(segment.length))
        parts = plan_parts(extents)
        if len(parts) == 1 and isinstance(parts[0], UploadedPart) and started is None:
            written = put(self._content(parts[0]), target, self.store)
        else:
            with nullcontext(started) if started else multipart(target, self.store) as upload:
                written = upload.complete(self._send(parts, upload), self.layout.length)
        if written.version_id is not None:
            return written
        found = self.store.describe(target.location, TransientFailure)  # for its modification time
        if found.etag != written.etag:
            raise TransientFailure(f"{target.location}: was replaced after it was written; retry")
        return found

    def _send(self, parts: list[Part], upload: MultipartUpload) -> list[CompletedPart]:
        def send(number: int, part: Part) -> CompletedPart:
            if isinstance(part, UploadedPart):
                return upload.put(number, self._content(part))
            source, length = part.source, part.stop - part.start
            try:
                return upload.copy(number, source.location, source.etag, part.first, length)
            except TransientFailure as exc:
                if source is self.source.described:
                    raise
                raise _BlockFailure(str(exc)) from exc

        with (
            ThreadPoolExecutor(_UPLOADS_AT_ONCE) as uploads,
            ThreadPoolExecutor(_COPIES_AT_ONCE) as copies,
        ):
            futures = [
                (uploads if isinstance(part, UploadedPart) else copies).submit(send, number, part)
                for number, part in enumerate(parts, 1)
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:
                for pool in (uploads, copies):
                    pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _content(self, part: UploadedPart) -> bytes:
        """Return the bytes of a part to upload; read the input's bytes that it needs from S3."""
        content = BytesIO(bytes(part.stop - part.start))
        with content.getbuffer() as out:
            self.layout.render(self.source.read, out, part.start)
        return content.getvalue()  # no copy: the buffer has exactly this length
