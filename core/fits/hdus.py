"""The HDUs of a FITS file, located by its headers alone.

Anything that would move data, or change pixels or a decision, is rejected; deviations from FITS
Standard 4.0 that astropy accepts without such a consequence are accepted.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from core.errors import InputRejected

BLOCK = 2880  # FITS Standard 4.0, section 3.1: a file is a sequence of blocks of 2880 bytes
_CARD = 80
_EXTENSION = b"XTENSION="
_GZIP = b"\x1f\x8b"
_COMMENTARY = (b"COMMENT ", b"HISTORY ", b" " * 8)
# astropy, too, reads a byte that is not ASCII as a question mark.
_ASCII = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))
_PRINTABLE = bytes(byte if 0x20 <= byte < 0x7F else ord("?") for byte in range(256))
# Keywords that decide how data are read. Astropy's two header parsers differ on duplicates of them.
_STRUCTURAL = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|EXTNAME|EXTVER|BSCALE|BZERO|BLANK"
    r"|TFIELDS|THEAP|T(?:FORM|TYPE|BCOL|SCAL|ZERO|NULL|DIM)\d+"
)
# Bounds on crafted files, in bytes; all headers of a raw exposure take some 20 blocks.
_LARGEST_HEADER = 400 * BLOCK
_LARGEST_HEADERS = 800 * BLOCK
_MOST_HDUS = 512
_MOST_AXES = 999  # FITS Standard 4.0, section 4.4.1.1

Reader = Callable[[int, int], bytes]
"""``read(start, length)`` returns that byte range of the file, less if the file ends before."""


@dataclass(frozen=True)
class Keywords:
    """The keywords of a header, read by type; a value of the wrong type raises `error`.

    A keyword that is missing or undefined gives None, except in `required_integer`.
    """

    header: fits.Header = field(repr=False)
    name: str  # of the file, for messages
    error: type[Exception] = InputRejected  # ReferenceUnavailable for a mask

    def integer(self, keyword: str) -> int | None:
        """Return the integer of a keyword, None if missing; raise `error` for another type."""
        value = self._value(keyword)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise self.error(f"{self.name}: {keyword} is {value!r}, expected an integer")

    def required_integer(self, keyword: str) -> int:
        """Return the integer of a keyword; raise `error` if it is missing or of another type."""
        value = self.integer(keyword)
        if value is None:
            raise self.error(f"{self.name}: {keyword} is missing or undefined, expected an integer")
        return value

    def text(self, keyword: str) -> str | None:
        """Return the string of a keyword, None if missing; raise `error` for another type."""
        value = self._value(keyword)
        if value is None or isinstance(value, str):
            return value
        raise self.error(f"{self.name}: {keyword} is {value!r}, expected a string")

    def word(self, keyword: str) -> str | None:
        """Return the string of a keyword, None if missing; raise `error` for another type.

        It is raised for lower case and leading blanks, too: of a keyword with a list of allowed
        values, `jwst` drops a value that is not in the list, and so may choose another mask.
        """
        value = self.text(keyword)
        if value is not None and value != value.strip().upper():
            raise self.error(
                f"{self.name}: {keyword} is {value!r}, expected {value.strip().upper()!r}; jwst "
                "accepts upper case without leading blanks only"
            )
        return value

    def _value(self, keyword: str) -> object:
        value = self.header.get(keyword)
        return None if isinstance(value, fits.card.Undefined) else value


@dataclass(frozen=True)
class Hdu:
    """A header and data unit: its header, and the byte offsets of header and data in the file."""

    header: fits.Header
    start: int
    data_start: int
    data_length: int  # without the padding of the last block

    @cached_property
    def name(self) -> str:
        """EXTNAME in upper case; if it is missing, ``PRIMARY`` for the first HDU, else empty."""
        name = self.header.get("EXTNAME")
        if isinstance(name, str):  # astropy ignores an EXTNAME that is not a string
            return name.strip().upper()
        return "PRIMARY" if self.start == 0 else ""

    @property
    def version(self) -> int | None:
        """EXTVER; 1 if it is missing or 0, None if it is undefined or not a whole number."""
        # FITS Standard 4.0, section 4.4.2.6. The data models treat version 0 as 1, and do not open
        # a file with an undefined EXTVER.
        version = self.header.get("EXTVER", 1)
        if isinstance(version, float) and version.is_integer():
            version = int(version)
        if not isinstance(version, int):
            return None
        return 1 if version == 0 else version

    @property
    def version_text(self) -> str:
        """The property `version` as text for messages; ``undefined`` for None."""
        return "undefined" if self.version is None else str(self.version)

    @property
    def end(self) -> int:
        """Offset of the byte after the HDU and its padding, even if padding is missing."""
        return self.data_start + self.data_length + padding(self.data_length)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the data in numpy's order, NAXISn to NAXIS1: the last axis varies fastest."""
        naxis = int(self.header["NAXIS"])
        return tuple(int(self.header[f"NAXIS{axis}"]) for axis in range(naxis, 0, -1))

    @property
    def is_image(self) -> bool:
        """Whether the HDU is the primary HDU or an IMAGE extension, even without data.

        A tile-compressed image is stored as a table, and so is not an image.
        """
        return self.start == 0 or bool(self.header["XTENSION"] == "IMAGE")


