"""Mask files: reading, and rejection before memory is allocated."""

import gzip
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.errors import ReferenceUnavailable
from core.exposure import Subarray
from core.mask import Mask

DQ = np.array([[0, 1], [4, 5]], np.uint32)
DEFINITIONS = np.array(
    [(0, 1, "DO_NOT_USE", "bad"), (2, 4, "HOT", "hot")],
    dtype=[("BIT", ">i4"), ("VALUE", ">u4"), ("NAME", "S40"), ("DESCRIPTION", "S80")],
)


def mask_file(*hdus: Any, **header: Any) -> bytes:
    buffer = BytesIO()
    primary = fits.PrimaryHDU()
    primary.header.update({"INSTRUME": "nircam"} | header)
    fits.HDUList([primary, *hdus]).writeto(buffer)
    return buffer.getvalue()


def dq_hdu(dtype: Any = np.uint32) -> fits.ImageHDU:
    return fits.ImageHDU(DQ.astype(dtype), name="DQ")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_mask_bits_of_any_integer_type_are_translated(dtype: Any) -> None:
    definitions = fits.BinTableHDU(DEFINITIONS, name="DQ_DEF")
    mask = Mask.from_bytes(mask_file(dq_hdu(dtype), definitions), "m.fits")
    assert mask.dq.tolist() == [[0, 1], [1 << 11, 1 | 1 << 11]]
    assert (mask.instrument, mask.subarray) == ("NIRCAM", None)


def test_bits_without_definitions_are_standard_already() -> None:
    empty = fits.BinTableHDU(DEFINITIONS[:0], name="DQ_DEF")
    assert Mask.from_bytes(mask_file(dq_hdu()), "m.fits").dq.tolist() == DQ.tolist()
    assert Mask.from_bytes(mask_file(dq_hdu(), empty), "m.fits").dq.tolist() == DQ.tolist()


def test_full_frame_of_miri_is_wider_than_high() -> None:
    plane = fits.ImageHDU(np.zeros((1024, 1032), np.uint8), name="DQ")
    mask = Mask.from_bytes(mask_file(plane, INSTRUME="MIRI"), "m.fits")
    assert mask.area == Subarray(1, 1, 1032, 1024)
    other = Mask.from_bytes(mask_file(plane), "m.fits")
    with pytest.raises(ReferenceUnavailable, match="expected the full frame"):
        _ = other.area


def test_table_of_1024_definitions_is_the_largest() -> None:
    rows = np.repeat(DEFINITIONS[:1], 1025)
    largest = fits.BinTableHDU(rows[:1024], name="DQ_DEF")
    assert Mask.from_bytes(mask_file(dq_hdu(), largest), "m.fits").dq.tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ReferenceUnavailable, match="1025 rows, expected at most"):
        Mask.from_bytes(mask_file(dq_hdu(), fits.BinTableHDU(rows, name="DQ_DEF")), "m.fits")


def huge_in_the_header() -> bytes:
    return mask_file(dq_hdu()).replace(
        b"NAXIS1  =                    2", b"NAXIS1  =           1000000000"
    )


def test_mask_stored_as_floats_is_accepted() -> None:
    content = mask_file(fits.ImageHDU(DQ.astype(np.float64), name="DQ"))
    assert Mask.from_bytes(content, "m.fits").dq.tolist() == DQ.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(mask_file(dq_hdu()), mtime=0), "is compressed, expected FITS; unpack it first"),
        (huge_in_the_header(), "truncated: 2880 bytes are left for its data"),
        (mask_file(fits.CompImageHDU(DQ.astype(np.int32), name="DQ")), "DQ is a table"),
        (mask_file(fits.ImageHDU(DQ + np.float32(0.5), name="DQ")), "4 pixels are not integers"),
        (mask_file(fits.ImageHDU(DQ[None], name="DQ")), r"of shape 1 x 2 x 2"),
        (mask_file(), "no DQ array among its HDUs"),
        (b"no FITS at all", "not FITS"),
        (mask_file(fits.ImageHDU(DQ, name="DQ", ver=2), dq_hdu()), "DQ has EXTVER 2, expected 1; name another"),
        (mask_file(dq_hdu(), fits.BinTableHDU(DEFINITIONS, name="DQ_DEF", ver=2)), "DQ_DEF has EXTVER 2, expected 1"),
        (mask_file(dq_hdu(), fits.ImageHDU(DQ, name="DQ_DEF")), "DQ_DEF: XTENSION is 'IMAGE', expected TABLE or BINTABLE"),
        (mask_file(dq_hdu(), INSTRUME=5), "INSTRUME is 5, expected a string"),
    ],
)  # fmt: skip
def test_invalid_mask_file_is_rejected(content: bytes, message: str) -> None:
    with pytest.raises(ReferenceUnavailable, match=message):
        Mask.from_bytes(content, "m.fits")


def test_ascii_table_of_definitions_is_read() -> None:
    columns = [
        fits.Column("VALUE", "I10", array=DEFINITIONS["VALUE"]),
        fits.Column("NAME", "A20", array=DEFINITIONS["NAME"]),
    ]
    table = fits.TableHDU.from_columns(columns, name="DQ_DEF")
    mask = Mask.from_bytes(mask_file(dq_hdu(), table), "m.fits")
    assert mask.dq.tolist() == [[0, 1], [1 << 11, 1 | 1 << 11]]


@pytest.mark.parametrize("fields", [2**31, -1])
def test_definitions_of_too_many_columns_are_rejected(fields: int) -> None:
    content = mask_file(dq_hdu(), fits.BinTableHDU(DEFINITIONS, name="DQ_DEF"))
    content = content.replace(b"TFIELDS =                    4", f"TFIELDS = {fields:>20}".encode())
    with pytest.raises(ReferenceUnavailable, match=f"m.fits, DQ_DEF: {fields} columns"):
        Mask.from_bytes(content, "m.fits")


def test_definitions_of_too_many_rows_are_rejected() -> None:
    table = fits.BinTableHDU(np.repeat(DEFINITIONS, 600), name="DQ_DEF")
    with pytest.raises(ReferenceUnavailable, match="1200 rows, expected at most"):
        Mask.from_bytes(mask_file(dq_hdu(), table), "m.fits")


def test_dq_with_blank_pixels_is_rejected() -> None:
    dq = dq_hdu(np.int32)
    dq.header["BLANK"] = 5
    with pytest.raises(ReferenceUnavailable, match=r"m\.fits, DQ: integers with BLANK=5"):
        Mask.from_bytes(mask_file(dq), "m.fits")
