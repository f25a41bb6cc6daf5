"""Virtual products: the headers and flags of a product, and its layout in place of its pixels.

| HDU | content |
|---|---|
| primary | the primary header of the product, without data |
| PIXELDQ or DQ | the flags, losslessly tile-compressed; missing if there are none |
| PLANES | the planes of the segments that repeat them, one byte per element |
| LITERALS | the other new bytes of the product: headers and padding |
| LAYOUT | one row per segment of the product, in order; its header names the exposure |

LAYOUT has the columns KIND, START (first byte in LITERALS, or in the exposure), LENGTH (bytes in
the product), EACH and COUNT (repetitions of each plane, and of all planes), BITPIX and OFFSET
(storage format in the exposure; OFFSET: unsigned integers, or signed bytes). Its cards SCISHAPE
(axes of SCI, slowest first) and HASASDF describe the exposure, so that the flags can be read
without it; DATASUM, as in the FITS Standard 4.0, shows damaged rows.

| KIND | bytes of the product |
|---|---|
| LITERAL | those of LITERALS from START on |
| FLAGS | the flags as big-endian uint32, stored with BZERO = 2**31 |
| COPIED | those of the exposure from START on |
| REPEATED | each plane of PLANES EACH times, all of that COUNT times |
| MERGED | as REPEATED, each byte OR the lowest 8 bits of the exposure's pixel from START on |
| CONVERTED | the exposure's pixels from START on as big-endian float32 |
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, unquote

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.compat import KIND_SPECS, missing_asdf_warning
from core.errors import InputRejected
from core.exposure import Exposure
from core.fits.cards import header_bytes, image_header, table_header
from core.fits.compressed import compressed_image
from core.fits.hdus import Hdu, Reader, padding, shape_text
from core.fits.pixels import STORED, PixelFormat
from core.layout import (
    Converted,
    Copied,
    FlagImage,
    Layout,
    Literal,
    Merged,
    Repeated,
    Segment,
)

SCHEMA = 1
"""Version of the form of a virtual product."""

_BYTES = PixelFormat(8)
_COLUMNS = (
    ("KIND", "9A", "S9"), ("START", "K", ">i8"), ("LENGTH", "K", ">i8"), ("EACH", "J", ">i4"),
    ("COUNT", "J", ">i4"), ("BITPIX", "I", ">i2"), ("OFFSET", "L", "S1"),
)  # fmt: skip
_FLAGS = frozenset(spec.image for spec in KIND_SPECS.values())
# Bounds on crafted files.
_MOST_BYTES = 1 << 30  # of flags, planes or literals
_MOST_ROWS = 4096  # a product has up to three per HDU of its exposure, and nine more


@dataclass(frozen=True)
class Source:
    """The exposure that a virtual product takes its pixels from.

    Attributes
    ----------
    bucket, key : str
        Its location in S3.
    etag : str
        Its ETag, without quotes.
    version : str
        Its version ID; empty if the bucket has no versions.
    size : int
        Bytes.
    """

    bucket: str
    key: str
    etag: str
    version: str
    size: int


def pack(layout: Layout, source: Source, exposure: Exposure) -> bytes:
    """Return the virtual product of a layout, a FITS file.

    Parameters
    ----------
    layout : `~core.layout.Layout`
        The layout of the product, as `core.product.compose` returns it.
    source : `Source`
        The exposure that the layout copies from.
    exposure : `~core.exposure.Exposure`
        The same exposure; the virtual product notes the shape of SCI, and whether it has ASDF.
    """
    literals, planes, flags = bytearray(), np.zeros((1, 1), np.uint8), b""
    rows: list[tuple[str, int, int, int, int, int, bool]] = []
    for segment in layout.segments:
        start, repeated, pixel_format = 0, None, _BYTES
        match segment:
            case FlagImage():
                kind = "FLAGS"
                flags = compressed_image(segment.name, segment.flags)
            case Literal():
                kind, start = "LITERAL", len(literals)
                literals += segment.content
            case Copied():
                kind, start = "COPIED", segment.start
            case Repeated():
                kind, repeated = "REPEATED", segment
            case Merged():
                kind, start, repeated = "MERGED", segment.start, segment.planes
                pixel_format = segment.pixel_format
            case Converted():
                kind, start, pixel_format = "CONVERTED", segment.start, segment.pixel_format
            case _:
                raise TypeError(f"{type(segment).__name__} is not a segment of a product")
        if repeated is not None:  # a product has one such segment: GROUPDQ, or ERR of a guider
            planes = repeated.planes
        each, count = (repeated.each, repeated.count) if repeated is not None else (0, 0)
        rows.append(
            (kind, start, segment.length, each, count, pixel_format.bitpix, pixel_format.offset)
        )
    primary = bytes(literals[: layout.segments[0].length])
    if exposure.hdus[0].shape:  # its data are not here
        header = fits.Header.fromstring(primary)
        for axis in range(1, header["NAXIS"] + 1):
            del header[f"NAXIS{axis}"]
        header["NAXIS"] = 0
        primary = header_bytes(header, exposure.name)
    return b"".join(
        [
            primary,
            flags,
            compressed_image("PLANES", planes),
            compressed_image("LITERALS", np.frombuffer(literals, np.uint8)),
            _layout_hdu(rows, source, exposure),
        ]
    )


def _layout_hdu(
    rows: list[tuple[str, int, int, int, int, int, bool]], source: Source, exposure: Exposure
) -> bytes:
    # astropy's BinTableHDU takes 20 ms, more than the compression of the flags.
    table = np.array(rows, [(name, dtype) for name, _, dtype in _COLUMNS])
    table["OFFSET"] = np.where([row[-1] for row in rows], b"T", b"F")
    columns = [(name, form) for name, form, _ in _COLUMNS]
    header = table_header(columns, table.itemsize, len(table))
    header["EXTNAME"] = "LAYOUT"
    header["SCHEMA"] = (SCHEMA, "version of this form of a virtual product")
    header["BUCKET"] = (source.bucket, "bucket of the exposure")
    header["KEY"] = quote(source.key)
    header["ETAG"] = source.etag
    header["VERSION"] = source.version
    header["SIZE"] = (source.size, "bytes of the exposure")
    header["SCISHAPE"] = " ".join(map(str, exposure.shape))
    header["HASASDF"] = missing_asdf_warning(exposure.hdus) is None
    data = table.tobytes() + bytes(padding(table.nbytes))
    header["DATASUM"] = str(_datasum(data))
    return header_bytes(header, "LAYOUT") + data


def _datasum(data: bytes) -> int:
    """Return the sum of 32-bit words in ones' complement (FITS Standard 4.0, section 4.4.2.7)."""
    total = int(np.frombuffer(data, ">u4").sum(dtype=np.uint64))
    return (total - 1) % 0xFFFFFFFF + 1 if total else 0


