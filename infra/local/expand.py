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

from core.errors import InputRejected, TransientFailure
from core.fits.hdus import Reader, find, locate
from core.layout import ByteRange, Layout
from core.product import expanded_name
from core.virtual import ExpandedFile, Source, unpack
from handler.s3.errors import is_denied, translate_errors
from handler.s3.objects import ObjectReader, ObjectStore, S3Location, StoredObject
from infra import options
from infra.local.inputs import Input, check_outputs, expand, open_input, s3_client
from infra.local.product import PIECE, how_to_replace, is_same, remove_leftovers, write
from infra.local.report import show_line
from infra.local.run import EXIT_CODES, FAILURES, describe_failure, worst

_PATTERN = "*dq_init_virtual.fits"  # of x-uncal.fits it is x-dq_init_virtual.fits
_READS_AT_ONCE = 8  # S3 sends some 50 to 90 MB/s on one connection
_BUFFER = 128 * 1024  # most headers fit into one read


@click.command
@click.argument("products", metavar="PRODUCT...", nargs=-1, required=True)
@click.option("--output-dir", type=options.FOLDER, default=Path(), help="Folder of the files.")
@click.option("--force", is_flag=True, help="Write all files, whatever exists at their paths.")
@options.as_json
def command(products: tuple[str, ...], output_dir: Path, force: bool, as_json: bool) -> None:
    """Write virtual products as complete files; the pixels are read from the exposures in S3.

    PRODUCT is a file, a folder, a pattern of local names or an S3 URI. A folder, whose URI ends
    with a slash in S3, stands for every *dq_init_virtual.fits below it. A file of the product's
    size, headers and flags is kept without reading its pixels; any other file at its path is a
    failure. --force replaces both. Run the same command again to resume: it begins with the first
    file that is not complete.

    S3 must allow s3:GetObject on the exposures, s3:GetObjectVersion if their bucket has versions,
    and the use of their KMS key. REQUESTER_PAYS_BUCKETS names buckets whose charges you accept.

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
            outcome["status"] = _expand(name, path, force, hidden=as_json)
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


def open_virtual(name: str | os.PathLike[str]) -> BinaryIO:
    """Open a virtual product as its complete file, read-only; pixels are fetched when read.

    Parameters
    ----------
    name : str or path-like
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
    name = os.fspath(name)
    layout, source = _unpack(name)
    file = ExpandedFile(layout, _open_source(name, source).read)
    return cast("BinaryIO", io.BufferedReader(file, _BUFFER))


def _expand(name: str, path: Path, force: bool, hidden: bool) -> str:
    layout, source = _unpack(name)
    exists = os.path.lexists(path)
    if exists and not force:
        # Files appear whole, so equal headers and flags are enough: no pixel is fetched. DATE in
        # the headers differs if the product was built again, of another exposure.
        if not (path.is_file() and is_same(path, layout, None)):
            raise InputRejected(
                f"{path}: exists and is not the complete product of {name}; {how_to_replace(path)}"
            )
        return "kept"
    opened = _open_source(name, source)
    with _progress(layout.length, hidden) as advance, ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        ranges = (piece.source for piece in layout.pieces(PIECE))
        ahead = _ReadAhead(filter(None, ranges), opened.read, pool)
        write(path, layout, replace(opened, read=ahead.read), advance)
    return "replaced" if exists else "expanded"


def _unpack(name: str) -> tuple[Layout, Source]:
    with open_input(name) as file:
        # A complete product, given by mistake, may be larger than the memory.
        if find(locate(file.read, file.size, name), "LAYOUT") is None:
            raise InputRejected(f"{name}: has no HDU LAYOUT, expected a virtual product")
        return unpack(file.read(0, file.size), name)


def _open_source(name: str, source: Source) -> Input:
    """Open the exposure that the virtual product `name` was built from.

    Here and in later reads, `InputRejected` unless S3 has the exposure, as `_find_source` says.
    """
    found = _find_source(name, source)
    reader = ObjectReader(ObjectStore(s3_client()), found, InputRejected)

    def read(start: int, length: int) -> bytes:
        try:
            return reader.read(start, length)
        except TransientFailure:
            _find_source(name, source)  # raises what is there if the exposure is gone
            raise

    return Input(str(found.location), found.size, read)


def _find_source(name: str, source: Source) -> StoredObject:
    """Return the exposure in S3 with the ETag and size in `source`, or raise `InputRejected`."""
    store, location = ObjectStore(s3_client()), S3Location(source.bucket, source.key)
    # Without permission for versions, the current one may be read. What a bucket contained before
    # it had versions is the version "null".
    versions = (source.version, None) if source.version else (None, "null")
    states: list[str] = []
    denied: TransientFailure | None = None
    for version in versions:
        wanted = replace(location, version_id=version)
        try:
            # S3 does not accept every name that a virtual product may hold.
            with translate_errors(f"{wanted}: looking it up", InputRejected):
                found = store.find(wanted)
        except TransientFailure as exc:
            if not is_denied(exc):
                raise
            denied = denied or exc
            continue
        if found is not None and (found.etag.strip('"'), found.size) == (source.etag, source.size):
            return found
        if version != "null":
            states.append(_version_text(version, found))
    if denied is not None and (source.version or not states):
        raise denied
    raise InputRejected(
        f'{location}: {"; ".join(states)}; expected ETag "{source.etag}" and {source.size} bytes, '
        f"from which {name} was built"
    )


def _version_text(version: str | None, found: StoredObject | None) -> str:
    what = f"version {version}" if version else "the current version"
    if found is None:
        return f"{what} does not exist"
    number = f"{found.version_id}, " if not version and found.version_id else ""
    return f"{what} ({number}of {found.last_modified}) has ETag {found.etag} and {found.size} bytes"


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
def _progress(length: int, hidden: bool) -> Iterator[Any]:
    if hidden or not sys.stdout.isatty():
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
