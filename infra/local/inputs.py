"""Raw exposures on this machine or in S3, read by byte ranges."""

import fnmatch
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NoReturn

from core.errors import InputRejected, TransientFailure
from core.fits.hdus import Reader
from handler.s3.objects import HEADERS, ObjectStore, S3Location, enable_requester_pays
from handler.settings import bucket_names
from infra.cli import UserError


@dataclass(frozen=True)
class Input:
    """An open file or S3 object."""

    name: str  # path or S3 URI
    size: int  # bytes
    read: Reader
    fd: int | None = None  # descriptor of a local file; None for an S3 object
    modified: int = 0  # modification time of a local file when opened, in ns; 0 for S3

    def check_unchanged(self) -> None:
        """Raise `TransientFailure` if a local file's size or modification time has changed."""
        if self.fd is None:  # reads of S3 objects are pinned by ETag
            return
        now = os.fstat(self.fd)
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
            raise TransientFailure(f"{self.name}: was changed while it was read; run it again")


@contextmanager
def open_input(name: str, s3: Any = None) -> Iterator[Input]:
    """Open a regular file or an S3 object by its path or URI, or raise `InputRejected`."""
    if is_s3(name):
        try:
            location = S3Location.parse(name)
        except ValueError as exc:
            raise InputRejected(str(exc)) from exc
        reader = ObjectStore(s3 or s3_client()).begin(location, HEADERS, InputRejected)

        def fetch(start: int, length: int) -> bytes:
            return (reader.read if length > HEADERS else reader.read_ahead)(start, length)

        yield Input(name, reader.described.size, fetch)
        return
    path = Path(name)
    if not path.is_file():  # to open a named pipe would wait for its writer
        found = "is not a regular file" if path.exists() else "does not exist"
        raise InputRejected(f"{name}: {found}, expected a FITS file")
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        state = os.fstat(fd)

        def read(start: int, length: int) -> bytes:
            content = os.pread(fd, length, start)
            # One call reads at most 2 GiB.
            while len(content) < length and (
                more := os.pread(fd, length - len(content), start + len(content))
            ):
                content += more
            if len(content) < min(length, state.st_size - start):
                raise TransientFailure(f"{name}: was truncated while it was read; run it again")
            return content

        yield Input(name, state.st_size, read, fd, state.st_mtime_ns)


def is_s3(name: str) -> bool:
    """Return whether a name begins with ``s3://``."""
    return name.startswith("s3://")


@cache
def s3_client() -> Any:
    """Return the boto3 S3 client of this process, which the first call creates."""
    import boto3  # noqa: PLC0415  # takes a tenth of a second, and local files do not need it

    client = boto3.client("s3")
    enable_requester_pays(client, bucket_names(os.environ.get("REQUESTER_PAYS_BUCKETS", "")))
    return client


def expand(words: tuple[str, ...], pattern: str = "*_uncal.fits") -> list[str]:
    """Return the paths and S3 URIs that arguments name, each file or object once.

    Shell patterns stand for their matches; folders, and URIs that end with a slash, for files below
    them that match `pattern`. Raises `UserError` if one has none, or if a folder cannot be listed;
    plain paths are not checked.
    """
    found: dict[str, str] = {}  # the first name of each file
    for word in words:
        names = _expand_s3(word, pattern) if is_s3(word) else _expand_local(word, pattern)
        if not names:
            raise UserError(f"{word}: contains no {pattern}, expected one or more")
        for name in names:
            folder, _, file = name.rpartition("/")
            # Not Path.resolve, which raises an error for links that lead to themselves.
            found.setdefault(name if is_s3(name) else f"{os.path.realpath(folder)}/{file}", name)
    return list(found.values())


def check_outputs(outputs: dict[str, Path]) -> None:
    """Raise `UserError` if the output of an input is an input, or the output of another input."""
    inputs = {_inode(name): name for name in outputs if not is_s3(name)}
    seen: dict[Path, str] = {}
    for name, path in outputs.items():
        if (inode := _inode(path)) is not None and inode in inputs:
            raise UserError(
                f"{inputs[inode]}: would be replaced by the product of {name}, expected another "
                "file; choose another --output-dir"
            )
        if path in seen:
            raise UserError(
                f"{path}: would be the product of both {seen[path]} and {name}, expected names "
                "that differ; run them with different --output-dir"
            )
        seen[path] = name


def _inode(path: str | Path) -> tuple[int, int] | None:
    """Return a file's device and inode, equal for all names and links; None on an error."""
    try:
        state = Path(path).stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _expand_local(word: str, pattern: str) -> list[str]:
    if os.path.isdir(word):  # noqa: PTH112  # Path.is_dir raises an error for a long name
        return [str(file) for file in sorted(_files_below(word, pattern))]
    # A name such as x[1]_uncal.fits is a pattern only if no file has this name.
    if has_magic(word) and not os.path.lexists(word):
        matches = sorted(glob(word, recursive=True))  # noqa: PTH207  # Path.glob: relative ones only
        if not matches:
            raise UserError(f"{word}: matches no file or folder, expected one or more")
        return [name for match in matches for name in _expand_local(match, pattern)]
    return [word]


def _files_below(folder: str, pattern: str) -> Iterator[Path]:
    """Yield what matches a shell pattern below a folder and is not a folder itself."""
    seen = set()
    for parent, folders, names in os.walk(folder, onerror=_reject_folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link may lead to a folder above it
            folders.clear()
            continue
        seen.add(real)
        # A name that is not of a regular file, such as a link without target, fails when opened.
        yield from (Path(parent, name) for name in fnmatch.filter(names, pattern))


def _reject_folder(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename}: cannot be listed ({error.strerror}), expected a readable folder"
    ) from error


def _expand_s3(word: str, pattern: str) -> list[str]:
    try:
        location = S3Location.parse_prefix(word) if word.endswith("/") else S3Location.parse(word)
    except ValueError as exc:
        raise UserError(str(exc)) from exc
    if not word.endswith("/"):
        return [word]
    from infra.aws import listed  # noqa: PLC0415  # imports boto3

    prefix = f"{location.key}/" if location.key else ""
    keys = (item["Key"] for item in listed(s3_client(), location.bucket, prefix))
    return [str(S3Location(location.bucket, key)) for key in keys if key.endswith(pattern[1:])]
