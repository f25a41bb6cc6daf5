"""Virtual products: a FITS file that any tool opens, and that expands to the same bytes."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from astropy.io import fits

from core.errors import InputRejected
from core.exposure import Exposure
from core.fits.compressed import compressed_image
from core.fits.hdus import padding, reader_of
from core.in_memory import read_exposure, render
from core.layout import Copied, Layout, Literal
from core.product import Encoding, HeaderValues, compose
from core.step import DataQuality, initialize
from core.virtual import ExpandedFile, Source, pack, read_flags, unpack
from tests.samples.exposures import primary_header, write_exposure
from tests.samples.modes import MODES

VALUES = HeaderValues("x_dq_init.fits", "2026-11-28", "14.0.3", "jwst_9001.pmap", "crds://m.fits")
SMALL = [m for m in MODES if m.name in {"nircam-sub64p", "nircam-superstripe", "fgs1-acq2"}]
NAME = "b/x_dq_init_virtual.fits"


def product(
    mode: Any, folder: Path, encoding: Encoding, own: bool
) -> tuple[bytes, Layout, Exposure]:
    """Return an exposure, perhaps with a GROUPDQ of its own, and the layout of its product."""
    path = folder / "x_uncal.fits"
    write_exposure(mode, path)
    exposure = read_exposure(path.read_bytes(), "x")
    if own and "GROUPDQ" in exposure.spec.adds:
        with fits.open(path, mode="append") as hdus:
            hdus.append(fits.ImageHDU(np.full(exposure.shape, 4, np.uint8), name="GROUPDQ"))
        exposure = read_exposure(path.read_bytes(), "x")
    content = path.read_bytes()
    plain = initialize(exposure, None, exposure.existing_image(reader_of(content)))
    flags = np.random.default_rng(0).integers(0, 1 << 31, plain.image.shape, np.uint32)
    quality = DataQuality(flags, (flags & 1).astype(np.uint8).reshape(-1, *exposure.image_shape))
    return content, compose(exposure, quality, VALUES, encoding), exposure


@pytest.mark.parametrize("own", [False, True], ids=["raw", "own-groupdq"])
@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("mode", SMALL, ids=lambda mode: mode.name)
def test_virtual_product_expands_to_the_same_bytes(
    mode: Any, encoding: Encoding, own: bool, tmp_path: Path
) -> None:
    content, layout, exposure = product(mode, tmp_path, encoding, own)
    source = Source("raw", "a b/#ü_uncal.fits", "e", "v1", len(content))
    virtual = pack(layout, source, exposure)
    unpacked, found = unpack(virtual, NAME)
    assert found == source
    expected = render(layout, content)
    assert render(unpacked, content) == expected
    described, image = read_flags(virtual, NAME)
    assert (described.kind, described.shape) == (exposure.kind, exposure.shape)
    with fits.open(io.BytesIO(virtual)) as small, fits.open(io.BytesIO(expected)) as whole:
        small.verify("exception")
        flags = "DQ" if "DQ" in whole else "PIXELDQ"
        np.testing.assert_array_equal(small[flags].data, whole[flags].data)
        np.testing.assert_array_equal(image, whole[flags].data)
        assert small[flags].data.dtype == np.uint32
        assert small[0].header == whole[0].header


def test_expanded_file_reads_only_what_is_needed(tmp_path: Path) -> None:
    mode = next(mode for mode in MODES if mode.name == "nirspec-s1600a1")
    content, layout, _ = product(mode, tmp_path, Encoding.FLOAT32, own=False)
    reads: list[int] = []

    def read(start: int, length: int) -> bytes:
        reads.append(length)
        return content[start : start + length]

    with fits.open(io.BufferedReader(ExpandedFile(layout, read))) as expanded:
        group = expanded["SCI"].section[0, 1]
    with fits.open(io.BytesIO(render(layout, content))) as whole:
        np.testing.assert_array_equal(group, whole["SCI"].data[0, 1])
    assert sum(reads) < len(content) / 10


def test_group_of_a_4_gb_product_takes_one_percent_of_it() -> None:
    mode = next(mode for mode in MODES if mode.name == "nircam-full")
    shape = (5, 100, 2048, 2048)
    pixels = int(np.prod(shape))
    sci = fits.ImageHDU(np.zeros((1, 1, 1, 1), np.uint16), name="SCI").header
    sci.update(dict(zip(("NAXIS1", "NAXIS2", "NAXIS3", "NAXIS4"), shape[::-1], strict=True)))
    header = primary_header(mode)
    header.update(NINTS=shape[0], NGROUPS=shape[1])
    head = header.tostring().encode() + sci.tostring().encode()
    size, fetched = len(head) + 2 * pixels + padding(2 * pixels), 0

    def read(start: int, length: int) -> bytes:
        nonlocal fetched
        fetched += length
        return head[start : start + length].ljust(length, b"\1")

    exposure = Exposure.read(read, size, "x")
    layout = compose(exposure, initialize(exposure, None, None), VALUES, Encoding.NATIVE)
    virtual = pack(layout, Source("raw", "x_uncal.fits", "e", "", size), exposure)
    fetched = len(virtual)
    file = ExpandedFile(unpack(virtual, NAME)[0], read)
    with fits.open(cast("BinaryIO", io.BufferedReader(file))) as opened:
        assert opened["SCI"].section[3, 7].shape == shape[2:]
        assert opened["GROUPDQ"].section[3, 7].shape == shape[2:]
    assert layout.length > 6e9
    assert fetched < layout.length / 100


def test_expanded_file_seeks_and_ends_as_a_file() -> None:
    file = ExpandedFile(
        Layout((Literal(b"abc"), Copied(1, 3))), lambda start, n: b"vwxyz"[start : start + n]
    )
    assert (file.read(), file.tell(), file.read()) == (b"abcwxy", 6, b"")
    assert (file.seek(-2, io.SEEK_END), file.read(9)) == (4, b"xy")
    assert (file.seek(1), file.seek(2, io.SEEK_CUR), file.read(1)) == (1, 3, b"w")
    for wrong in ((-1,), (-9, io.SEEK_END), (0, 7)):
        with pytest.raises(ValueError, match="expected a position in the file"):
            file.seek(*wrong)
    assert file.tell() == 4
    file.close()
    for use in (file.tell, file.read, file.readable, file.seekable, lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            use()


ROWS = {  # column, kind of the segment, value
    "range": ("START", "COPIED", 1 << 20),
    "kind": ("KIND", "COPIED", "OTHER"),
    "length": ("LENGTH", "COPIED", 1 << 40),
    "negative": ("LENGTH", "COPIED", -5000),
    "pixels": ("BITPIX", "CONVERTED", 13),
    "signs": ("BITPIX", "CONVERTED", -32),
}


@pytest.mark.parametrize(
    "damage",
    [*ROWS, "schema", "no layout", "no fits", "size", "tile", "flags twice", "planes", "large",
     "literals", "cancelled", "rows", "no flags"],
)  # fmt: skip
def test_damaged_virtual_product_is_rejected_by_name(damage: str, tmp_path: Path) -> None:
    content, layout, exposure = product(SMALL[0], tmp_path, Encoding.FLOAT32, own=False)
    virtual = pack(layout, Source("raw", "x_uncal.fits", "e", "", len(content)), exposure)
    with fits.open(io.BytesIO(virtual), disable_image_compression=True) as hdus:
        table = hdus["LAYOUT"]
        del table.header["DATASUM"]
        kinds = list(table.data["KIND"])
        repeated = table.data[kinds.index("REPEATED")]
        match damage:
            case "schema":
                table.header["SCHEMA"] = 2
            case "no layout":
                del hdus["LAYOUT"]
            case "size":
                table.header["SIZE"] = "many"
            case "tile":
                hdus["PIXELDQ"].data["COMPRESSED_DATA"][0][20:] = 255
            case "flags twice":
                table.data[kinds.index("COPIED")] = table.data[kinds.index("FLAGS")]
            case "planes":
                hdus["PLANES"] = fits.ImageHDU(np.zeros(4096, np.uint8), name="PLANES")
            case "literals":  # each row takes all literals, and so much memory
                table.data["KIND"], table.data["START"] = "LITERAL", 0
            case "cancelled":  # the sum of the lengths is 0
                table.data["KIND"], table.data["START"] = "LITERAL", 0
                table.data["LENGTH"][::2], table.data["LENGTH"][1::2] = 5000, -5000
            case "rows":
                table.data = np.resize(table.data, 5000)
            case "no flags":
                del hdus["PIXELDQ"]
            case "large":
                repeated["COUNT"], repeated["LENGTH"] = 1000, repeated["LENGTH"] // 3 * 1000
            case _ if damage in ROWS:
                column, kind, value = ROWS[damage]
                table.data[column][kinds.index(kind)] = value
        out = io.BytesIO()
        hdus.writeto(out)
    damaged = b"SIMPLE" if damage == "no fits" else out.getvalue()
    with pytest.raises(InputRejected, match=NAME):
        unpack(damaged, NAME)


def test_damaged_row_is_found_by_the_checksum(tmp_path: Path) -> None:
    content, layout, exposure = product(SMALL[0], tmp_path, Encoding.NATIVE, own=False)
    virtual = pack(layout, Source("raw", "x_uncal.fits", "e", "", len(content)), exposure)
    with fits.open(io.BytesIO(virtual), checksum=True) as hdus:  # astropy warns of another sum
        start = hdus["LAYOUT"].fileinfo()["datLoc"]
        stop = start + hdus["LAYOUT"].data.nbytes
    for position in range(start, stop, 11):
        damaged = bytearray(virtual)
        damaged[position] ^= 1
        with pytest.raises(InputRejected, match=NAME):
            unpack(bytes(damaged), NAME)


def test_pixels_in_the_primary_hdu_stay_in_the_product(tmp_path: Path) -> None:
    path = tmp_path / "x_uncal.fits"
    write_exposure(SMALL[0], path)
    with fits.open(path, mode="update") as hdus:
        hdus[0].data = np.arange(12, dtype=np.int16).reshape(3, 4)
    content = path.read_bytes()
    exposure = read_exposure(content, "x")
    layout = compose(exposure, initialize(exposure, None, None), VALUES, Encoding.NATIVE)
    virtual = pack(layout, Source("raw", "x_uncal.fits", "e", "", len(content)), exposure)
    assert render(unpack(virtual, NAME)[0], content) == render(layout, content)
    with fits.open(io.BytesIO(virtual)) as hdus:
        hdus.verify("exception")
        assert hdus["PIXELDQ"].shape == exposure.plane_shape


def test_product_with_a_pixeldq_of_another_shape_has_no_flags(tmp_path: Path) -> None:
    """Without a mask, jwst leaves such a PIXELDQ as it is."""
    path = tmp_path / "x_uncal.fits"
    write_exposure(SMALL[0], path)
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.ImageHDU(np.ones((2, 3), np.uint32), name="PIXELDQ"))
    content = path.read_bytes()
    exposure = read_exposure(content, "x")
    skipped = replace(VALUES, mask=None)
    layout = compose(exposure, initialize(exposure, None, None), skipped, Encoding.NATIVE)
    virtual = pack(layout, Source("raw", "x_uncal.fits", "e", "", len(content)), exposure)
    assert render(unpack(virtual, NAME)[0], content) == render(layout, content)
    assert read_flags(virtual, NAME)[1].shape == exposure.plane_shape


def test_flags_of_another_shape_than_sci_are_rejected(tmp_path: Path) -> None:
    content, layout, exposure = product(SMALL[0], tmp_path, Encoding.NATIVE, own=False)
    virtual = pack(layout, Source("raw", "x_uncal.fits", "e", "", len(content)), exposure)
    damaged = virtual.replace(b"SCISHAPE= '3 5 64 64", b"SCISHAPE= '3 5 64 65")
    with pytest.raises(InputRejected, match="flags of shape 64 x 64, expected 64 x 65"):
        read_flags(damaged, NAME)


@pytest.mark.parametrize("shape", [(7,), (5, 3), (300, 2048), (2, 300, 2048), (1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_compressed_image_is_read_by_astropy(dtype: Any, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    hdu = compressed_image("FLAGS", pixels)
    primary = fits.PrimaryHDU()
    primary.header["EXTEND"] = True
    file = io.BytesIO()
    primary.writeto(file)
    with fits.open(io.BytesIO(file.getvalue() + hdu)) as hdus:
        assert hdus["FLAGS"].data.dtype == dtype
        np.testing.assert_array_equal(hdus["FLAGS"].data, pixels)
