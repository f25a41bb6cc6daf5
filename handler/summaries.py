"""Summaries of objects, headers and flags, as the event and the ledger hold them."""

import hashlib
import logging
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from core.compat import missing_asdf_warning
from core.errors import InputRejected
from core.exposure import Exposure
from core.flags import count_by_mnemonic, flagged_pixels
from handler.crds.parameters import Value, known_parameters
from handler.event import ExposureSummary, FlagSummary, MnemonicCount, ObjectSummary
from handler.ledger import CatalogueRow, is_usable
from handler.s3.objects import StoredObject

log = logging.getLogger(__name__)

_LARGEST_PIXEL = 2**31  # the catalogue's columns have 32 bits
_LONGEST_KEYWORD = 128  # characters


def object_summary(stored: StoredObject) -> ObjectSummary:
    """Summarize an object."""
    return ObjectSummary(
        stored.location.bucket,
        stored.location.key,
        stored.version_id,
        stored.etag,
        None if stored.version_id else stored.last_modified,
        stored.size,
    )


def exposure_summary(exposure: Exposure) -> ExposureSummary:
    """Summarize the headers of an exposure."""
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
        missing_asdf_warning(exposure.hdus),
    )


def planes_summary(
    exposure: Exposure, dq: NDArray[np.uint32], pinned: bool
) -> tuple[FlagSummary, CatalogueRow]:
    """Count the flags of a product's data-quality image, and return its catalogue row."""
    indices, flags = flagged_pixels(dq)
    counts = {
        name: MnemonicCount(count.pixels, count.do_not_use)
        for name, count in count_by_mnemonic(flags).items()
    }
    unusable = counts["DO_NOT_USE"].pixels if "DO_NOT_USE" in counts else 0
    digest = _digest(dq.shape, indices, flags)
    row = CatalogueRow(_parameters(exposure), _window(exposure), digest, pinned)
    return FlagSummary(dq.size, counts, unusable, unusable / dq.size), row


def planes_sha256(dq: NDArray[np.uint32]) -> str:
    """Return the digest of a data-quality image, as in the catalogue."""
    return _digest(dq.shape, *flagged_pixels(dq))


def _digest(shape: tuple[int, ...], indices: NDArray[np.intp], flags: NDArray[np.uint32]) -> str:
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(indices.astype(">u4").data)
    digest.update(flags.astype(">u4").data)
    return digest.hexdigest()


def _window(exposure: Exposure) -> tuple[int, int, int, int] | None:
    try:
        subarray = exposure.subarray
    except InputRejected:  # without a mask, the step does not need the keywords
        return None
    if subarray is None or max(map(abs, astuple(subarray))) >= _LARGEST_PIXEL:
        return None
    return astuple(subarray)


def _parameters(exposure: Exposure) -> dict[str, Value]:
    # A selection treats a parameter that is left out as UNDEFINED, as it does a missing keyword.
    values: dict[str, Value] = {}
    for name, value in known_parameters(exposure.header).items():
        if is_usable(value):
            values[name] = value[:_LONGEST_KEYWORD] if isinstance(value, str) else value
        else:
            log.warning("%s: %s is %.80r, left out of the ledger", exposure.name, name, value)
    return values
