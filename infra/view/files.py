"""FITS files on this machine or in S3, read by byte ranges."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from core.errors import InputRejected, ReferenceUnavailable
from core.fits.hdus import Hdu, Keywords, Reader, find, locate
from core.mask import Mask
from handler.s3.objects import S3Location
from infra.cli import UserError
from infra.local.inputs import is_s3, open_input


@dataclass(frozen=True)
class File:
    """An open FITS file: its HDUs, and a function that reads a byte range."""

    name: str  # path or S3 URI
    size: int
    read: Reader
    hdus: tuple[Hdu, ...]

    @property
    def stem(self) -> str:
        """The file name without folders and ``.fits``."""
        return self.name.rpartition("/")[2].removesuffix(".fits")

    @property
    def is_virtual(self) -> bool:
        """Whether the file is a virtual product, which has an HDU named LAYOUT."""
        return find(self.hdus, "LAYOUT") is not None

    @property
    def is_mask(self) -> bool:
        """Whether the file is a mask: REFTYPE is MASK, or it has an HDU DQ but no SCI."""
        if self.is_virtual:
            return False
        if Keywords(self.hdus[0].header, self.name).text("REFTYPE") == "MASK":
            return True
        return find(self.hdus, "SCI") is None and find(self.hdus, "DQ") is not None

    def content(self) -> bytes:
        """Return the whole file."""
        return self.read(0, self.size)

    def mask(self) -> Mask:
        """Return the mask that the file contains, named by `stem`, or raise `InputRejected`."""
        try:
            mask = Mask.from_bytes(self.content(), self.name)
        except ReferenceUnavailable as exc:  # the operator named the file
            raise InputRejected(str(exc)) from exc
        return replace(mask, name=self.stem)


@contextmanager
def open_file(name: str, s3: Any = None) -> Iterator[File]:
    """Open a FITS file by its path or S3 URI; `InputRejected` if it is missing or not FITS."""
    if is_s3(name):
        try:
            S3Location.parse(name)
        except ValueError as exc:
            raise UserError(f"{exc} of a FITS file; a mirror needs --detector NAME") from exc
    with open_input(name, s3) as file:
        yield File(name, file.size, file.read, locate(file.read, file.size, name))
