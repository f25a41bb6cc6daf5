"""Writing a product: the parts of a layout are uploaded, or copied by S3 on its own side.

What lies unchanged in the input, and what lies in a block of repeated planes, never passes through
the function. Parts are moved side by side, each in bounded memory; the object appears whole, when
all of them are there, or not at all.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO

from core.errors import InputRejected, TransientFailure
from core.layout import Copied, Layout, Segment
from handler.s3.blocks import Blocks
from handler.s3.objects import ObjectStore, StoredObject
from handler.s3.parts import CopiedPart, Extent, Part, UploadedPart, plan
from handler.s3.upload import (
    CompletedPart,
    MultipartUpload,
    Target,
    WriteConflict,
    Written,
    multipart,
    put,
)

__all__ = ["Assembly"]

log = logging.getLogger(__name__)

MIB = 1024 * 1024
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
        target : `~handler.s3.upload.Target`
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
