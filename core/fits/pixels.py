"""The pixels of image HDUs: their storage formats, decoding and encoding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.errors import InputRejected
from core.fits.hdus import Hdu, locate_in

_MOST_AXES = 4  # no array of JWST has more; numpy allows 64
STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""The type of numpy that holds pixels as FITS stores them, by BITPIX."""
_PIXELS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class PixelFormat:
    """The storage format of pixels in a FITS file."""

    bitpix: int
    # Whether integers are stored minus 2**(BITPIX - 1): unsigned integers as signed ones, signed
    # bytes as unsigned ones (FITS Standard 4.0, section 4.4.2.5, table 11).
    offset: bool = False

    @property
    def itemsize(self) -> int:
        """Size of a stored pixel in bytes."""
        return abs(self.bitpix) // 8

    def decode(self, stored: bytes | memoryview) -> NDArray[Any]:
        """Return the pixels that the stored bytes hold, as a big-endian array of one axis."""
        raw: NDArray[Any] = np.frombuffer(stored, dtype=STORED[self.bitpix])
        if not self.offset:
            return raw
        # Adding 2**(n-1) and reading the word with the other sign is flipping its top bit.
        words = raw.view(raw.dtype.str.replace("i", "u"))
        flipped: NDArray[Any] = words ^ words.dtype.type(1 << (self.bitpix - 1))
        return flipped.view("i1") if self.bitpix == 8 else flipped


FLOAT32 = PixelFormat(-32)


def format_of(header: fits.Header, name: str) -> PixelFormat:
    """Return the pixel format of an image HDU, given its header.

    Raises `InputRejected` if BSCALE or BZERO scale the pixels, except for unsigned integers and
    signed bytes, and if plain integers (BZERO 0) have the keyword BLANK.
    """
    bitpix, bscale, bzero = header["BITPIX"], header.get("BSCALE", 1), header.get("BZERO", 0)
    if bscale == 1 and bzero == 0:
        if bitpix > 0 and "BLANK" in header:
            # Readers turn such pixels into floats: FITS Standard 4.0, section 5.3.
            raise InputRejected(
                f"{name}: integers with BLANK={header['BLANK']!r}, expected pixels without BLANK"
            )
        return PixelFormat(bitpix)
    of_other_sign = -(1 << 7) if bitpix == 8 else 1 << (abs(bitpix) - 1)
    if bscale == 1 and bitpix > 0 and bzero == of_other_sign:
        return PixelFormat(bitpix, offset=True)
    raise InputRejected(
        f"{name}: BITPIX={bitpix} with BSCALE={bscale!r} and BZERO={bzero!r}, "
        "expected unscaled pixels, unsigned integers or signed bytes"
    )


def data_of(hdu: Hdu, content: bytes) -> memoryview:
    """Return the data bytes of an HDU, without padding, given the content of its file."""
    return memoryview(content)[hdu.data_start : hdu.data_start + hdu.data_length]


def decode(hdu: Hdu, stored: bytes | memoryview, name: str) -> NDArray[Any]:
    """Return the pixels of an image HDU as a big-endian array of the HDU's shape.

    `stored` are its data bytes. Raises `InputRejected` as `format_of`, and for more than 4 axes.
    """
    label = f"{name}, {hdu.name or 'unnamed HDU'}"
    if len(hdu.shape) > _MOST_AXES:
        raise InputRejected(f"{label}: {len(hdu.shape)} axes, expected at most {_MOST_AXES}")
    return format_of(hdu.header, label).decode(stored).reshape(hdu.shape)


def user_dq_image(content: bytes, name: str) -> NDArray[Any]:
    """Return the pixels of a user-supplied DQ file: the first image in its first two HDUs.

    Raises `InputRejected` if there is none, or as `locate` and `decode`. Shape and values are not
    checked.
    """
    hdus = locate_in(content, name)[:2]  # jwst reads it with `astropy.io.fits.getdata`
    for hdu in hdus:
        if hdu.is_image and hdu.data_length:
            return decode(hdu, data_of(hdu, content), name)
    if any(hdu.header.get("ZIMAGE") is True for hdu in hdus):
        raise InputRejected(
            f"{name}: its image is tile-compressed, expected an image without compression; unpack "
            "it (funpack)"
        )
    raise InputRejected(
        f"{name}: no image among its first two HDUs, expected user-supplied DQ in one of them"
    )


def integer_flags(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return floats as uint32; return integers as they are, even negative ones.

    Raises `InputRejected` if a float is not a whole number from 0 to 2**32 - 1.
    """
    if pixels.dtype.kind != "f":
        return pixels
    # NaN fails every comparison, so it is rejected as well.
    wrong = ~((pixels >= 0) & (pixels < 1 << 32) & (pixels == np.floor(pixels)))
    if wrong.any():
        raise InputRejected(
            f"{name}: {np.count_nonzero(wrong)} pixels are not integers in [0, 2**32), such as "
            f"{float(pixels[wrong][0])}; expected flags"
        )
    return pixels.astype(np.uint32)


def as_float32(
    stored: bytes | memoryview, pixel_format: PixelFormat, out: NDArray[np.float32]
) -> None:
    """Convert stored pixels to float32 and write them to `out`, in the byte order of `out`."""
    size, whole = pixel_format.itemsize, memoryview(stored)
    for first in range(0, len(out), _PIXELS_AT_ONCE):  # few at a time stay in the CPU's cache
        some = out[first : first + _PIXELS_AT_ONCE]
        some[...] = pixel_format.decode(whole[first * size : (first + len(some)) * size])


def encode_uint32(pixels: NDArray[np.uint32]) -> memoryview:
    """Return unsigned 32-bit pixels as FITS stores them: big-endian, BZERO = 2**31."""
    stored = np.empty(pixels.shape, ">u4")
    np.bitwise_xor(pixels, np.uint32(1 << 31), out=stored)
    return stored.reshape(-1).view(np.uint8).data
