"""FITS files on this machine or in S3, read by byte ranges."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.fits.hdus import Hdu, Keywords, Reader, find, locate
from handler.s3.objects import ObjectReader, ObjectStore, S3Location
from infra.cli import UserError


@dataclass(frozen=True)
class File:
    """An open FITS file: its HDUs, and a function that reads bytes from a start."""

    name: str  # path or S3 URI
    size: int
    read: Reader
    hdus: tuple[Hdu, ...]

    @property
    def stem(self) -> str:
        """The file name without folders and ``.fits``."""
        return self.name.rpartition("/")[2].removesuffix(".fits")

    @property
    def is_mask(self) -> bool:
        """Whether the file is a MASK reference file."""
        if Keywords(self.hdus[0].header, self.name).text("REFTYPE") == "MASK":
            return True
        return find(self.hdus, "SCI") is None and find(self.hdus, "DQ") is not None

    def content(self) -> bytes:
        """Return the whole file."""
        return self.read(0, self.size)


@contextmanager
def open_file(name: str, s3: Any) -> Iterator[File]:
    """Open a FITS file by its path or S3 URI, or raise `UserError` if it does not exist."""
    if name.startswith("s3://"):
        store = ObjectStore(s3)
        try:
            location = S3Location.parse(name)
        except ValueError as exc:
            raise UserError(f"{exc} of a FITS file; a mirror needs --detector NAME") from exc
        found = store.describe(location, UserError)
        reader = ObjectReader(store, found, UserError)
        yield File(name, found.size, reader.read, locate(reader.read_ahead, found.size, name))
        return
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{name}: no such file, expected a FITS file or s3://bucket/key")
    with path.open("rb") as file:

        def read_range(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        size = path.stat().st_size
        yield File(name, size, read_range, locate(read_range, size, name))
