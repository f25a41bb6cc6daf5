"""Header cards: setting them, and serialising a header."""

import warnings

from astropy.io import fits
from astropy.io.fits.verify import VerifyError, VerifyWarning

from core.errors import InputRejected
from core.fits.hdus import Hdu
from core.fits.pixels import PixelFormat

HeaderCard = tuple[str, str, str]
"""A header card: keyword, value and comment."""

CHECKSUMS = frozenset({"CHECKSUM", "DATASUM"})
"""Keywords of checksums, which are wrong as soon as anything in their HDU changes."""

_STRUCTURE = CHECKSUMS | frozenset(
    {"XTENSION", "BITPIX", "PCOUNT", "GCOUNT", "BSCALE", "BZERO", "BLANK", "EXTNAME", "EXTVER"}
)


def set_card(header: fits.Header, card: HeaderCard, name: str) -> None:
    """Replace the card with the same keyword in a header, or append the card at the end.

    Raises `InputRejected` if the value is not printable ASCII, or the card to replace cannot be
    parsed.
    """
    keyword, value, comment = card
    try:
        if keyword in header:
            header[keyword] = (value, comment)
        else:
            header.append(card, end=True)
    except ValueError as exc:  # the value is not ASCII, or astropy cannot parse the present card
        raise InputRejected(
            f"{name}, primary header: {keyword} cannot be set to {value!r}: {exc}; expected an "
            "ASCII value and, if the card exists, a valid one; correct the input"
        ) from exc


def set_section(header: fits.Header, title: str, cards: list[HeaderCard], name: str) -> None:
    """Replace or append cards of a header; if it has none of them, append a title first."""
    if not any(keyword in header for keyword, _, _ in cards):
        for line in ("", title, ""):
            header.append(("", line), end=True)
    for card in cards:
        set_card(header, card, name)


def header_bytes(header: fits.Header, name: str) -> bytes:
    """Return a header as FITS bytes with END and padding, or raise `InputRejected`."""
    try:
        with warnings.catch_warnings():
            # A long value may leave no room for its comment.
            warnings.simplefilter("ignore", VerifyWarning)
            text: str = header.tostring()
    except (VerifyError, ValueError) as exc:
        raise InputRejected(f"{name}: a header card cannot be written: {exc}; correct it") from exc
    return text.encode("ascii")


def table_header(
    columns: list[tuple[str, str]], row_bytes: int, rows: int, heap_bytes: int = 0
) -> fits.Header:
    """Return the header of a new binary table HDU; `columns` are pairs of TTYPEn and TFORMn.

    `row_bytes` is NAXIS1, `rows` NAXIS2, `heap_bytes` PCOUNT. The header has no EXTNAME.
    """
    header = fits.Header()
    header["XTENSION"] = ("BINTABLE", "binary table extension")
    header["BITPIX"] = 8
    header["NAXIS"] = 2
    header["NAXIS1"] = row_bytes
    header["NAXIS2"] = rows
    header["PCOUNT"] = heap_bytes
    header["GCOUNT"] = 1
    header["TFIELDS"] = len(columns)
    for number, (name, form) in enumerate(columns, start=1):
        header[f"TTYPE{number}"] = name
        header[f"TFORM{number}"] = form
    return header


def image_header(
    name: str, pixel_format: PixelFormat, shape: tuple[int, ...], existing: Hdu | None = None
) -> fits.Header:
    """Return the header of a new image HDU, with EXTNAME `name` and EXTVER 1.

    Cards of `existing`, the HDU that it replaces, are kept, except checksums and those that define
    the array: NAXISn, PCOUNT, BSCALE, BZERO, BLANK and so on.
    """
    header = fits.Header()
    header["XTENSION"] = ("IMAGE", "Image extension")
    header["BITPIX"] = (pixel_format.bitpix, "array data type")
    header["NAXIS"] = (len(shape), "number of array dimensions")
    for axis, size in enumerate(reversed(shape), start=1):
        header[f"NAXIS{axis}"] = size
    header["PCOUNT"] = (0, "number of parameters")
    header["GCOUNT"] = (1, "number of groups")
    if pixel_format.offset:
        header["BSCALE"] = 1
        header["BZERO"] = 1 << (pixel_format.bitpix - 1)
    header["EXTNAME"] = (name, "extension name")
    header["EXTVER"] = (1, "extension value")
    for card in existing.header.cards if existing is not None else ():
        if card.keyword not in _STRUCTURE and not card.keyword.startswith("NAXIS"):
            header.append(card, end=True)
    return header
