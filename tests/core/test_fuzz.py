"""Damaged headers of exposures, masks and user-supplied DQ, compared with astropy.

Each file ends in the pixels and flags that astropy reads, or in one of the three errors, within
bounded time and memory. ``FUZZ_CASES`` sets the cases per kind of file (``make fuzz``: 10,000).
"""

import logging
import os
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.errors import EXPECTED
from core.exposure import Subarray
from core.fits.pixels import user_dq_image
from core.flags import PIXEL_FLAGS
from core.in_memory import dq_init
from core.mask import Mask
from core.product import Encoding, HeaderValues
from tests.reference_step import striped
from tests.samples.exposures import asdf_hdu, int_times, primary_header
from tests.samples.modes import MODES

CASES = int(os.environ.get("FUZZ_CASES", "60"))
_SECONDS, _KIBIBYTES = 5, 256 * 1024
MODE = {mode.name: mode for mode in MODES}
RNG = np.random.default_rng(23)
FLAGS = RNG.integers(0, 16, (60, 60)).astype(np.uint32)
VALUES = HeaderValues("x_dq_init.fits", "2026-01-01T00:00:00.000", "1", "jwst_1.pmap", "crds://m")
SUPERSTRIPE = {"FASTAXIS": 1, "SLOWAXIS": 2, "SUBSTRT2": 5, "MSTR_RD1": 2, "MSTR_SK1": 1,
               "MSTR_RD2": 6, "MSTR_SK2": 0, "MSTR_RPT": 0, "MSTR_ILV": 0, "SSTR_STP": 6,
               "SSTR_NST": 2}  # fmt: skip
"""Each stripe reads rows 4 and 5 of the mask (from 0), then six rows: 7 to 12, or 13 to 18."""
NUMBERS = (-1, 0, 1, 2, 3, 7, 8, 10, 16, 32, 64, 999, 1000, 2880, 32768, 2**31, 10**15, -32, -64)
KEYWORDS = [
    "SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "NAXIS4", "NAXIS5",
    "PCOUNT", "GCOUNT", "GROUPS", "EXTNAME", "EXTVER", "BSCALE", "BZERO", "BLANK", "TFIELDS",
    "TFORM1", "TFORM2", "TFORM3", "TTYPE2", "TTYPE3", "TDIM1", "TSCAL2", "TNULL2", "THEAP",
    "TBCOL2", "SUBSTRT1", "SUBSIZE2", "CHECKSUM", "DATASUM", "HISTORY", "COMMENT", "CONTINUE",
    "HIERARCH", "END",
]  # fmt: skip


def written(*hdus: Any) -> bytes:
    buffer = BytesIO()
    fits.HDUList(list(hdus)).writeto(buffer)
    return buffer.getvalue()


def exposures() -> list[bytes]:
    def exposure(mode: str, *more: Any, **keywords: int) -> bytes:
        header = primary_header(MODE[mode])
        header.update({"SUBSTRT1": 3, "SUBSTRT2": 5, "SUBSIZE1": 10, "SUBSIZE2": 8, **keywords})
        sci = RNG.integers(0, 65536, (2, 3, 8, 10)).astype(np.uint16)
        science = fits.ImageHDU(sci, name="SCI")
        return written(fits.PrimaryHDU(header=header), science, *more, asdf_hdu())

    own = fits.ImageHDU(RNG.integers(0, 2**32, (8, 10)).astype(np.uint32), name="PIXELDQ")
    group = fits.ImageHDU(RNG.integers(0, 256, (2, 3, 8, 10)).astype(np.uint8), name="GROUPDQ")
    zero = fits.ImageHDU(RNG.integers(0, 65536, (2, 8, 10)).astype(np.uint16), name="ZEROFRAME")
    times = fits.BinTableHDU(int_times(2), name="INT_TIMES")
    return [
        exposure("nircam-sub64p", times, zero),
        exposure("nircam-sub64p", own, group, times),
        exposure("fgs1-acq1"),
        exposure("nircam-superstripe", times, **SUPERSTRIPE),
    ]


