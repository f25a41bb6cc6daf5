"""Reading the images of a FITS file, once it is known where they lie.

Nothing is decompressed: what is small in the file is small in memory.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import InputRejected
from core.hdus import Hdu, locate, reader_of
from core.pixels import format_of

_MOST_AXES = 4
"""Of any array that this project reads; numpy has at most 64."""

__all__ = ["data_of", "decode", "first_image", "locate_in", "whole_numbers"]


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
        As `core.hdus.locate` does.
    """
    return locate(reader_of(content), len(content), name)


def decode(hdu: Hdu, stored: bytes | memoryview, name: str) -> NDArray[Any]:
    """Return the pixels of an image HDU.

    Parameters
    ----------
    hdu : `~core.hdus.Hdu`
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
        If there are more than four axes, or as `core.pixels.format_of` does.
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
