"""Tile-compressed images (FITS Standard 4.0, section 10), written much faster than by astropy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from core.fits.cards import header_bytes, table_header
from core.fits.hdus import padding
from core.fits.pixels import PixelFormat, encode_uint32

_TILE_BYTES = 1 << 19
_LEVEL = 2  # a real mask: 0.22 MB in 0.02 s; level 6: 0.18 MB in 0.07 s


def compressed_image(name: str, pixels: NDArray[np.uint8] | NDArray[np.uint32]) -> bytes:
    """Return the bytes of an HDU that stores these pixels as an image of GZIP_1 tiles.

    In FITS it is a binary table; EXTNAME is `name`. uint32 pixels are stored with BZERO = 2**31.
    """
    is_wide, shape = pixels.dtype == np.uint32, pixels.shape
    pixel_format = PixelFormat(32, offset=True) if is_wide else PixelFormat(8)
    row_bytes = shape[-1] * pixel_format.itemsize
    rows = max(min(_TILE_BYTES // row_bytes, shape[-2] if len(shape) > 1 else 1), 1)
    tiles = [
        # Encoded one by one, a tile is still in the CPU's cache when it is compressed. 31: with the
        # header of gzip, as the standard asks.
        zlib_ng.compress(encode_uint32(tile) if is_wide else tile, _LEVEL, 31)
        for tile in _tiles(pixels, rows)
    ]
    lengths = [len(tile) for tile in tiles]
    offsets = np.cumsum([0, *lengths[:-1]])
    descriptors = np.column_stack([lengths, offsets]).astype(">i4").tobytes()
    columns = [("COMPRESSED_DATA", f"1PB({max(lengths)})")]
    header = table_header(columns, 8, len(tiles), sum(lengths))
    header["ZIMAGE"] = (True, "this is a compressed image")
    header["ZCMPTYPE"] = "GZIP_1"
    header["ZBITPIX"] = pixel_format.bitpix
    header["ZNAXIS"] = len(shape)
    for axis, size in enumerate(reversed(shape), start=1):
        header[f"ZNAXIS{axis}"] = size
        header[f"ZTILE{axis}"] = {1: size, 2: rows}.get(axis, 1)
    if pixel_format.offset:
        header["BSCALE"] = 1
        header["BZERO"] = 1 << (pixel_format.bitpix - 1)
    header["EXTNAME"] = name
    data = b"".join([descriptors, *tiles])
    return header_bytes(header, name) + data + bytes(padding(len(data)))


def _tiles(pixels: NDArray[Any], rows: int) -> Iterator[NDArray[Any]]:
    """Yield tiles of at most `rows` whole rows, in file order; each is of one 2-D image."""
    for image in pixels.reshape(-1, pixels.shape[-2] if pixels.ndim > 1 else 1, pixels.shape[-1]):
        for first in range(0, len(image), rows):
            yield image[first : first + rows]
