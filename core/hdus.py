"""Location of each HDU in a FITS file, found from the headers alone.

FITS is read as the standard defines it (FITS Standard 4.0). What would move data, change pixels or
change a decision is rejected; slips that astropy tolerates without consequence are tolerated.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from core.errors import InputRejected
from core.keywords import Keywords

__all__ = ["BLOCK", "Hdu", "find", "find_all", "locate", "padding"]

BLOCK = 2880
"""FITS Standard 4.0, section 3.1: files are sequences of blocks of 2880 bytes."""

_CARD = 80
_EXTENSION = b"XTENSION="
_LARGEST_HEADER = 400 * BLOCK
_LARGEST_HEADERS = 800 * BLOCK
"""Bytes of all headers of a file; raw exposures have some 20 blocks."""
_MOST_HDUS = 512
_GZIP = b"\x1f\x8b"
_LARGEST_AXES = 999  # FITS Standard 4.0, section 4.4.1.1
_COMMENTARY = (b"COMMENT ", b"HISTORY ", b" " * 8)
_ASCII = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))
"""astropy reads a byte that is not ASCII as a question mark, too."""
_PRINTABLE = bytes(byte if 0x20 <= byte < 0x7F else ord("?") for byte in range(256))
_STRUCTURAL = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|EXTNAME|EXTVER|BSCALE|BZERO|BLANK"
    r"|TFIELDS|THEAP|T(?:FORM|TYPE|BCOL|SCAL|ZERO|NULL|DIM)\d+"
)
"""Keywords that decide how data are read; astropy's two header parsers differ on duplicates."""

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
        """EXTNAME in upper case; if absent, ``PRIMARY`` for the first HDU, else empty.

        An EXTNAME that is not text names nothing, as in astropy.
        """
        name = self.header.get("EXTNAME")
        if isinstance(name, str):
            return name.strip().upper()
        return "PRIMARY" if self.start == 0 else ""

    @property
    def version(self) -> int | None:
        """EXTVER; 1 if the keyword is absent or 0, None if it is not an integer.

        FITS Standard 4.0, section 4.4.2.6. The data models find an extension of version 0 as
        they find one of version 1; they do not open a file in which EXTVER is undefined.
        """
        version = self.header.get("EXTVER", 1)
        if isinstance(version, float) and version.is_integer():
            version = int(version)
        if not isinstance(version, int):
            return None
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
        return self.start == 0 or bool(self.header["XTENSION"] == "IMAGE")


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
    """Return a reader of a file whose content is in memory."""
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
    """Return whether the bytes after the last HDU are filler: less than a block, or blank."""
    if position == 0:
        return False
    rest = read(position, min(BLOCK, size - position))
    if len(rest) < BLOCK:  # astropy ignores it, whatever it holds; a header may break off there
        return not (rest.startswith(_EXTENSION) or _EXTENSION.startswith(rest))
    return not rest.strip(b"\0 ")


def _read_hdu(read: Reader, start: int, size: int, name: str) -> Hdu:
    """Read the header at `start` and check that its data lie inside the file."""
    cards, length = _read_cards(read, start, size, name)
    header = _parse(cards, name)
    if isinstance(header.get("EXTNAME"), str):
        name = f"{name} ({header['EXTNAME'].strip()})"
    _check_unique(header, cards, name)
    data_start = start + length
    data_length = _data_length(Keywords(header, name), size - data_start, start == 0)
    return Hdu(header, start, data_start, data_length)


def _read_cards(read: Reader, start: int, size: int, name: str) -> tuple[list[bytes], int]:
    """Return the cards before END, and the bytes that the whole header takes."""
    cards: list[bytes] = []
    for offset in range(start, start + _LARGEST_HEADER, BLOCK):
        block = read(offset, BLOCK)
        if offset == start:
            _check_signature(block, start, name)
        if len(block) < BLOCK:
            raise InputRejected(
                f"{name}: truncated: the header has no END before the file ends at byte {size}"
            )
        for card in _split(block):
            if _is_end(card, name):
                return cards, offset + BLOCK - start
            cards.append(card)
    raise InputRejected(f"{name}: no END card within {_LARGEST_HEADER} bytes of header")


def _split(block: bytes) -> Iterator[bytes]:
    return (block[i : i + _CARD] for i in range(0, BLOCK, _CARD))


def _is_end(card: bytes, name: str) -> bool:
    """Return whether a card is END; some programs fill it with NUL bytes."""
    if card.rstrip(b" \0") == b"END":
        return True
    if re.match(rb"END[^A-Z0-9_-]", card):  # astropy's two header parsers differ on it
        raise InputRejected(f"{name}: END is followed by {card[3:].strip()!r}, expected blanks")
    return False