def unpack(content: bytes, name: str) -> tuple[Layout, Source]:
    """Return the layout of a virtual product, and the S3 object of its exposure.

    Raises
    ------
    InputRejected
        If the file is damaged, or not a virtual product of version `SCHEMA`.
    """
    with _open(content, name) as hdus:
        if not hdus["LAYOUT"].verify_datasum():
            raise ValueError("its LAYOUT differs from its DATASUM")
        table, header = hdus["LAYOUT"].data, hdus["LAYOUT"].header
        bucket, key, etag, version = (
            str(header[card]) for card in ("BUCKET", "KEY", "ETAG", "VERSION")
        )
        source = Source(bucket, unquote(key), etag, version, int(header["SIZE"]))
        literals = hdus["LITERALS"].data.tobytes()
        lengths = table["LENGTH"]
        used = sum(map(int, lengths[table["KIND"] == "LITERAL"]))
        if used > len(literals) or min(lengths) < 1:  # each row copies its literals
            raise ValueError(
                f"its rows have {min(lengths)} bytes or more and take {used} from LITERALS, which "
                f"has {len(literals)}, expected 1 or more, and at most these"
            )
        planes = np.ascontiguousarray(hdus["PLANES"].data, np.uint8)
        image = _flags(hdus)
        flags = None if image is None else FlagImage(image, hdus[1].name)
        layout = Layout(tuple(_segment(row, flags, literals, planes) for row in table))
        # An exposure has at least a byte per pixel: its HDUs become four times as large at most, as
        # float32, and so does ERR, the largest array of repeated planes.
        most = 8 * source.size + len(literals) + (flags.length if flags else 0)
        number = sum(isinstance(segment, FlagImage) for segment in layout.segments)
        if planes.ndim != 2 or number > 1 or layout.length > most:
            raise InputRejected(
                f"{name}: PLANES has {planes.ndim} axes, {number} rows are FLAGS, and the product "
                f"has {layout.length:,} bytes, expected 2, at most 1 and at most {most:,}"
            )
        for row, segment in zip(table, layout.segments, strict=True):
            _check_row(row, segment, source.size, name)
    return layout, source


