"""Products as local files: written whole under a temporary name, or compared with a layout.

No record of a product's provenance is kept, because the product itself is enough: it is up to date
if each of its bytes equals what would be written now. A record in another file would be lost when
the product is moved, and would still say the same after the product was changed.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from core import SOFTWARE
from core.errors import InputRejected
from core.fits.hdus import locate
from core.layout import Copied, Layout, Piece
from core.product import HeaderValues
from infra.local.inputs import Input, open_input

PIECE = 8 * 1024 * 1024
_PREFIX, _SUFFIX = ".dq_init-", ".partial"


def values_of(path: Path, values: HeaderValues, exposure: str) -> HeaderValues:
    """Return `values` with DATE, CRDS_CTX and CRDS_VER taken from the product at a path.

    A product of another context that chose the same mask is then still up to date. `exposure` is
    the name of the exposure, for messages.

    Raises
    ------
    InputRejected
        If no regular file is at the path, or it is damaged or was not written by this software.
    """
    wanted = f"a product of {exposure}; {how_to_replace(path)}"
    try:
        with open_input(str(path)) as file:
            header = locate(file.read, file.size, file.name)[0].header
    except InputRejected as exc:
        raise InputRejected(f"{exc}, in the place of {wanted}") from exc
    if not any(line.startswith(f"dq_init by {SOFTWARE}") for line in header.get("HISTORY", ())):
        raise InputRejected(f"{path}: was not written by this software, expected {wanted}")
    return replace(
        values,
        date=str(header.get("DATE")),
        crds_context=str(header.get("CRDS_CTX")),
        crds_version=str(header.get("CRDS_VER")),
    )


def how_to_replace(path: Path) -> str:
    """Return advice about what is at a product's path: a folder cannot be replaced by a file."""
    is_folder = path.is_dir() and not path.is_symlink()
    return "move the folder away" if is_folder else "--force replaces it"


def is_same(path: Path, layout: Layout, source: Input | None) -> bool:
    """Return whether the file at a path has exactly the bytes of a layout.

    Without `source`, bytes copied, converted or merged from the input count as equal.
    """
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != layout.length:
            return False
        for piece in layout.pieces(PIECE):
            if piece.source is not None and source is None:
                file.seek(piece.length, os.SEEK_CUR)
            elif file.read(piece.length) != _render(piece, source):
                return False
        return True


def write(
    path: Path, layout: Layout, source: Input, advance: Callable[[int], object] = lambda _: None
) -> None:
    """Write a product whole or not at all; it replaces what is at its path.

    `advance` is called with the size of each piece written, not for ranges copied from a local
    file. If the source changed meanwhile, `TransientFailure` is raised and `path` stays as it was.
    """
    with _temporary_file(path.parent) as (temporary, fd):
        for segment in layout.segments:
            if isinstance(segment, Copied) and source.fd is not None:
                _copy(source, segment, fd)
                continue
            for piece in Layout((segment,)).pieces(PIECE):
                _write(fd, _render(piece, source))
                advance(piece.length)
        source.check_unchanged()
        os.fsync(fd)
        temporary.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make a rename in a folder durable, unless the folder cannot be opened for reading."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may be written, but not read
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed runs left in a folder; ignore errors."""
    # To open a named pipe would wait for its writer.
    for path in filter(Path.is_file, folder.glob(f"{_PREFIX}*{_SUFFIX}")):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
            path.unlink()


def _render(piece: Piece, source: Input | None) -> bytes | bytearray:
    wanted, stored = piece.source, b""
    if wanted is not None:
        assert source is not None
        stored = source.read(wanted.start, wanted.length)
    if isinstance(piece.segment, Copied):
        return stored
    out = bytearray(piece.length)
    piece.render(stored, memoryview(out))
    return out


def _copy(source: Input, segment: Copied, fd: int) -> None:
    """Copy a byte range of a local input to the file `fd`, in the kernel if that is possible."""
    assert source.fd is not None
    start, stop = segment.start, segment.start + segment.length
    # On Linux only; file systems that share blocks may copy none of the pixels.
    in_kernel = getattr(os, "copy_file_range", None)
    while start < stop:
        copied = 0
        if in_kernel is not None:
            try:
                copied = in_kernel(source.fd, fd, stop - start, start)
            except OSError:  # another file system, or an error that a plain write reports again
                in_kernel = None
        if not copied:
            content = source.read(start, min(PIECE, stop - start))
            _write(fd, content)
            copied = len(content)
        start += copied


def _write(fd: int, content: bytes | bytearray) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


@contextmanager
def _temporary_file(folder: Path) -> Iterator[tuple[Path, int]]:
    """Create a file in a folder; remove it after the `with` block unless it was renamed."""
    path, fd = _create_locked(folder)
    try:
        yield path, fd
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def _create_locked(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f"{_PREFIX}{uuid4().hex}{_SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks: leftovers are not removed either
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return path, fd
        os.close(fd)  # `remove_leftovers` was faster
