"""Where each HDU of a FITS file lies, found by reading its headers and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass

from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from core import keywords
from core.errors import InputRejected

__all__ = ["BLOCK", "Hdu", "find", "locate", "padding"]

BLOCK = 2880
"""FITS Standard 4.0, section 3.1: files are sequences of blocks of 2880 bytes."""

_LARGEST_HEADER = 400 * BLOCK
_MOST_HDUS = 512
_PRINTABLE = bytes(range(0x20, 0x7F))  # FITS Standard 4.0, section 4.1.2.3
_LARGEST_AXES = 999  # FITS Standard 4.0, section 4.4.1.1

Reader = Callable[[int, int], bytes]
"""``read(start, length)`` returns that byte range of the file, less where the file ends."""


@dataclass(frozen=True)
class Hdu:
    """One header and data unit, and its place in the file.

    Attributes
    ----------
    header : `~astropy.io.fits.Header`
        Its header.
    start : int
        Offset of the header's first byte.
    data_start : int
        Offset of the first byte after the header.
    data_length : int
        Bytes of data, without the padding that fills the last block.
    """

    header: fits.Header
    start: int
    data_start: int
    data_length: int

    @property
    def name(self) -> str:
        """EXTNAME in upper case; ``PRIMARY`` for the first HDU, empty where there is none."""
        if self.start == 0:
            return "PRIMARY"
        return (keywords.text(self.header, "EXTNAME", "extension") or "").strip().upper()

    @property
    def end(self) -> int:
        """Offset of the first byte after the HDU's padding."""
        return self.data_start + self.data_length + padding(self.data_length)

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes in numpy's order (the last varies fastest)."""
        naxis = int(self.header["NAXIS"])
        return tuple(int(self.header[f"NAXIS{axis}"]) for axis in range(naxis, 0, -1))

    @property
    def is_image(self) -> bool:
        """Whether the data are an array of pixels."""
        return self.start == 0 or self.header["XTENSION"] == "IMAGE"


def padding(length: int) -> int:
    """Return how many bytes fill `length` bytes of data up to whole FITS blocks."""
    return -length % BLOCK


def find(hdus: tuple[Hdu, ...], name: str) -> Hdu | None:
    """Return the first HDU of that EXTNAME, or None."""
    return next((hdu for hdu in hdus if hdu.name == name), None)


def locate(read: Reader, size: int, owner: str) -> tuple[Hdu, ...]:
    """Read the headers of a FITS file one by one, stepping over the data.

    Parameters
    ----------
    read : callable
        ``read(start, length)`` returns a byte range of the file.
    size : int
        Length of the file in bytes.
    owner : str
        The file's name, for messages.

    Returns
    -------
    tuple of `Hdu`
        In the order of the file.

    Raises
    ------
    InputRejected
        If the file is empty, is not FITS, has a header that cannot be read, or ends before the
        data that a header declares.
    """
    if size == 0:
        raise InputRejected(f"{owner}: the file is empty, expected FITS")
    found: list[Hdu] = []
    position = 0
    while position < size and not _only_padding(read, position, size, found):
        if len(found) == _MOST_HDUS:
            raise InputRejected(f"{owner}: more than {_MOST_HDUS} HDUs")
        hdu = _read_hdu(read, position, size, f"{owner}, HDU {len(found)}")
        found.append(hdu)
        position = hdu.end
    return tuple(found)


def _only_padding(read: Reader, position: int, size: int, found: list[Hdu]) -> bool:
    """Whether what follows the last HDU is filler: the standard lets readers ignore it."""
    if not found:
        return False
    rest = read(position, min(BLOCK, size - position))
    return not rest.strip(b"\0 ")


def _read_hdu(read: Reader, start: int, size: int, owner: str) -> Hdu:
    """Read the header at `start` and check that its data lie inside the file."""
    text = _header_text(read, start, size, owner)
    header = _parse(text, owner)
    _check_structure(header, owner)
    data_start = start + len(text)
    hdu = Hdu(header, start, data_start, int(header.data_size))
    if hdu.data_start + hdu.data_length > size:
        raise InputRejected(
            f"{owner} ({hdu.name or 'unnamed'}): truncated: its data should reach byte "
            f"{hdu.data_start + hdu.data_length}, the file has {size}"
        )
    return hdu


def _header_text(read: Reader, start: int, size: int, owner: str) -> bytes:
    """Collect blocks until one holds the END card."""
    blocks: list[bytes] = []
    for offset in range(start, start + _LARGEST_HEADER, BLOCK):
        block = read(offset, BLOCK)
        if not blocks:
            _check_signature(block, start, owner)
        if len(block) < BLOCK:
            raise InputRejected(f"{owner}: truncated: the header has no END, the file {size} bytes")
        blocks.append(block)
        cards = (block[i : i + 80] for i in range(0, BLOCK, 80))
        if any(card.rstrip() == b"END" for card in cards):
            return b"".join(blocks)
    raise InputRejected(f"{owner}: no END card within {_LARGEST_HEADER} bytes of header")


def _check_signature(block: bytes, start: int, owner: str) -> None:
    expected = b"SIMPLE  =" if start == 0 else b"XTENSION="
    if not block.startswith(expected):
        raise InputRejected(
            f"{owner}: not FITS: the header starts with {block[:9]!r}, expected {expected!r}"
        )


def _parse(text: bytes, owner: str) -> fits.Header:
    """Turn header blocks into cards."""
    strange = text.translate(None, _PRINTABLE)
    if strange:
        raise InputRejected(
            f"{owner}: the header holds bytes that no FITS header has: {strange[:9]!r}"
        )
    try:
        header = fits.Header.fromstring(text)
        for card in header.cards:
            _ = card.value  # astropy reads a card when it is looked at: damage shall show here
    except (VerifyError, ValueError) as exc:
        raise InputRejected(f"{owner}: the header cannot be read: {exc}") from exc
    return header


def _check_structure(header: fits.Header, owner: str) -> None:
    """Check the keywords that say how long the data are (FITS Standard 4.0, section 4.4.1)."""
    if _required(header, "BITPIX", owner) not in (8, 16, 32, 64, -32, -64):
        raise InputRejected(f"{owner}: BITPIX is {header['BITPIX']!r}")
    naxis = _required(header, "NAXIS", owner)
    if not 0 <= naxis <= _LARGEST_AXES:
        raise InputRejected(f"{owner}: NAXIS is {naxis}, expected 0 to {_LARGEST_AXES}")
    for axis in range(1, naxis + 1):
        if _required(header, f"NAXIS{axis}", owner) < 0:
            raise InputRejected(f"{owner}: NAXIS{axis} is {header[f'NAXIS{axis}']}, expected >= 0")
    for keyword, least in (("PCOUNT", 0), ("GCOUNT", 1)):
        if keyword in header and _required(header, keyword, owner) < least:
            raise InputRejected(f"{owner}: {keyword} is {header[keyword]}, expected >= {least}")


def _required(header: fits.Header, keyword: str, owner: str) -> int:
    value = keywords.integer(header, keyword, owner)
    if value is None:
        raise InputRejected(f"{owner}: {keyword} is missing or has no value")
    return value
