"""How the pixels of an image HDU are stored, and how to read and write them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.errors import InputRejected
from core.fits.hdus import Hdu, locate, reader_of

__all__ = [
    "FLOAT32",
    "PixelFormat",
    "as_float32",
    "data_of",
    "decode",
    "encode_uint32",
    "first_image",
    "format_of",
    "locate_in",
    "whole_numbers",
]

_MOST_AXES = 4
"""Of any array that this project reads; numpy has at most 64."""


def locate_in(content: bytes, name: str) -> tuple[Hdu, ...]:
    """Locate the HDUs of a file whose content is at hand.

    Parameters
    ----------
    content : bytes
        The file.
    name : str
        Its name, for messages.

    Raises
    ------
    InputRejected
        As `core.fits.hdus.locate` does.
    """
    return locate(reader_of(content), len(content), name)


def decode(hdu: Hdu, stored: bytes | memoryview, name: str) -> NDArray[Any]:
    """Return the pixels of an image HDU.

    Parameters
    ----------
    hdu : `~core.fits.hdus.Hdu`
        The image.
    stored : bytes-like
        Its data, as they lie in the file.
    name : str
        The file's name, for messages.

    Returns
    -------
    ndarray
        Of the HDU's shape; big-endian.

    Raises
    ------
    InputRejected
        If there are more than four axes, or as `core.fits.pixels.format_of` does.
    """
    label = f"{name}, {hdu.name or 'unnamed HDU'}"
    if len(hdu.shape) > _MOST_AXES:
        raise InputRejected(f"{label}: {len(hdu.shape)} axes, expected at most {_MOST_AXES}")
    return format_of(hdu.header, label).decode(stored).reshape(hdu.shape)


def first_image(content: bytes, name: str) -> NDArray[Any]:
    """Return the first image of a FITS file.

    Parameters and errors are those of `locate_in`; a file without an image is refused, too.
    """
    for hdu in locate_in(content, name):
        if hdu.is_image and hdu.data_length:
            return decode(hdu, data_of(hdu, content), name)
    raise InputRejected(f"{name}: no image among its HDUs")


def whole_numbers(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return flags as integers: floats that are whole numbers are taken for them.

    Parameters
    ----------
    pixels : ndarray
        Flags, in whatever type they were stored.
    name : str
        Where they are from, for messages.

    Raises
    ------
    InputRejected
        If a pixel is no whole number of 32 bits.
    """
    if pixels.dtype.kind != "f":
        return pixels
    # NaN is neither less nor equal, and so is found, too.
    wrong = ~((pixels >= 0) & (pixels < 1 << 32) & (pixels == np.floor(pixels)))
    if wrong.any():
        first = float(pixels[wrong][0])
        raise InputRejected(
            f"{name}: {np.count_nonzero(wrong)} pixels are no whole numbers from 0 to 2**32 - 1, "
            f"the first of them is {first}; expected flags"
        )
    return pixels.astype(np.uint32)


def data_of(hdu: Hdu, content: bytes) -> memoryview:
    """Return the data of an HDU, without their padding."""
    return memoryview(content)[hdu.data_start : hdu.data_start + hdu.data_length]


_STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_SIGN_BIT_32 = np.uint32(1 << 31)
_AT_ONCE = 1 << 18
"""Pixels that are converted at a time."""


@dataclass(frozen=True)
class PixelFormat:
    """The way FITS stores pixels.

    Attributes
    ----------
    bitpix : int
        BITPIX.
    offset : bool
        Whether integers are stored less 2**(BITPIX - 1): unsigned ones as signed, and bytes, which
        FITS has as unsigned, from signed ones (FITS Standard 4.0, section 4.4.2.5, table 11).
    """

    bitpix: int
    offset: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of a pixel."""
        return abs(self.bitpix) // 8

    @property
    def is_integer(self) -> bool:
        """Whether the pixels are integers."""
        return self.bitpix > 0

    def decode(self, stored: bytes | memoryview) -> NDArray[Any]:
        """Return the pixels that `stored` bytes hold.

        Parameters
        ----------
        stored : bytes-like
            Whole pixels, big-endian, as they lie in the file.

        Returns
        -------
        1-d ndarray
            Integers of the other sign if `offset`, else the stored type; big-endian.
        """
        raw: NDArray[Any] = np.frombuffer(stored, dtype=_STORED[self.bitpix])
        if not self.offset:
            return raw
        # Adding 2**(n-1) to a word and reading it with the other sign is flipping its top bit.
        words = raw.view(raw.dtype.str.replace("i", "u"))
        flipped: NDArray[Any] = words ^ words.dtype.type(1 << (self.bitpix - 1))
        return flipped.view("i1") if self.bitpix == 8 else flipped

    def __str__(self) -> str:
        sign = "u" if self.offset is not (self.bitpix == 8) and self.is_integer else ""
        return f"{sign}{'int' if self.is_integer else 'float'}{abs(self.bitpix)}"


FLOAT32 = PixelFormat(-32)


def format_of(header: fits.Header, name: str) -> PixelFormat:
    """Return how an image HDU stores its pixels.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        The HDU's header, its structure checked.
    name : str
        The HDU's name, for messages.

    Raises
    ------
    InputRejected
        If the pixels are scaled, other than by the convention for integers of the other sign, or
        BLANK makes some of them undefined.
    """
    bitpix, bscale, bzero = header["BITPIX"], header.get("BSCALE", 1), header.get("BZERO", 0)
    if bscale == 1 and bzero == 0 and bitpix > 0 and "BLANK" in header:
        # Readers turn such pixels into floats: FITS Standard 4.0, section 5.3.
        raise InputRejected(
            f"{name}: integers with BLANK={header['BLANK']!r}, expected pixels without BLANK"
        )
    if bscale == 1 and bzero == 0:
        return PixelFormat(bitpix)
    of_other_sign = -(1 << 7) if bitpix == 8 else 1 << (abs(bitpix) - 1)
    if bscale == 1 and bitpix > 0 and bzero == of_other_sign:
        return PixelFormat(bitpix, offset=True)
    raise InputRejected(
        f"{name}: BITPIX={bitpix} with BSCALE={bscale!r} and BZERO={bzero!r}, "
        "expected unscaled pixels, unsigned integers or signed bytes"
    )


def as_float32(
    stored: bytes | memoryview, pixel_format: PixelFormat, out: NDArray[np.float32]
) -> None:
    """Convert pixels to float32.

    Parameters
    ----------
    stored : bytes-like
        Whole pixels, big-endian, as they lie in the file.
    pixel_format : `PixelFormat`
        How they are stored.
    out : 1-d ndarray of float32
        Where they go, in whatever byte order it has.
    """
    size, whole = pixel_format.itemsize, memoryview(stored)
    for first in range(0, len(out), _AT_ONCE):  # what lies between is small, and in the cache
        some = out[first : first + _AT_ONCE]
        some[...] = pixel_format.decode(whole[first * size : (first + len(some)) * size])


def encode_uint32(pixels: NDArray[np.uint32]) -> memoryview:
    """Return unsigned 32-bit pixels as FITS stores them (big-endian, BZERO = 2**31)."""
    stored = np.empty(pixels.shape, ">u4")
    np.bitwise_xor(pixels, _SIGN_BIT_32, out=stored)
    return stored.reshape(-1).view(np.uint8).data
