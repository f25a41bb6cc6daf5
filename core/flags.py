"""The 32 standard data-quality flags, and the translation of a mask's own bits into them."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

# jwst-pipeline.readthedocs.io, "Data Quality Flags"; stdatamodels.jwst.datamodels.dqflags
_MNEMONICS_BY_BIT = (
    "DO_NOT_USE", "SATURATED", "JUMP_DET", "DROPOUT",
    "OUTLIER", "PERSISTENCE", "AD_FLOOR", "CHARGELOSS",
    "RESERVED", "NON_SCIENCE", "DEAD", "HOT",
    "WARM", "LOW_QE", "RC", "TELEGRAPH",
    "NONLINEAR", "BAD_REF_PIXEL", "NO_FLAT_FIELD", "NO_GAIN_VALUE",
    "NO_LIN_CORR", "NO_SAT_CHECK", "UNRELIABLE_BIAS", "UNRELIABLE_DARK",
    "UNRELIABLE_SLOPE", "UNRELIABLE_FLAT", "OPEN", "ADJ_OPEN",
    "FLUX_ESTIMATED", "MSA_FAILED_OPEN", "OTHER_BAD_PIXEL", "REFERENCE_PIXEL",
)  # fmt: skip

PIXEL_FLAGS: Mapping[str, int] = MappingProxyType(
    {mnemonic: 1 << bit for bit, mnemonic in enumerate(_MNEMONICS_BY_BIT)}
)
"""Mnemonic of each standard flag to its value, a power of 2, from bit 0 to bit 31."""

DO_NOT_USE = PIXEL_FLAGS["DO_NOT_USE"]


@dataclass(frozen=True)
class FlagDefinition:
    """One row of a mask's DQ_DEF table."""

    # VALUE: bits of the mask's DQ array; a negative value is read as unsigned 32-bit integer.
    value: int
    # NAME: the standard mnemonic that the bits stand for, GOOD, or another name, which is ignored.
    name: str


def translate(
    dq: NDArray[np.uint32], definitions: Iterable[FlagDefinition], name: str = "mask"
) -> NDArray[np.uint32]:
    """Translate the bits of a mask's DQ array to the standard flags, by the rows of DQ_DEF.

    Each row of DQ_DEF sets the standard flag of its name in every pixel that has any of its bits.
    Rows with the same name merge, and one bit may serve several rows. A name that is not a standard
    mnemonic is ignored, with a warning unless it is GOOD. Without rows, `dq` is returned.
    """
    rows = list(definitions)
    if not rows:
        return dq
    bits: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.name in PIXEL_FLAGS:
            bits[row.name] |= row.value & 0xFFFFFFFF
        elif row.name != "GOOD":  # the name of "no flag"
            log.warning(
                "%s: DQ_DEF names %r, which is not a standard flag; ignored", name, row.name
            )
    flagged = np.nonzero(dq)  # few pixels of a mask are flagged: work on those alone
    own = dq[flagged]
    standard = np.zeros_like(own)
    for mnemonic, value in bits.items():
        standard[own & np.uint32(value) != 0] |= np.uint32(PIXEL_FLAGS[mnemonic])
    translated = np.zeros_like(dq)
    translated[flagged] = standard
    return translated


def flagged_pixels(dq: NDArray[np.uint32]) -> tuple[NDArray[np.intp], NDArray[np.uint32]]:
    """Return the indices in the flattened array of the pixels with any flag, and their flags."""
    indices = np.flatnonzero(dq != 0)  # on booleans it takes half the time that uint32 takes
    return indices, dq.reshape(-1)[indices]


def count_by_mnemonic(flagged: NDArray[np.uint32]) -> dict[str, tuple[int, int]]:
    """Return for each mnemonic: pixels with the flag, and pixels with it and DO_NOT_USE.

    `flagged` has the flags of every pixel with any flag; it may leave out the others. The result
    leaves out a flag that no pixel has.
    """
    values, pixels = np.unique(flagged, return_counts=True)
    unusable = pixels * (values & np.uint32(DO_NOT_USE) != 0)
    return {
        mnemonic: (int(pixels[has].sum()), int(unusable[has].sum()))
        for mnemonic, bit in PIXEL_FLAGS.items()
        if (has := values & np.uint32(bit) != 0).any()
    }


def planes_sha256(
    shape: tuple[int, ...], indices: NDArray[np.intp], flags: NDArray[np.uint32]
) -> str:
    """Return the SHA-256 of an image's shape and `flagged_pixels`, not of its bytes."""
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(indices.astype(">u4").data)
    digest.update(flags.astype(">u4").data)
    return digest.hexdigest()
