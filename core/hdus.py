"""Where each HDU of a FITS file lies, found by reading its headers and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass

from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from core.errors import InputRejected
from core.keywords import Keywords

__all__ = ["BLOCK", "Hdu", "find", "find_all", "locate", "padding"]

BLOCK = 2880
"""FITS Standard 4.0, section 3.1: files are sequences of blocks of 2880 bytes."""

_LARGEST_HEADER = 400 * BLOCK
_LARGEST_HEADERS = 800 * BLOCK
"""Bytes of all headers of a file; raw exposures have some 20 blocks."""
_MOST_HDUS = 512
_GZIP = b"\x1f\x8b"
_PRINTABLE = bytes(range(0x20, 0x7F))  # FITS Standard 4.0, section 4.1.2.3
_LEAST_COUNTS = (("PCOUNT", 0), ("GCOUNT", 1))
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
        return (Keywords(self.header, "extension").text("EXTNAME") or "").strip().upper()

    @property
    def version(self) -> int | None:
        """EXTVER; 1 if the keyword is absent or 0, None if it is undefined.

        FITS Standard 4.0, section 4.4.2.6. The data models find an extension of version 0 as
        they find one of version 1; they do not open a file in which EXTVER is undefined.
        """
        if "EXTVER" not in self.header:
            return 1
        version = Keywords(self.header, "extension").integer("EXTVER")
        return 1 if version == 0 else version

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
    """Return the first HDU of that EXTNAME whose EXTVER is 1, or None."""
    return next((hdu for hdu in find_all(hdus, name) if hdu.version == 1), None)


def find_all(hdus: tuple[Hdu, ...], name: str) -> list[Hdu]:
    """Return all HDUs of that EXTNAME, in the order of the file."""
    return [hdu for hdu in hdus if hdu.name == name]


def reader_of(content: bytes) -> Reader:
    """Return what reads ranges of bytes at hand."""
    return lambda start, length: content[start : start + length]


def locate(read: Reader, size: int, name: str) -> tuple[Hdu, ...]:
    """Read the headers of a FITS file one by one, stepping over the data.

    Parameters
    ----------
    read : callable
        ``read(start, length)`` returns a byte range of the file.
    size : int
        Length of the file in bytes.
    name : str
        The file's name, for messages.

    Returns
    -------
    tuple of `Hdu`
        In the order of the file.

    Raises
    ------
    InputRejected
        If the file is empty, is not FITS, has a header that cannot be read or more headers than
        any exposure, or ends before the data that a header declares.
    """
    if size == 0:
        raise InputRejected(f"{name}: the file is empty, expected FITS")
    hdus: list[Hdu] = []
    position = header_bytes = 0
    while position < size and not _only_padding(read, position, size):
        hdu = _read_hdu(read, position, size, f"{name}, HDU {len(hdus)}")
        hdus.append(hdu)
        position = hdu.end
        header_bytes += hdu.data_start - hdu.start
        if len(hdus) > _MOST_HDUS or header_bytes > _LARGEST_HEADERS:
            raise InputRejected(
                f"{name}: {len(hdus)} HDUs and {header_bytes} bytes of headers or more, expected "
                f"at most {_MOST_HDUS} and {_LARGEST_HEADERS}"
            )
    return tuple(hdus)


def _only_padding(read: Reader, position: int, size: int) -> bool:
    """Whether what follows the last HDU is filler: the standard lets readers ignore it."""
    if position == 0:
        return False
    rest = read(position, min(BLOCK, size - position))
    return not rest.strip(b"\0 ")


def _read_hdu(read: Reader, start: int, size: int, name: str) -> Hdu:
    """Read the header at `start` and check that its data lie inside the file."""
    text = _header_text(read, start, size, name)
    header = _parse(text, name)
    _check_structure(Keywords(header, name))
    data_start = start + len(text)
    hdu = Hdu(header, start, data_start, int(header.data_size))
    if hdu.data_start + hdu.data_length > size:
        raise InputRejected(
            f"{name} ({hdu.name or 'unnamed'}): truncated: its data should reach byte "
            f"{hdu.data_start + hdu.data_length}, the file has {size}"
        )
    return hdu


def _header_text(read: Reader, start: int, size: int, name: str) -> bytes:
    """Collect blocks until one holds the END card."""
    blocks: list[bytes] = []
    for offset in range(start, start + _LARGEST_HEADER, BLOCK):
        block = read(offset, BLOCK)
        if not blocks:
            _check_signature(block, start, name)
        if len(block) < BLOCK:
            raise InputRejected(f"{name}: truncated: the header has no END, the file {size} bytes")
        blocks.append(block)
        cards = (block[i : i + 80] for i in range(0, BLOCK, 80))
        if any(card.rstrip() == b"END" for card in cards):
            return b"".join(blocks)
    raise InputRejected(f"{name}: no END card within {_LARGEST_HEADER} bytes of header")


def _check_signature(block: bytes, start: int, name: str) -> None:
    expected = b"SIMPLE  =" if start == 0 else b"XTENSION="
    if block.startswith(_GZIP):
        raise InputRejected(f"{name}: is compressed; unpack it first (gunzip)")
    if not block.startswith(expected):
        raise InputRejected(
            f"{name}: not FITS: the header starts with {block[:9]!r}, expected {expected!r}"
        )


def _parse(text: bytes, name: str) -> fits.Header:
    """Turn header blocks into cards."""
    strange = text.translate(None, _PRINTABLE)
    if strange:
        raise InputRejected(
            f"{name}: the header holds bytes that no FITS header has: {strange[:9]!r}"
        )
    try:
        header = fits.Header.fromstring(text)
        for card in header.cards:
            _ = card.value  # astropy reads a card when it is looked at: damage shall show here
    except (VerifyError, ValueError) as exc:
        raise InputRejected(f"{name}: the header cannot be read: {exc}") from exc
    return header


def _check_structure(keywords: Keywords) -> None:
    """Check the keywords that say how long the data are (FITS Standard 4.0, section 4.4.1)."""
    name = keywords.name
    bitpix, naxis = keywords.required_integer("BITPIX"), keywords.required_integer("NAXIS")
    if bitpix not in (8, 16, 32, 64, -32, -64):
        raise InputRejected(f"{name}: BITPIX is {bitpix!r}")
    if not 0 <= naxis <= _LARGEST_AXES:
        raise InputRejected(f"{name}: NAXIS is {naxis}, expected 0 to {_LARGEST_AXES}")
    least = {f"NAXIS{axis}": 0 for axis in range(1, naxis + 1)}
    least |= {keyword: n for keyword, n in _LEAST_COUNTS if keyword in keywords.header}
    for keyword, smallest in least.items():
        value = keywords.required_integer(keyword)
        if value < smallest:
            raise InputRejected(f"{name}: {keyword} is {value}, expected >= {smallest}")