def masks() -> list[bytes]:
    definitions = np.array(
        [(0, 1, b"DO_NOT_USE"), (1, 2, b"HOT"), (2, 4, b"DEAD"), (3, 8, b"RC")],
        dtype=[("BIT", ">i4"), ("VALUE", ">i4"), ("NAME", "S40")],
    )
    binary = fits.BinTableHDU(definitions, name="DQ_DEF")
    columns = [
        fits.Column("BIT", "I4", array=definitions["BIT"]),
        fits.Column("VALUE", "I10", array=definitions["VALUE"]),
        fits.Column("NAME", "A20", array=definitions["NAME"]),
    ]
    ascii_table = fits.TableHDU.from_columns(columns, name="DQ_DEF")
    dq = [fits.ImageHDU(FLAGS.astype(dtype), name="DQ") for dtype in (np.uint32, np.uint8, "f4")]
    return [
        written(fits.PrimaryHDU(), hdu, table)
        for hdu, table in zip(dq, (binary, ascii_table, binary), strict=True)
    ]


def user_images() -> list[bytes]:
    images = [FLAGS.astype(dtype) for dtype in (np.uint32, np.int16, np.uint8, np.int8, np.float32)]
    return [written(fits.PrimaryHDU(image)) for image in images] + [
        written(fits.PrimaryHDU(), fits.ImageHDU(image)) for image in images
    ]


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Return a file with one to three faults in its headers or at its end."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        headers = [i for i in range(0, len(out), 80) if out[i : i + 80].isascii()
                   and out[i : i + 8].strip() and out[i + 8 : i + 10] == b"= "]  # fmt: skip
        if not headers:
            return bytes(out)
        place = int(rng.choice(headers))
        number = str(rng.choice(NUMBERS))
        value = str(rng.choice([number, number, number, f"{number}.0", "T", "F", "'IMAGE'", "'SCI'",
                                "'DQ'", "'TABLE'", "'1A'", "'J'", "", "1E999", "'x&'"]))  # fmt: skip
        card = f"{rng.choice(KEYWORDS):8}= {value:>20}".encode().ljust(80)
        match rng.integers(0, 9):
            case 0 | 1:
                out[place + 10 : place + 80] = value.rjust(20).ljust(70).encode()
            case 2:
                out[place : place + 80] = card
            case 3:  # an additional card, if the padding has room
                _insert(out, place, card)
            case 4:
                _insert(out, place, bytes(out[place : place + 10]) + card[10:])
            case 5:
                del out[place : place + 80]
            case 6:
                out[min(place + int(rng.integers(0, 80)), len(out) - 1)] = int(
                    rng.choice([0, 10, 0xE9, 0x20, 0x27])
                )
            case 7:
                out[len(out) :] = bytes(rng.choice([0, 32, 65], 1).astype("u1")) * 100
            case 8:
                del out[int(rng.integers(0, len(out))) :]
    return bytes(out)


def _insert(out: bytearray, place: int, card: bytes) -> None:
    """Insert a card; remove a blank one after END, so that no data move."""
    blank = out.find(b" " * 80, place)
    out[place:place] = card
    if blank >= 0:
        del out[blank + 80 : blank + 160]


