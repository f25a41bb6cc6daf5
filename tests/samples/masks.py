"""MASK reference files with the structure and the peculiarities of real ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

# As in real masks: bits of their own, two bits of one name, two names of one bit, unknown names.
_DEFINITIONS = (
    (0, 1, "DO_NOT_USE"),
    (1, 2, "DEAD"),
    (2, 4, "HOT"),
    (3, 8, "RC"),
    (4, 16, "RC"),
    (3, 8, "UNRELIABLE_SLOPE"),
    (5, 32, "LOW_QE"),
    (6, 64, "NOISY"),
    (7, 128, "REFERENCE_PIXEL"),
)
_DQ_DEF = np.dtype([("BIT", ">i4"), ("VALUE", ">i4"), ("NAME", "S40"), ("DESCRIPTION", "S80")])
_BORDER = 4  # rows and columns of reference pixels around a detector


@dataclass(frozen=True)
class SampleMask:
    """A MASK reference file: its name and header, and the form of its array."""

    name: str
    instrument: str
    detector: str
    subarray: str = "GENERIC"
    corner: tuple[int, int] = (1, 1)
    size: tuple[int, int] = (2048, 2048)
    rows: int = 2048  # of the array: SUBSIZE2, except for NIRSpec IRS2
    own_bits: bool = True  # whether there is a DQ_DEF table
    dtype: str = "u4"  # as CRDS's; u1 is enough for own bits


MASKS: tuple[SampleMask, ...] = (
    SampleMask("jwst_nircam_mask_9001.fits", "NIRCAM", "NRCA1"),
    SampleMask("jwst_nircam_mask_9002.fits", "NIRCAM", "NRCB1"),
    SampleMask("jwst_niriss_mask_9001.fits", "NIRISS", "NIS"),
    SampleMask("jwst_niriss_mask_9002.fits", "NIRISS", "NIS", "SUB80", (1045, 1), (80, 80), 80),
    SampleMask("jwst_nirspec_mask_9001.fits", "NIRSPEC", "NRS1"),
    SampleMask("jwst_nirspec_mask_9002.fits", "NIRSPEC", "NRS1", "FULL", rows=3200),
    SampleMask(
        "jwst_miri_mask_9001.fits", "MIRI", "MIRIMAGE", size=(1032, 1024), rows=1024, own_bits=False
    ),
    SampleMask("jwst_miri_mask_9002.fits", "MIRI", "MIRIMAGE", size=(1032, 1024), rows=1024),
    SampleMask("jwst_fgs_mask_9001.fits", "FGS", "GUIDER1"),
    SampleMask("jwst_fgs_mask_9002.fits", "FGS", "GUIDER1", size=(2304, 2048)),
)
"""Every mask that the sample rules choose."""


def write_mask(mask: SampleMask, path: Path, seed: int = 0) -> None:
    """Write a MASK reference file with random defects."""
    primary = fits.PrimaryHDU()
    primary.header.update(
        {
            "FILENAME": mask.name,
            "DATAMODL": "MaskModel",
            "TELESCOP": "JWST",
            "REFTYPE": "MASK",
            "PEDIGREE": "DUMMY",
            "DESCRIP": "Sample mask with random defects",
            "AUTHOR": "jwst-dq-init-lambda",
            "USEAFTER": "2022-01-01T00:00:00",
            "INSTRUME": mask.instrument,
            "DETECTOR": mask.detector,
            "SUBARRAY": mask.subarray,
            "SUBSTRT1": mask.corner[0],
            "SUBSTRT2": mask.corner[1],
            "SUBSIZE1": mask.size[0],
            "SUBSIZE2": mask.size[1],
        }
    )
    rng = np.random.default_rng([seed, *mask.name.encode()])
    hdus = [primary, fits.ImageHDU(_defects(rng, mask).astype(mask.dtype), name="DQ")]
    if mask.own_bits:
        rows = [(bit, value, name, "") for bit, value, name in _DEFINITIONS]
        hdus.append(fits.BinTableHDU(np.array(rows, dtype=_DQ_DEF), name="DQ_DEF"))
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path, overwrite=True)


def _defects(rng: np.random.Generator, mask: SampleMask) -> NDArray[np.uint32]:
    """Flag about 2 % of the pixels: single ones, clusters, and the reference pixels."""
    shape = (mask.rows, mask.size[0])
    dq = np.zeros(shape, np.uint32)
    bits, count = 7 if mask.own_bits else 20, dq.size // 50
    flat = rng.integers(dq.size, size=count)
    values = np.uint32(1) << rng.integers(bits, size=count, dtype="u4")
    np.bitwise_or.at(dq.reshape(-1), flat, values)
    for y, x in rng.integers((1, 1), (shape[0], shape[1]), size=(20, 2)):
        dq[y : y + 5, x : x + 5] |= 3
    if mask.subarray != "SUB80":
        border = np.ones(shape, bool)
        border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
        dq[border] |= np.uint32(128 if mask.own_bits else 1 << 31)
    return dq
