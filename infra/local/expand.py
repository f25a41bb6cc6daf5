"""The command ``dq-init expand``: virtual products become complete files on this machine."""

import io
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from core.errors import InputRejected
from core.fits.hdus import Reader
from core.layout import ByteRange, Layout
from core.product import expanded_name
from core.virtual import ExpandedFile, Source, unpack
from handler.s3.errors import translate_errors
from handler.s3.objects import ObjectReader, ObjectStore, S3Location
from infra import options
from infra.local.inputs import Input, check_outputs, expand, open_input, s3_client
from infra.local.product import PIECE, is_same, remove_leftovers, write
from infra.local.report import show_line
from infra.local.run import EXIT_CODES, FAILURES, describe_failure, worst

_PATTERN = "*_dq_init_virtual.fits"
_READS_AT_ONCE = 8  # S3 sends some 50 to 90 MB/s on one connection
_BUFFER = 128 * 1024  # most headers fit into one read


@click.command
@click.argument("products", metavar="PRODUCT...", nargs=-1, required=True)
@click.option("--output-dir", type=options.FOLDER, default=Path(), help="Folder of the files.")
@click.option("--force", is_flag=True, help="Replace files that differ from the product.")
@options.as_json
def command(products: tuple[str, ...], output_dir: Path, force: bool, as_json: bool) -> None:
    """Write virtual products as complete files; the pixels are read from the exposures in S3.

    PRODUCT is a file, a folder, a pattern or an S3 URI. A folder, or a URI that ends with a slash,
    stands for every *_dq_init_virtual.fits below it. A complete file of the product is kept; any
    other file at its path is a failure, unless --force replaces it. Run the same command again to
    resume.

    Exit codes are those of dq-init run.
    """
    names = expand(products, _PATTERN)
    paths = {name: output_dir / expanded_name(name.rpartition("/")[2]) for name in names}
    check_outputs(paths)
    output_dir.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output_dir)
    codes = set()
    for name, path in paths.items():
        outcome = {"input": name, "output": str(path), "status": "failed", "reason": None}
        try:
            outcome["status"] = _expand(name, path, force)
        except FAILURES as exc:
            error, outcome["reason"] = describe_failure(exc, path)
            codes.add(EXIT_CODES.get(error, 1))
        if as_json:
            show_line(json.dumps(outcome), is_error=False)
        elif outcome["reason"]:
            show_line(f"failed: {outcome['reason']}", is_error=True)
        else:
            show_line(f"{outcome['status']:8}  {path}", is_error=False)
    sys.exit(worst(codes))


def open_virtual(name: str) -> BinaryIO:
    """Open a virtual product as its complete file, read-only; pixels are fetched when read.

    Parameters
    ----------
    name : str
        Path or S3 URI of the virtual product.

    Returns
    -------
    file object
        The complete product, for `astropy.io.fits.open`.

    Raises
    ------
    InputRejected
        If `name` does not exist or is not a virtual product, or if S3 no longer has the version of
        the exposure that the product was built from.
    """
    layout, source = _unpack(name)
    file = ExpandedFile(layout, _open_source(name, source).read)
    return cast("BinaryIO", io.BufferedReader(file, _BUFFER))


def _expand(name: str, path: Path, force: bool) -> str:
    layout, source = _unpack(name)
    exists = os.path.lexists(path)
    if exists and not force:
        # Files appear whole, so equal headers and flags are enough: no pixel is fetched. DATE in
        # the headers differs if the product was built again, of another exposure.
        if not (path.is_file() and is_same(path, layout, None)):
            raise InputRejected(
                f"{path}: exists and is not the complete product of {name}; --force replaces it"
            )
        return "kept"
    with _progress(layout.length) as advance, ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        opened = _open_source(name, source)
        ranges = (piece.source for piece in layout.pieces(PIECE))
        ahead = _ReadAhead(filter(None, ranges), opened.read, pool)
        write(path, layout, replace(opened, read=ahead.read), advance)
    return "replaced" if exists else "expanded"


def _unpack(name: str) -> tuple[Layout, Source]:
    with open_input(name) as file:
        return unpack(file.read(0, file.size), name)


def _open_source(name: str, source: Source) -> Input:
    """Open the exposure that the virtual product `name` was built from.

    Raises `InputRejected` unless S3 has the exposure with the version, ETag and size in `source`.
    """
    location = S3Location(source.bucket, source.key, source.version or None)
    store = ObjectStore(s3_client())
    # S3 does not accept every name that a virtual product may hold.
    with translate_errors(f"{location}: looking it up", InputRejected):
        found = store.find(location)
    if found is None or (found.etag.strip('"'), found.size) != (source.etag, source.size):
        state = f"has ETag {found.etag} and {found.size} bytes" if found else "does not exist"
        current = store.find(S3Location(source.bucket, source.key))
        now = f"version {current.version_id}, of {current.last_modified}" if current else "none"
        raise InputRejected(
            f'{location}: {state}, expected ETag "{source.etag}" and {source.size} bytes, from '
            f"which {name} was built; the current version is {now}"
        )
    return Input(str(location), found.size, ObjectReader(store, found, InputRejected).read)


class _ReadAhead:
    """Byte ranges in a known order, fetched in parallel before they are read."""

    def __init__(self, ranges: Iterable[ByteRange], read: Reader, pool: ThreadPoolExecutor) -> None:
        self._ranges, self._read, self._pool = iter(ranges), read, pool
        self._waiting: deque[tuple[ByteRange, Future[bytes]]] = deque()

    def read(self, start: int, length: int) -> bytes:
        """Return the bytes of the next range, which must have this start and length."""
        while len(self._waiting) < _READS_AT_ONCE and (wanted := next(self._ranges, None)):
            future = self._pool.submit(self._read, wanted.start, wanted.length)
            self._waiting.append((wanted, future))
        wanted, future = self._waiting.popleft()
        assert wanted == ByteRange(start, length)
        return future.result()


@contextmanager
def _progress(length: int) -> Iterator[Any]:
    if not sys.stdout.isatty():
        yield lambda _: None
        return
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn  # noqa: PLC0415

    from infra.console import Console  # noqa: PLC0415

    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    # The redirection of rich would bypass `infra.cli.safe_output`, which then escapes the colours.
    with Progress(
        *columns,
        console=Console(),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task("expand", total=length)
        yield lambda number: progress.advance(task, number)
