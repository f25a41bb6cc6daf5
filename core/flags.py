"""The 32 standard data-quality flags, and translation of a mask's own bits into them.

The flags are those that the JWST pipeline documents under "Data Quality Flags"
(jwst-pipeline.readthedocs.io, References: General); `stdatamodels.jwst.datamodels.dqflags`
holds the same table.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DO_NOT_USE",
    "PIXEL_FLAGS",
    "FlagCount",
    "FlagDefinition",
    "count_by_mnemonic",
    "flagged_pixels",
    "translate",
]

log = logging.getLogger(__name__)

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
"""Mnemonic to bit value, from bit 0 to bit 31."""

DO_NOT_USE = PIXEL_FLAGS["DO_NOT_USE"]

_GOOD = "GOOD"  # a known name that stands for no bit at all
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class FlagDefinition:
    """One row of a mask's DQ_DEF table.

    Attributes
    ----------
    value : int
        The bits of the mask's DQ array that the row speaks of (signed 32-bit values are read as
        unsigned ones).
    name : str
        Mnemonic of the standard flag they stand for.
    """

    value: int
    name: str


@dataclass(frozen=True)
class FlagCount:
    """How many pixels carry a flag.

    Attributes
    ----------
    pixels : int
        All of them.
    do_not_use : int
        Those of them that are DO_NOT_USE.
    """

    pixels: int
    do_not_use: int


def translate(
    dq: NDArray[np.uint32], definitions: Iterable[FlagDefinition], name: str = "mask"
) -> NDArray[np.uint32]:
    """Translate a mask's own bits to the standard flags.

    Each definition sets the standard flag of its name wherever the mask has any of its bits. Rows
    of one name merge, one bit may serve several rows, and a name that is no standard mnemonic is
    ignored with a warning. Without definitions the bits are standard already.

    Parameters
    ----------
    dq : ndarray of uint32
        The mask's DQ array, in its own bits. It is left as it is.
    definitions : iterable of `FlagDefinition`
        The rows of its DQ_DEF table.
    name : str
        The mask's name, for the warnings.

    Returns
    -------
    ndarray of uint32
        The same pixels in standard flags; `dq` itself where there are no definitions.
    """
    rows = list(definitions)
    if not rows:
        return dq
    flagged = np.nonzero(dq)  # few pixels of a mask are flagged: work on those alone
    own = dq[flagged]
    standard = np.zeros_like(own)
    for mnemonic, bits in _bits_by_mnemonic(rows, name).items():
        standard[own & np.uint32(bits) != 0] |= np.uint32(PIXEL_FLAGS[mnemonic])
    translated = np.zeros_like(dq)
    translated[flagged] = standard
    return translated


def _bits_by_mnemonic(rows: list[FlagDefinition], name: str) -> dict[str, int]:
    """Merge the rows of each standard flag: at most 32 remain, however long the table is."""
    bits: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.name in PIXEL_FLAGS:
            bits[row.name] |= row.value & _WORD
        elif row.name != _GOOD:
            log.warning(
                "%s: DQ_DEF names %r, which is not a standard flag; ignored", name, row.name
            )
    return bits


def flagged_pixels(dq: NDArray[np.uint32]) -> tuple[NDArray[np.intp], NDArray[np.uint32]]:
    """Find the pixels that carry any flag; few do, and what is asked of them is asked of few.

    Parameters
    ----------
    dq : ndarray of uint32
        Flags, of any shape.

    Returns
    -------
    tuple of 1-d ndarray
        Their indices in the flattened array, and their flags.
    """
    indices = np.flatnonzero(dq != 0)  # of bool: half the time that uint32 pixels take
    return indices, dq.reshape(-1)[indices]


def count_by_mnemonic(flagged: NDArray[np.uint32]) -> dict[str, FlagCount]:
    """Count the pixels that carry each standard flag.

    Parameters
    ----------
    flagged : ndarray of uint32
        Standard flags, as `flagged_pixels` returns them.

    Returns
    -------
    dict of str to `FlagCount`
        By mnemonic, in bit order; flags that no pixel carries are left out.
    """
    values, pixels = np.unique(flagged, return_counts=True)
    unusable = pixels * (values & np.uint32(DO_NOT_USE) != 0)
    return {
        mnemonic: FlagCount(int(pixels[carriers].sum()), int(unusable[carriers].sum()))
        for mnemonic, bit in PIXEL_FLAGS.items()
        if (carriers := values & np.uint32(bit) != 0).any()
    }
