"""A MASK reference file: its flags, and the area of the detector that it covers."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.errors import InputRejected, ReferenceUnavailable
from core.fits.cards import header_bytes
from core.fits.hdus import Hdu, Keywords, find
from core.fits.pixels import data_of, decode, locate_in, whole_numbers
from core.flags import FlagDefinition, translate
from core.subarray import Subarray

__all__ = ["Mask", "definitions", "full_frame", "own_flags"]

log = logging.getLogger(__name__)

_FULL_FRAMES = {"MIRI": (1024, 1032)}  # (rows, columns); every other detector is square
_FULL_FRAME = (2048, 2048)
_MOST_COLUMNS = 999  # FITS Standard 4.0, section 7.3.1
_MOST_DEFINITIONS = 1024
"""Rows of DQ_DEF; there are 32 bits to define."""


@dataclass(frozen=True)
class Mask:
    """A mask, ready to be cut to a readout.

    Attributes
    ----------
    name : str
        File name, as R_MASK gives it.
    dq : ndarray of uint32
        Standard flags, shape (rows, columns), science frame. Not to be written to.
    instrument : str
        INSTRUME, in upper case.
    detector : str
        DETECTOR, in upper case; empty where the header has none.
    subarray : `~core.subarray.Subarray` or None
        What the header declares; None where it declares nothing or only a part.
    corner : tuple of int or None
        SUBSTRT1 and SUBSTRT2, 1-based, each by itself: stripes need one of them only.
    """

    name: str
    dq: NDArray[np.uint32]
    instrument: str
    subarray: Subarray | None
    corner: tuple[int | None, int | None] = (None, None)
    detector: str = ""

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Mask":
        """Read a MASK reference file and translate its bits to the standard flags.

        Parameters
        ----------
        content : bytes
            The file.
        name : str
            Its name.

        Raises
        ------
        ReferenceUnavailable
            If it is no FITS file, is compressed, has no 2-D DQ array of whole numbers, or its
            DQ_DEF table cannot be read.
        """
        try:
            hdus = locate_in(content, name)
            dq = own_flags(hdus, content, name)
        except InputRejected as exc:
            raise ReferenceUnavailable(str(exc)) from exc
        standard = translate(dq, definitions(hdus, content, name), name)
        standard.setflags(write=False)
        keywords = Keywords(hdus[0].header, name, ReferenceUnavailable)
        return cls(
            name=name,
            dq=standard,
            instrument=(keywords.text("INSTRUME") or "").upper(),
            subarray=Subarray.from_keywords(keywords),
            corner=(keywords.integer("SUBSTRT1"), keywords.integer("SUBSTRT2")),
            detector=(keywords.text("DETECTOR") or "").upper(),
        )

    @property
    def area(self) -> Subarray:
        """What the mask covers: as its header declares it, or else the full frame.

        Raises
        ------
        ReferenceUnavailable
            If the header declares nothing and the array is not a full frame.
        """
        if self.subarray is not None:
            return self.subarray
        full = full_frame(self.instrument)
        if self.dq.shape != full:
            raise ReferenceUnavailable(
                f"{self.name}: no subarray keywords, and its array is {self.dq.shape}, "
                f"expected the full frame {full}"
            )
        log.warning("%s: no subarray keywords; taken as full frame", self.name)
        return Subarray(1, 1, full[1], full[0])


def full_frame(instrument: str) -> tuple[int, int]:
    """Return rows and columns of a mask that covers all of a detector.

    Parameters
    ----------
    instrument : str
        INSTRUME, in upper case.
    """
    return _FULL_FRAMES.get(instrument, _FULL_FRAME)


def own_flags(hdus: tuple[Hdu, ...], content: bytes, name: str) -> NDArray[np.uint32]:
    """Return a mask's DQ array in its own bits, shape (rows, columns), science frame.

    Parameters
    ----------
    hdus : tuple of `~core.fits.hdus.Hdu`
        The file's HDUs.
    content : bytes
        The file.
    name : str
        Its name.

    Raises
    ------
    ReferenceUnavailable, InputRejected
        If there is no 2-D DQ array of whole numbers.
    """
    hdu = find(hdus, "DQ")
    if hdu is None:
        names = ", ".join(hdu.name or "unnamed" for hdu in hdus)
        raise ReferenceUnavailable(f"{name}: no DQ array among its HDUs ({names})")
    if not hdu.is_image or len(hdu.shape) != 2:
        raise ReferenceUnavailable(
            f"{name}: DQ is {hdu.header.get('XTENSION')} of shape {hdu.shape}, expected a 2-D image"
        )
    flags = whole_numbers(decode(hdu, data_of(hdu, content), name), f"{name}, DQ")
    return flags.astype(np.uint32, copy=False)


def definitions(hdus: tuple[Hdu, ...], content: bytes, name: str) -> list[FlagDefinition]:
    """Return the rows of a mask's DQ_DEF; none where the table is absent or empty.

    Parameters
    ----------
    hdus : tuple of `~core.fits.hdus.Hdu`
        The file's HDUs.
    content : bytes
        The file.
    name : str
        Its name.

    Raises
    ------
    ReferenceUnavailable
        If the table cannot be read.
    """
    hdu = find(hdus, "DQ_DEF")
    if hdu is None:
        return []
    _check_table(hdu, name)
    reader = fits.TableHDU if hdu.header["XTENSION"] == "TABLE" else fits.BinTableHDU
    try:
        table = reader.fromstring(_bytes_of(hdu, content)).data
        if table is None:
            return []
        values, names = table["VALUE"], table["NAME"]
        return [
            FlagDefinition(_whole(value), str(mnemonic).strip())
            for value, mnemonic in zip(values, names, strict=True)
        ]
    # astropy raises whatever numpy does with a damaged column: AttributeError, MemoryError, ...
    except Exception as exc:
        raise ReferenceUnavailable(f"{name}, DQ_DEF: the table cannot be read: {exc}") from exc


def _check_table(hdu: Hdu, name: str) -> None:
    """Check that DQ_DEF is a table of bounded size: astropy allocates what TFIELDS says."""
    kind = hdu.header.get("XTENSION", "IMAGE")
    if kind not in ("TABLE", "BINTABLE"):
        raise ReferenceUnavailable(f"{name}, DQ_DEF: is {kind}, expected a table")
    keywords = Keywords(hdu.header, f"{name}, DQ_DEF", ReferenceUnavailable)
    fields, rows = keywords.required_integer("TFIELDS"), hdu.shape[0]
    if not 0 <= fields <= _MOST_COLUMNS or rows > _MOST_DEFINITIONS:
        raise ReferenceUnavailable(
            f"{name}, DQ_DEF: {fields} columns and {rows} rows, expected at most {_MOST_COLUMNS} "
            f"and {_MOST_DEFINITIONS}"
        )


def _bytes_of(hdu: Hdu, content: bytes) -> bytes:
    """Return an HDU for astropy, its header written again: ours may have been repaired."""
    header = header_bytes(hdu.header, "DQ_DEF")
    return header + content[hdu.data_start : hdu.end].ljust(hdu.end - hdu.data_start, b"\0")


def _whole(value: Any) -> int:
    """Return a value of the VALUE column, which may be stored as a float, as an integer."""
    if value != int(value):
        raise ValueError(f"VALUE is {value}, expected a whole number")
    return int(value)