def _check_signature(block: bytes, start: int, name: str) -> None:
    expected = b"SIMPLE  =" if start == 0 else _EXTENSION
    if block.startswith(_GZIP):
        raise InputRejected(f"{name}: is compressed; unpack it first (gunzip)")
    if not block.startswith(expected):
        raise InputRejected(
            f"{name}: not FITS: the header starts with {block[:9]!r}, expected {expected!r}"
        )


def _parse(cards: list[bytes], name: str) -> fits.Header:
    """Return the header of some cards, of which astropy can read every value."""
    text = b"".join(cards)
    header = _header_of(text.translate(_ASCII), name)
    if text.translate(_PRINTABLE) == text:
        return header
    # A header with control characters cannot be written again; astropy allows them in comments.
    return _header_of(b"".join(_repaired(card, name) for card in cards), name)


def _header_of(text: bytes, name: str) -> fits.Header:
    try:
        header = fits.Header.fromstring(text)
        for card in header.cards:
            _ = card.value  # astropy parses a card when it is read: find damage here
    except (VerifyError, ValueError) as exc:
        raise InputRejected(f"{name}: the header cannot be read: {exc}") from exc
    return header


def _repaired(card: bytes, name: str) -> bytes:
    """Replace by ? what is not printable ASCII in a comment or a commentary card."""
    repaired = card.translate(_PRINTABLE)
    if repaired[:10] != card[:10] and not card.startswith(_COMMENTARY):
        raise InputRejected(
            f"{name}: {card[:8].strip()!r} holds bytes that are not printable ASCII, which only "
            "values and comments may hold"
        )
    return repaired


def _check_unique(header: fits.Header, cards: list[bytes], name: str) -> None:
    """Check that each structural keyword occurs once, in a card of fixed format."""
    written = Counter(card[:8].rstrip().decode() for card in cards if card[8:10] == b"= ")
    for keyword, count in Counter(header.keys()).items():
        if _STRUCTURAL.fullmatch(keyword) and (count, written[keyword]) != (1, 1):
            raise InputRejected(
                f"{name}: {keyword} occurs {count} times, expected one card '{keyword:8}= ...'"
            )


def _data_length(keywords: Keywords, available: int, primary: bool) -> int:
    """Return the bytes of data, once the keywords that declare them are checked.

    FITS Standard 4.0, section 4.4.1 and chapter 7.
    """
    name, header = keywords.name, keywords.header
    if primary and header["SIMPLE"] is not True:
        raise InputRejected(f"{name}: SIMPLE is {header['SIMPLE']!r}, expected T")
    kind = "IMAGE" if primary else keywords.text("XTENSION")
    bitpix, naxis = keywords.required_integer("BITPIX"), keywords.required_integer("NAXIS")
    if bitpix not in (8, 16, 32, 64, -32, -64):
        raise InputRejected(f"{name}: BITPIX is {bitpix}, expected 8, 16, 32, 64, -32 or -64")
    if not 0 <= naxis <= _LARGEST_AXES:
        raise InputRejected(f"{name}: NAXIS is {naxis}, expected 0 to {_LARGEST_AXES}")
    axes = [keywords.required_integer(f"NAXIS{axis}") for axis in range(1, naxis + 1)]
    for axis, length in enumerate(axes, start=1):
        if length < 0:
            raise InputRejected(f"{name}: NAXIS{axis} is {length}, expected >= 0")
    pcount = keywords.required_integer("PCOUNT") if "PCOUNT" in header else 0
    gcount = keywords.required_integer("GCOUNT") if "GCOUNT" in header else 1
    if pcount < 0 or gcount != 1 or (pcount and kind in ("IMAGE", "TABLE")):
        raise InputRejected(
            f"{name}: PCOUNT is {pcount} and GCOUNT {gcount}, expected 0 and 1 "
            "(PCOUNT >= 0 only in a binary table)"
        )
    if primary and header.get("GROUPS") is True:
        raise InputRejected(f"{name}: random groups (GROUPS = T), expected an image or no data")
    if kind in ("TABLE", "BINTABLE") and (bitpix, naxis) != (8, 2):
        raise InputRejected(
            f"{name}: {kind} with BITPIX {bitpix} and NAXIS {naxis}, expected 8 and 2"
        )
    if not naxis:
        return 0
    for keyword in ("BSCALE", "BZERO") if kind == "IMAGE" else ():
        if not isinstance(header.get(keyword, 0), (int, float)):
            raise InputRejected(
                f"{name}: {keyword} is {header[keyword]!r}, expected a number, as astropy does"
            )
    length = (_bounded_product(axes, available) + pcount) * abs(bitpix) // 8
    if length > available:
        raise InputRejected(
            f"{name}: truncated: {available} bytes are left for its data, expected at least "
            f"{length}"
        )
    return length


def _bounded_product(axes: list[int], bound: int) -> int:
    """Return the product, or something above `bound`: 999 axes may multiply to 10,000 digits."""
    product = 0 if 0 in axes else 1
    for length in axes:
        product *= length
        if product > bound:
            break
    return product