def padding(length: int) -> int:
    """Return the number of bytes that fill `length` bytes of data up to whole blocks."""
    return -length % BLOCK


def find(hdus: tuple[Hdu, ...], name: str) -> Hdu | None:
    """Return the first HDU of that `Hdu.name` and of `Hdu.version` 1; None without one."""
    return next((hdu for hdu in find_all(hdus, name) if hdu.version == 1), None)


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape for messages, such as ``2048 x 3200``; the last axis varies fastest."""
    return " x ".join(map(str, shape))


def find_all(hdus: tuple[Hdu, ...], name: str) -> list[Hdu]:
    """Return all HDUs of that `Hdu.name`, with any EXTVER, in file order."""
    return [hdu for hdu in hdus if hdu.name == name]


def reader_of(content: bytes) -> Reader:
    """Return a function that reads byte ranges of a file held in memory, see `Reader`."""
    return lambda start, length: content[start : start + length]


def locate_in(content: bytes, name: str) -> tuple[Hdu, ...]:
    """Return the HDUs of a file held in memory, or raise `InputRejected` as `locate` does."""
    return locate(reader_of(content), len(content), name)


def locate(read: Reader, size: int, name: str) -> tuple[Hdu, ...]:
    """Return the HDUs of a file of `size` bytes, from headers only.

    Raises `InputRejected` if it is not FITS, is damaged, truncated or gzip-compressed, or has too
    many HDUs. Missing padding at the end is accepted. A blank block ends the HDUs.
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
    """Say whether the HDUs of a file of `size` bytes end at `position`; False for position 0."""
    if position == 0:
        return False
    rest = read(position, min(BLOCK, size - position))
    if len(rest) < BLOCK:  # astropy ignores it, unless it is the start of another header
        return not (rest.startswith(_EXTENSION) or _EXTENSION.startswith(rest))
    return not rest.strip(b"\0 ")


def _read_hdu(read: Reader, start: int, size: int, name: str) -> Hdu:
    """Return the HDU at byte `start`, or raise `InputRejected` if it is damaged or truncated."""
    cards, data_start = _read_cards(read, start, size, name)
    header = _parse(cards, name)
    if isinstance(header.get("EXTNAME"), str):
        name = f"{name} ({header['EXTNAME'].strip()})"
    written = Counter(card[:8].rstrip().decode() for card in cards if card[8:10] == b"= ")
    for keyword, count in Counter(header.keys()).items():
        # Astropy also counts HIERARCH cards and cards in free format.
        if _STRUCTURAL.fullmatch(keyword) and (count, written[keyword]) != (1, 1):
            raise InputRejected(
                f"{name}: {keyword} occurs {count} times, expected one card '{keyword:8}= ...'"
            )
    length = _data_length(Keywords(header, name), size - data_start, start == 0)
    hdu = Hdu(header, start, data_start, length)
    if length and hdu.is_image:
        _check_scaling(header, name)
    return hdu


