"""How the pixels of an image HDU are stored, and how to read and write them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.errors import InputRejected

__all__ = ["FLOAT32", "PixelFormat", "as_float32", "encode_uint32", "format_of"]

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