def check_exposure(content: bytes) -> None:
    mask = covering(Mask.from_bytes(masks()[0], "m.fits"))
    for encoding in Encoding:
        product = dq_init(content, mask, VALUES, encoding)
        assert len(product) % 2880 == 0
        with fits.open(BytesIO(content)) as before, fits.open(BytesIO(product)) as after:
            name = "DQ" if after[0].header["DATAMODL"] == "GuiderRawModel" else "PIXELDQ"
            cut = flags_read_out(mask.dq, before[0].header, before["SCI"].shape[2:])
            assert np.array_equal(after[name].data, merged(before, name, cut))
            if name == "PIXELDQ":
                nints, ngroups, *image = before["SCI"].shape
                bad = np.broadcast_to(cut & 1, (nints, *image)) if cut.ndim == 2 else np.tile(
                    cut & 1, (nints // len(cut), 1, 1))  # fmt: skip
                bad = np.repeat(bad[:, np.newaxis], ngroups, axis=1).astype(np.uint8)
                assert np.array_equal(after["GROUPDQ"].data, merged(before, "GROUPDQ", bad))
            ours = ("PIXELDQ", "DQ", "ERR", "GROUPDQ")
            kept = [hdu for hdu in before if hdu.name not in ours]
            names = [hdu.name for hdu in kept]
            copies = [hdu for hdu in after if hdu.name in names]
            assert [hdu.name for hdu in copies] == names
            for hdu, copy in zip(kept, copies, strict=True):
                if not hdu.is_image:
                    assert data_bytes(hdu, content) == data_bytes(copy, product)
                elif hdu.data is not None:
                    theirs = hdu.data.astype(copy.data.dtype)
                    assert np.array_equal(copy.data, theirs, equal_nan=theirs.dtype.kind == "f")


def data_bytes(hdu: Any, content: bytes) -> bytes:
    place = hdu.fileinfo()
    return content[place["datLoc"] :][: hdu.size]


def flags_read_out(dq: Any, header: Any, shape: Any) -> Any:
    """Return the mask's flags of the pixels that were read out."""
    x, y = header["SUBSTRT1"] - 1, header["SUBSTRT2"] - 1
    if "SSTR_NST" in header and header["SSTR_NST"] > 0:
        return striped(dq, header)
    return dq[y : y + shape[0], x : x + shape[1]]


def merged(before: Any, name: str, flags: Any) -> Any:
    """Return the flags merged with the exposure's own array, if it has their shape."""
    if (name, 1) not in before or before[name, 1].data is None:
        return flags
    own = before[name, 1].data
    return flags | own.astype(flags.dtype) if own.shape == flags.shape else flags


def covering(mask: Mask) -> Mask:
    return Mask(mask.name, mask.dq, "NIRCAM", Subarray(1, 1, 60, 60), (1, 1))


def check_mask(content: bytes) -> None:
    found = Mask.from_bytes(content, "m.fits").dq
    with fits.open(BytesIO(content)) as hdus:
        own = hdus["DQ", 1].data.astype(np.uint32)
        expected = own
        # jwst, too, takes EXTVER = 0 for 1.
        table = next((h.data for h in hdus if h.name == "DQ_DEF" and h.ver in (0, 1)), None)
        if table is not None and len(table):
            expected = np.zeros_like(own)  # a row of overlapping columns mixes them up
            for value, name in zip(table["VALUE"], table["NAME"], strict=True):
                bits = np.uint32(int(value) & 0xFFFFFFFF)
                expected[own & bits != 0] |= np.uint32(PIXEL_FLAGS.get(str(name).strip(), 0))
    assert np.array_equal(found, expected)


def check_user_dq(content: bytes) -> None:
    found = user_dq_image(content, "user.fits")
    with fits.open(BytesIO(content)) as hdus:
        expected = next(hdu.data for hdu in hdus[:2] if hdu.is_image and hdu.data is not None)
    assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")


@pytest.mark.parametrize(
    ("originals", "check"),
    [(exposures, check_exposure), (masks, check_mask), (user_images, check_user_dq)],
    ids=["exposure", "mask", "user-dq"],
)
def test_damaged_header_is_read_as_astropy_or_rejected(
    originals: Callable[[], list[bytes]],
    check: Callable[[bytes], None],
    tmp_path: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "core")
    files, outcomes, slowest = originals(), Counter[str](), 0.0
    for hdu in files:
        check(hdu)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(CASES):
        rng = np.random.default_rng([23, seed])
        content = damaged(rng, files[seed % len(files)])
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                check(content)
                outcomes["correct"] += 1
            except EXPECTED as exc:
                outcomes[type(exc).__name__] += 1
            except BaseException:
                (tmp_path / "case.fits").write_bytes(content)
                print(f"seed {seed}: {tmp_path}/case.fits")
                raise
        slowest = max(slowest, time.process_time() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{CASES} cases: {dict(outcomes)}, slowest {slowest:.2f} s, memory +{grown // 1024} MiB")
    assert slowest < _SECONDS
    assert grown < _KIBIBYTES
    assert outcomes["correct"] > CASES / 50
