"""Reading what is to be looked at, on this machine or in S3: its headers, and its planes only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.fits.hdus import Hdu, Keywords, Reader, find, locate
from handler.s3.objects import ObjectStore, S3Location, Window
from infra.cli import UserError

__all__ = ["File", "opened"]

_S3 = "s3://"


@dataclass(frozen=True)
class File:
    """A FITS file, open for reading of byte ranges.

    Attributes
    ----------
    name : str
        As it was named.
    size : int
        Bytes.
    read : callable
        Reads a range.
    hdus : tuple of `~core.fits.hdus.Hdu`
        Its HDUs.
    """

    name: str
    size: int
    read: Reader
    hdus: tuple[Hdu, ...]

    @property
    def stem(self) -> str:
        """Its file name, without folders and ending."""
        return self.name.rpartition("/")[2].removesuffix(".fits")

    @property
    def is_mask(self) -> bool:
        """Whether it is a MASK reference file."""
        words = Keywords(self.hdus[0].header, self.name)
        return words.text("REFTYPE") == "MASK" or (
            find(self.hdus, "SCI") is None and find(self.hdus, "DQ") is not None
        )

    def content(self) -> bytes:
        """Read it as a whole."""
        return self.read(0, self.size)


@contextmanager
def opened(name: str, s3: Any) -> Iterator[File]:
    """Open a file by its path or address.

    Raises
    ------
    UserError
        If there is none.
    InputRejected
        If it is no FITS file.
    """
    if name.startswith(_S3):
        store = ObjectStore(s3)
        try:
            place = S3Location.parse(name)
        except ValueError as exc:
            raise UserError(f"{exc}; with --detector a mirror is meant") from exc
        found = store.describe(place, UserError)
        read: Reader = Window(store, found, UserError).read
        yield File(name, found.size, read, locate(read, found.size, name))
        return
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{name}: no such file")
    with path.open("rb") as file:

        def ranged(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        size = path.stat().st_size
        yield File(name, size, ranged, locate(ranged, size, name))
