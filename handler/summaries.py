"""What the event and the ledger say of what the function has at hand."""

import hashlib
import logging
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from core.compat import without_metadata
from core.errors import InputRejected
from core.exposure import Exposure
from core.flags import count_by_mnemonic, flagged_pixels
from handler.crds.parameters import Value, known_parameters
from handler.event import (
    ExposureSummary,
    FlagSummary,
    MnemonicCount,
    ObjectSummary,
)
from handler.ledger import CatalogueRow, is_usable
from handler.s3.objects import StoredObject

__all__ = [
    "exposure_summary",
    "object_summary",
    "planes_sha256",
    "planes_summary",
]

log = logging.getLogger(__name__)

_LARGEST_PIXEL = 2**31
"""Keywords of a window that are larger are no pixels; the catalogue has 32 bits for them."""
_LONGEST_KEYWORD = 128
"""Characters of a keyword's value; FITS allows longer ones, no exposure has them."""


def object_summary(stored: StoredObject) -> ObjectSummary:
    """Describe an object that was found: which state of it, its version says or else its time."""
    return ObjectSummary(
        stored.location.bucket,
        stored.location.key,
        stored.version_id,
        stored.etag,
        None if stored.version_id else stored.last_modified,
        stored.size,
    )


def exposure_summary(exposure: Exposure) -> ExposureSummary:
    """Describe an exposure."""
    names = ("INSTRUME", "DETECTOR", "EXP_TYPE", "SUBARRAY")
    values = (exposure.keywords.text(name) for name in names)
    instrument, detector, exposure_type, subarray = (
        value and value[:_LONGEST_KEYWORD] for value in values
    )
    return ExposureSummary(
        instrument,
        detector,
        exposure_type,
        subarray,
        exposure.kind.value,
        exposure.shape,
        without_metadata(exposure.hdus),
    )


def planes_summary(
    exposure: Exposure, dq: NDArray[np.uint32], pinned: bool
) -> tuple[FlagSummary, CatalogueRow]:
    """Count the flags of a product, and say what its planes depend on.

    Parameters
    ----------
    exposure : `~core.exposure.Exposure`
        The exposure, or its product, whose headers say the same.
    dq : ndarray of uint32
        The data-quality image of the product.
    pinned : bool
        Whether the product is pinned.
    """
    indices, flags = flagged_pixels(dq)
    digest = _digest(dq.shape, indices, flags)
    row = CatalogueRow(_parameters(exposure), _window(exposure), digest, pinned)
    return _flag_summary(flags, dq.size), row


def planes_sha256(dq: NDArray[np.uint32]) -> str:
    """Return the digest of a data-quality image that the ledger keeps of a product's."""
    return _digest(dq.shape, *flagged_pixels(dq))


def _digest(shape: tuple[int, ...], indices: NDArray[np.intp], flags: NDArray[np.uint32]) -> str:
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(indices.astype(">u4").data)
    digest.update(flags.astype(">u4").data)
    return digest.hexdigest()


def _flag_summary(flags: NDArray[np.uint32], pixels: int) -> FlagSummary:
    counts = {
        name: MnemonicCount(count.pixels, count.do_not_use)
        for name, count in count_by_mnemonic(flags).items()
    }
    unusable = counts["DO_NOT_USE"].pixels if "DO_NOT_USE" in counts else 0
    return FlagSummary(pixels, counts, unusable, unusable / pixels)


def _window(exposure: Exposure) -> tuple[int, int, int, int] | None:
    """What was read out; None where the keywords say no such thing, as they may without a mask."""
    try:
        subarray = exposure.subarray
    except InputRejected:
        return None
    if subarray is None or max(map(abs, astuple(subarray))) >= _LARGEST_PIXEL:
        return None
    return astuple(subarray)


def _parameters(exposure: Exposure) -> dict[str, Value]:
    """What the rules for MASK may match on, of bounded length; unusable values are left out.

    A selection then takes the keyword for UNDEFINED, as it does one that the exposure lacks.
    """
    values = known_parameters(exposure.header)
    unusable = {name: value for name, value in values.items() if not is_usable(value)}
    for name, value in unusable.items():
        log.warning("%s: %s is %.80r, left out of the ledger", exposure.name, name, value)
    return {
        name: value[:_LONGEST_KEYWORD] if isinstance(value, str) else value
        for name, value in values.items()
        if name not in unusable
    }
