"""The step once more, written the slow and obvious way: what the tests compare with.

Whole files, whole arrays, a loop over every row that a stripe reads, and none of the product's
code.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

FLAGS = {
    "DO_NOT_USE": 0, "DEAD": 10, "HOT": 11, "LOW_QE": 13, "RC": 14, "NONLINEAR": 16,
    "NO_GAIN_VALUE": 19, "UNRELIABLE_SLOPE": 24, "OPEN": 26, "ADJ_OPEN": 27, "REFERENCE_PIXEL": 31,
}  # fmt: skip
GUIDER = ["FGS_ID-IMAGE", "FGS_ID-STACK", "FGS_ACQ1", "FGS_ACQ2", "FGS_TRACK", "FGS_FINEGUIDE"]


def translated_mask(path: Path) -> NDArray[np.uint32]:
    with fits.open(path) as hdus:
        dq = hdus["DQ"].data.astype(np.uint32)
        if "DQ_DEF" not in hdus:
            return dq
        out = np.zeros_like(dq)
        for row in hdus["DQ_DEF"].data:
            if row["NAME"] in FLAGS:
                out[(dq & np.uint32(row["VALUE"])) > 0] |= np.uint32(1 << FLAGS[row["NAME"]])
        return out


def expected_image(exposure: bytes, mask: Path) -> NDArray[np.uint32]:
    """PIXELDQ or DQ of an exposure that has none."""
    with fits.open(BytesIO(exposure)) as hdus:
        header, shape = hdus[0].header, hdus["SCI"].shape
    dq, area = translated_mask(mask), fits.getheader(mask)
    x, y = (header[f"SUBSTRT{n}"] - area[f"SUBSTRT{n}"] for n in (1, 2))
    if "MSTR_RD1" in header and header["SUBSIZE2"] != 2048:
        return striped(dq, header)
    if dq.shape == shape[-2:]:
        return dq
    return dq[y : y + shape[-2], x : x + shape[-1]]


def striped(dq: NDArray[np.uint32], header: Any) -> NDArray[np.uint32]:
    """Follow the readout row by row, in the detector's own frame."""
    slow = header["SLOWAXIS"]
    if abs(slow) == 1:  # rows of the detector are columns of the image
        window = dq[header["SUBSTRT2"] - 1 :][: header["SUBSIZE2"]].T
        start, size = header["SUBSTRT1"], header["SUBSIZE1"]
    else:
        window = dq[:, header["SUBSTRT1"] - 1 :][:, : header["SUBSIZE1"]]
        start, size = header["SUBSTRT2"], header["SUBSIZE2"]
    if slow < 0:
        window = window[::-1]
    head = 0 if "DHS" in header["SUBARRAY"] else 2048 - start if slow < 0 else start - 1
    images = []
    for stripe in range(max(header["SSTR_NST"], 1)):
        rows: list[int] = []
        repeats = 0
        while len(rows) < size:
            rows += range(head, head + header["MSTR_RD1"])
            jump = header["MSTR_SK1"] + header["SSTR_STP"] * stripe
            if header.get("MSTR_ILV", 0):
                jump += repeats * (header["MSTR_SK2"] + header["MSTR_RD2"])
            first = head + header["MSTR_RD1"] + jump
            rows += range(first, first + header["MSTR_RD2"])
            repeats += 1
        image = np.array([window[row] for row in rows])
        image = image[::-1] if slow < 0 else image
        images.append(image.T if abs(slow) == 1 else image)
    return np.array(images) if header["SSTR_NST"] else images[0]


def check_product(exposure: bytes, product: bytes, image: NDArray[np.uint32]) -> None:
    """Check every pixel and every HDU of a product in native encoding."""
    with fits.open(BytesIO(exposure)) as before, fits.open(BytesIO(product)) as after:
        after.verify("exception")
        shape = before["SCI"].shape
        assert len(product) % 2880 == 0
        guider = before[0].header["EXP_TYPE"] in GUIDER
        added = ["ERR", "DQ"] if guider else ["PIXELDQ", "GROUPDQ"]
        kept = [hdu.name for hdu in before if hdu.name not in added]
        place = kept.index("SCI") + 1
        assert [hdu.name for hdu in after] == [*kept[:place], *added, *kept[place:]]
        for name in kept[1:]:
            assert np.array_equal(before[name].data, after[name].data), name
            assert before[name].header.tostring() == after[name].header.tostring(), name
        if guider:
            assert after["ERR"].data.dtype == np.dtype(">f4")
            assert after["ERR"].shape == shape
            assert not after["ERR"].data.any()
            assert np.array_equal(after["DQ"].data, image)
            return
        assert after["PIXELDQ"].data.dtype == np.uint32
        assert np.array_equal(after["PIXELDQ"].data, image)
        bad = (image & 1).astype(np.uint8)
        bad = bad.reshape(-1, 1, *shape[-2:])
        expected = np.tile(bad, (shape[0] // len(bad), shape[1], 1, 1))
        assert after["GROUPDQ"].data.dtype == np.uint8
        assert np.array_equal(after["GROUPDQ"].data, expected)