def _read_cards(read: Reader, start: int, size: int, name: str) -> tuple[list[bytes], int]:
    """Return the cards of a header before END, and the offset where its data start."""
    cards: list[bytes] = []
    for offset in range(start, start + _LARGEST_HEADER, BLOCK):
        block = read(offset, BLOCK)
        expected = b"SIMPLE  =" if start == 0 else _EXTENSION
        if offset == start and block.startswith(_GZIP):
            raise InputRejected(f"{name}: is compressed, expected FITS; unpack it first (gunzip)")
        if offset == start and not block.startswith(expected):
            fault = "damaged, or something was appended to the file" if start else "not FITS"
            raise InputRejected(
                f"{name}: {fault}: the header starts with {block[:9]!r}, expected {expected!r}"
            )
        if len(block) < BLOCK:
            raise InputRejected(
                f"{name}: truncated: the file ends at byte {size}, expected an END card before it"
            )
        for card in (block[place : place + _CARD] for place in range(0, BLOCK, _CARD)):
            if card.rstrip(b" \0") == b"END":  # some programs pad the card with NUL bytes
                return cards, offset + BLOCK
            if re.match(rb"END[^A-Z0-9_-]", card):  # astropy's two header parsers differ on it
                raise InputRejected(
                    f"{name}: END is followed by {card[3:].strip()!r}, expected blanks"
                )
            cards.append(card)
    raise InputRejected(f"{name}: no END card, expected it within {_LARGEST_HEADER} bytes")


def _parse(cards: list[bytes], name: str) -> fits.Header:
    text = b"".join(cards)
    header = _read(text.translate(_ASCII), name)
    printable = text.translate(_PRINTABLE)
    if printable == text:
        return header
    for card in cards:
        if card[:10].translate(_PRINTABLE) != card[:10] and not card.startswith(_COMMENTARY):
            raise InputRejected(
                f"{name}: {card[:8].strip()!r} holds bytes that are not printable ASCII, expected "
                "them in values and comments only"
            )
    # Comments may hold control characters, but such a header cannot be written again.
    return _read(printable, name)


def _read(text: bytes, name: str) -> fits.Header:
    try:
        header = fits.Header.fromstring(text)
        for card in header.cards:
            _ = card.value  # astropy parses a card when it is read: find damage here
    except (VerifyError, ValueError) as exc:
        raise InputRejected(f"{name}: the header is damaged, expected FITS cards: {exc}") from exc
    return header


def _check_scaling(header: fits.Header, name: str) -> None:
    for keyword in ("BSCALE", "BZERO"):
        if not isinstance(header.get(keyword, 0), (int, float)):  # astropy cannot read the pixels
            raise InputRejected(f"{name}: {keyword} is {header[keyword]!r}, expected a number")


def _data_length(keywords: Keywords, available: int, primary: bool) -> int:
    """Return the number of data bytes, without padding, that the header of an HDU declares."""
    # FITS Standard 4.0, section 4.4.1 and chapter 7.
    name, header = keywords.name, keywords.header
    if primary and header["SIMPLE"] is not True:
        raise InputRejected(f"{name}: SIMPLE is {header['SIMPLE']!r}, expected T")
    kind = "IMAGE" if primary else keywords.text("XTENSION")
    bitpix, naxis = keywords.required_integer("BITPIX"), keywords.required_integer("NAXIS")
    if bitpix not in (8, 16, 32, 64, -32, -64):
        raise InputRejected(f"{name}: BITPIX is {bitpix}, expected 8, 16, 32, 64, -32 or -64")
    if not 0 <= naxis <= _MOST_AXES:
        raise InputRejected(f"{name}: NAXIS is {naxis}, expected 0 to {_MOST_AXES}")
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
    pixels = 0 if 0 in axes else 1
    for length in axes:
        pixels *= length
        if pixels > available:  # large enough: the product of 999 axes may have 10,000 digits
            break
    length = (pixels + pcount) * abs(bitpix) // 8
    if length > available:
        raise InputRejected(
            f"{name}: truncated: {available} bytes are left for its data, expected at least "
            f"{length}"
        )
    return length