def _check_row(row: fits.FITS_record, segment: Segment, size: int, name: str) -> None:
    """Raise `InputRejected` unless a segment can be rendered from an exposure of `size` bytes."""
    wanted = segment.source(0, segment.length)
    if (
        segment.length != row["LENGTH"]
        or segment.length < 1  # and so EACH and COUNT of repeated planes
        or min(row["START"], row["EACH"], row["COUNT"]) < 0
        or (wanted is not None and wanted.start + wanted.length > size)
    ):
        raise InputRejected(
            f"{name}: a {row['KIND']} segment of {row['LENGTH']} bytes from {row['START']}, "
            f"expected one within the exposure's {size} bytes"
        )


def read_flags(content: bytes, name: str) -> tuple[Exposure, NDArray[np.uint32]]:
    """Return the exposure of a virtual product, and the pixels of PIXELDQ or DQ.

    The exposure has the product's primary header and, without data, SCI and ASDF (if it had ASDF).

    Raises
    ------
    InputRejected
        If the file is damaged, not a virtual product of version `SCHEMA`, or the shape of the flags
        does not fit the exposure. The rows of LAYOUT are not checked.

    Notes
    -----
    The flags are 0 if the product has none of its own: without a mask, a PIXELDQ of another shape
    than SCI stays in the product as it was.
    """
    with _open(content, name) as hdus:
        header = hdus["LAYOUT"].header
        shape = tuple(map(int, header["SCISHAPE"].split()))
        described = [
            Hdu(hdus[0].header.copy(), 0, 0, 0),
            Hdu(image_header("SCI", PixelFormat(16), shape), 1, 0, 0),
        ]
        if header["HASASDF"]:
            asdf = fits.BinTableHDU(name="ASDF").header
            described.append(Hdu(asdf, 2, 0, 0))
        exposure = Exposure.from_hdus(tuple(described), name)
        image = _flags(hdus)
        if image is None:
            return exposure, np.zeros(exposure.plane_shape, np.uint32)
        if image.shape != exposure.plane_shape:
            raise InputRejected(
                f"{name}: flags of shape {shape_text(image.shape)}, expected "
                f"{shape_text(exposure.plane_shape)}; build the product again"
            )
        return exposure, image


def _flags(hdus: fits.HDUList) -> NDArray[np.uint32] | None:
    is_present = hdus[1].name in _FLAGS
    return np.ascontiguousarray(hdus[1].data, np.uint32) if is_present else None


