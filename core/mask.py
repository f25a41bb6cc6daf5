"""A MASK reference file: its flags, and the area of the detector that it covers."""

import logging
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.errors import InputRejected, ReferenceUnavailable
from core.exposure import Subarray
from core.fits.cards import header_bytes
from core.fits.hdus import Hdu, Keywords, find_all, locate_in, shape_text
from core.fits.pixels import data_of, decode, integer_flags
from core.flags import FlagDefinition, translate

log = logging.getLogger(__name__)

_ADVICE = "name another mask or context, or report the file to CRDS"

_FULL_FRAME = (2048, 2048)
_FULL_FRAMES = {"MIRI": (1024, 1032)}  # (rows, columns)
_MOST_COLUMNS = 999  # FITS Standard 4.0, section 7.3.1
_MOST_DEFINITIONS = 1024  # there are 32 bits to define


@dataclass(frozen=True)
class Mask:
    """A mask, ready to be cut to a readout."""

    name: str  # file name or URI, for messages
    dq: NDArray[np.uint32]  # standard flags, shape (rows, columns), science frame, read-only
    instrument: str  # INSTRUME in upper case; empty if the header has none
    subarray: Subarray | None  # the area that the header declares; None if a keyword is missing
    # SUBSTRT1 and SUBSTRT2 one by one, because a stripe readout needs only one of them.
    corner: tuple[int | None, int | None] = (None, None)
    detector: str = ""  # DETECTOR in upper case; empty if the header has none

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Mask":
        """Read a MASK reference file, in FITS, and translate its bits to the standard flags.

        Raises
        ------
        ReferenceUnavailable
            If it is not a FITS file, is damaged or compressed, lacks a 2-D DQ image of whole
            numbers, or its DQ_DEF table, INSTRUME, DETECTOR or a subarray keyword is invalid;
            each of these may be missing.
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
        """The area that the four subarray keywords of the mask declare, else the full frame.

        The full frame, with a logged warning, is for a mask that lacks one of them; unless its
        array has the shape of `full_frame`, `ReferenceUnavailable` is raised.
        """
        if self.subarray is not None:
            return self.subarray
        full = full_frame(self.instrument)
        if self.dq.shape != full:
            raise ReferenceUnavailable(
                f"{self.name}: lacks subarray keywords and its array has shape "
                f"{shape_text(self.dq.shape)}, expected the full frame {shape_text(full)}; "
                f"{_ADVICE}"
            )
        log.warning("%s: lacks subarray keywords; treated as full frame", self.name)
        return Subarray(1, 1, full[1], full[0])


def full_frame(instrument: str) -> tuple[int, int]:
    """Return the shape (rows, columns) of an instrument's mask that covers a whole detector.

    `instrument` is in upper case. Every name except MIRI, even an unknown or empty one, gives
    (2048, 2048).
    """
    return _FULL_FRAMES.get(instrument, _FULL_FRAME)


def own_flags(hdus: tuple[Hdu, ...], content: bytes, name: str) -> NDArray[np.uint32]:
    """Return a mask's DQ array (rows, columns), not yet translated to standard flags.

    Raises `ReferenceUnavailable` without a 2-D DQ image of EXTVER 1, and `InputRejected` if its
    pixels are scaled, or floats that are not whole numbers from 0 to 2**32 - 1.
    """
    hdu = _find(hdus, "DQ", name)
    if hdu is None:
        names = ", ".join(hdu.name or "unnamed" for hdu in hdus)
        raise ReferenceUnavailable(
            f"{name}: no DQ array among its HDUs ({names}), expected a MASK file; {_ADVICE}"
        )
    if not hdu.is_image or len(hdu.shape) != 2:
        kind = "an image" if hdu.is_image else "a table"
        raise ReferenceUnavailable(
            f"{name}: DQ is {kind} of shape {shape_text(hdu.shape)}, expected a 2-D image; "
            f"{_ADVICE}"
        )
    flags = integer_flags(decode(hdu, data_of(hdu, content), name), f"{name}, DQ")
    return flags.astype(np.uint32, copy=False)


def _find(hdus: tuple[Hdu, ...], extname: str, name: str) -> Hdu | None:
    """Return the first HDU with that EXTNAME, as `jwst` does, or None; raise if EXTVER is not 1."""
    hdu = next(iter(find_all(hdus, extname)), None)
    if hdu is not None and hdu.version != 1:
        raise ReferenceUnavailable(
            f"{name}: {extname} has EXTVER {hdu.version_text}, expected 1; {_ADVICE}"
        )
    return hdu


def definitions(hdus: tuple[Hdu, ...], content: bytes, name: str) -> list[FlagDefinition]:
    """Return the rows of a mask's DQ_DEF table; an empty list if the table is missing or empty."""
    hdu = _find(hdus, "DQ_DEF", name)
    if hdu is None:
        return []
    name = f"{name}, DQ_DEF"
    kind = hdu.header.get("XTENSION", "IMAGE")
    if kind not in ("TABLE", "BINTABLE"):
        raise ReferenceUnavailable(
            f"{name}: XTENSION is {kind!r}, expected TABLE or BINTABLE; {_ADVICE}"
        )
    # Bounded before astropy sees it, which allocates memory for as many columns as TFIELDS says.
    fields = Keywords(hdu.header, name, ReferenceUnavailable).required_integer("TFIELDS")
    if not 0 <= fields <= _MOST_COLUMNS or hdu.shape[0] > _MOST_DEFINITIONS:
        raise ReferenceUnavailable(
            f"{name}: {fields} columns and {hdu.shape[0]} rows, expected at most {_MOST_COLUMNS} "
            f"and {_MOST_DEFINITIONS}; {_ADVICE}"
        )
    reader = fits.TableHDU if kind == "TABLE" else fits.BinTableHDU
    try:
        # The header is serialised again because `locate` may have repaired it.
        stored = content[hdu.data_start : hdu.end].ljust(hdu.end - hdu.data_start, b"\0")
        table = reader.fromstring(header_bytes(hdu.header, "DQ_DEF") + stored).data
        if table is None:
            return []
        rows = []
        for number, (value, mnemonic) in enumerate(
            zip(table["VALUE"], table["NAME"], strict=True), 1
        ):
            if value != int(value):  # VALUE may be stored as a float
                raise ValueError(f"row {number}: VALUE is {value}, expected an integer")  # noqa: TRY301
            rows.append(FlagDefinition(int(value), str(mnemonic).strip()))
    # astropy passes on any error of numpy for a damaged column: AttributeError, MemoryError, ...
    except Exception as exc:
        raise ReferenceUnavailable(f"{name}: the table cannot be read: {exc}; {_ADVICE}") from exc
    return rows
