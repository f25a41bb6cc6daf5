"""Tile-compressed images (FITS Standard 4.0, section 10), written much faster than by astropy."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from core.fits.cards import header_bytes, table_header
from core.fits.hdus import padding
from core.fits.pixels import PixelFormat

_TILE_BYTES = 1 << 19
_LEVEL = 2  # a real mask: 0.22 MB in 0.02 s; level 6: 0.18 MB in 0.07 s


def compressed_image(
    name: str, stored: bytes | memoryview, pixel_format: PixelFormat, shape: tuple[int, ...]
) -> bytes:
    """Return an image HDU with GZIP_1 tiles of whole rows, given its pixels as FITS stores them."""
    row_bytes = shape[-1] * pixel_format.itemsize
    rows = max(min(_TILE_BYTES // row_bytes, shape[-2] if len(shape) > 1 else 1), 1)
    tiles = [
        zlib_ng.compress(tile, _LEVEL, 31)  # 31: with the header of gzip, as the standard asks
        for tile in _tiles(np.frombuffer(stored, np.uint8).reshape(*shape[:-1], row_bytes), rows)
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


def _tiles(stored: NDArray[np.uint8], rows: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles of an image in the order of the table: contiguous runs of whole rows."""
    for image in stored.reshape(-1, stored.shape[-2] if stored.ndim > 1 else 1, stored.shape[-1]):
        for first in range(0, len(image), rows):
            yield image[first : first + rows]