@contextmanager
def _open(content: bytes, name: str) -> Iterator[fits.HDUList]:
    """Open a virtual product; any error, even of the ``with`` block, is `InputRejected`."""
    try:
        with fits.open(io.BytesIO(content)) as hdus:
            _check_form(hdus, name)
            yield hdus
    except InputRejected:
        raise
    except Exception as exc:  # astropy passes on any error of a damaged header or tile
        raise InputRejected(
            f"{name}: damaged or no virtual product ({exc}); if it is one, build it again"
        ) from exc


def _check_form(hdus: fits.HDUList, name: str) -> None:
    if (schema := hdus["LAYOUT"].header["SCHEMA"]) != SCHEMA:
        raise InputRejected(
            f"{name}: a virtual product of schema {schema}, expected {SCHEMA}; use the release of "
            "this software that wrote it"
        )
    if (rows := hdus["LAYOUT"].header["NAXIS2"]) > _MOST_ROWS:
        raise ValueError(f"its LAYOUT has {rows} rows, expected at most {_MOST_ROWS}")
    for hdu in (hdus[1], hdus["PLANES"], hdus["LITERALS"]):
        size = math.prod(hdu.shape) * abs(hdu.header["BITPIX"]) // 8
        if size > _MOST_BYTES:
            raise InputRejected(
                f"{name}, {hdu.name}: its array has {size:,} bytes, expected at most "
                f"{_MOST_BYTES:,}; the virtual product is damaged: build it again"
            )


def _segment(
    row: fits.FITS_record, flags: FlagImage | None, literals: bytes, planes: NDArray[np.uint8]
) -> Segment:
    start, length = int(row["START"]), int(row["LENGTH"])
    repeated = Repeated(planes, int(row["EACH"]), int(row["COUNT"]))
    pixel_format = PixelFormat(int(row["BITPIX"]), bool(row["OFFSET"]))
    bitpix = pixel_format.bitpix
    if bitpix not in STORED or (pixel_format.offset and bitpix < 0):
        raise ValueError(f"a segment of pixels of BITPIX {bitpix}, OFFSET {row['OFFSET']}")
    match row["KIND"]:
        case "LITERAL":
            return Literal(literals[start : start + length])
        case "FLAGS" if flags:
            return flags
        case "COPIED":
            return Copied(start, length)
        case "REPEATED":
            return repeated
        case "MERGED":
            return Merged(start, pixel_format, repeated)
        case "CONVERTED":
            return Converted(start, length // 4, pixel_format)
        case kind:
            raise ValueError(f"a segment of kind {kind!r}")


class ExpandedFile(io.RawIOBase):
    """The product of a layout as a read-only file; reads only the bytes that are needed.

    Parameters
    ----------
    layout : `~core.layout.Layout`
        The layout.
    read : callable
        ``read(start, length)`` returns that byte range of the exposure.
    """

    def __init__(self, layout: Layout, read: Reader) -> None:
        super().__init__()
        self._layout, self._read, self._position = layout, read, 0

    def readable(self) -> bool:
        """Return True; raise ValueError if the file is closed."""
        return self._is_open()

    def seekable(self) -> bool:
        """Return True; raise ValueError if the file is closed."""
        return self._is_open()

    def _is_open(self) -> bool:
        if self.closed:
            raise ValueError("the file is closed, expected an open one")
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position as `io.IOBase.seek` does, and return the new position.

        It may be after the end. A position before the start, or an unknown `whence`, raises
        ValueError.
        """
        self._is_open()
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._layout.length}
        position = origin.get(whence, 0) + offset
        if whence not in origin or position < 0:
            raise ValueError(f"seek({offset}, {whence}): expected a position in the file")
        self._position = position
        return position

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fill the buffer with the product's bytes from the position on; move the position.

        Return the number of bytes filled: fewer than the buffer has at the end, then 0.
        """
        self._is_open()
        out = memoryview(buffer).cast("B")
        length = max(min(len(out), self._layout.length - self._position), 0)
        self._layout.render(self._read, out[:length], self._position)
        self._position += length
        return length
