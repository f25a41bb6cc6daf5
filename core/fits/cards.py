"""Editing the cards of a header, and writing a header as it lies in the file."""

import warnings

from astropy.io import fits
from astropy.io.fits.verify import VerifyError, VerifyWarning

from core.errors import InputRejected
from core.fits.pixels import PixelFormat

__all__ = ["CHECKSUMS", "HeaderCard", "header_bytes", "image_header", "set_card", "set_section"]

HeaderCard = tuple[str, str, str]
"""Keyword, value and comment."""

CHECKSUMS = ("CHECKSUM", "DATASUM")
"""Keywords that are wrong once anything of an HDU changes."""

_STRUCTURE = frozenset(
    {"XTENSION", "BITPIX", "PCOUNT", "GCOUNT", "BSCALE", "BZERO", "BLANK", "EXTNAME", "EXTVER"}
)


def set_card(header: fits.Header, card: HeaderCard, name: str) -> None:
    """Set a card where it is, or at the end.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        The header; it is changed.
    card : tuple of str
        Keyword, value and comment.
    name : str
        The file's name, for messages.

    Raises
    ------
    InputRejected
        If the card that is there cannot be replaced, or the value is not ASCII.
    """
    keyword, value, comment = card
    try:
        if keyword in header:
            header[keyword] = (value, comment)
        else:
            header.append(card, end=True)
    except ValueError as exc:  # a value that is not ASCII; a card that astropy keeps as it is
        raise InputRejected(f"{name}: {keyword} cannot be set to {value!r}: {exc}") from exc


def set_section(header: fits.Header, title: str, cards: list[HeaderCard], name: str) -> None:
    """Set cards; where none of them is there yet, put them under a title at the end.

    Parameters and errors are those of `set_card`.
    """
    if not any(keyword in header for keyword, _, _ in cards):
        for line in ("", title, ""):
            header.append(("", line), end=True)
    for card in cards:
        set_card(header, card, name)


def header_bytes(header: fits.Header, name: str) -> bytes:
    """Return a header as it lies in the file, END and padding included.

    Raises
    ------
    InputRejected
        If a card of the input cannot be written.
    """
    try:
        with warnings.catch_warnings():
            # A long value may leave no room for its comment.
            warnings.simplefilter("ignore", VerifyWarning)
            text: str = header.tostring()
    except (VerifyError, ValueError) as exc:
        raise InputRejected(f"{name}: a header has a card that cannot be kept: {exc}") from exc
    return text.encode("ascii")


def image_header(
    name: str,
    pixel_format: PixelFormat,
    shape: tuple[int, ...],
    existing: fits.Header | None = None,
) -> fits.Header:
    """Return the header of an image HDU.

    Parameters
    ----------
    name : str
        EXTNAME.
    pixel_format : `~core.fits.pixels.PixelFormat`
        How its pixels are stored.
    shape : tuple of int
        Of the array, in numpy's order.
    existing : `~astropy.io.fits.Header` or None
        The header of the array that it replaces; its cards that say nothing of the structure are
        kept.
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
    for card in existing.cards if existing is not None else ():
        if not _is_structural(card.keyword):
            header.append(card, end=True)
    return header


def _is_structural(keyword: str) -> bool:
    return keyword in _STRUCTURE or keyword in CHECKSUMS or keyword.startswith("NAXIS")
