"""Digests of the HDUs of a FITS file. Run by the project's interpreter and by jwst's own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

__all__ = ["DECISIVE", "digests"]

DECISIVE = (
    "DATAMODL", "S_DQINIT", "CRDS_CTX", "EXP_TYPE", "SUBARRAY", "SUBSTRT1", "SUBSTRT2", "SUBSIZE1",
    "SUBSIZE2", "SSTR_NST",
)  # fmt: skip
"""Cards of the primary header that are recorded besides the digest."""

_SKIPPED = frozenset({"", "COMMENT", "HISTORY", "END", "CHECKSUM", "DATASUM"})
"""Cards that are not compared; jwst copies the checksums of its input, which are wrong then."""


def digests(
    file: Path, exempt: frozenset[str] = frozenset(), types: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Describe every HDU except ASDF by digests of its cards and its array.

    Digests do not depend on byte order, on the order of cards or on comments. `exempt` are
    keywords to leave out of the primary header. `types` are pixel types that the arrays are
    converted to: EXTNAME to type.
    """
    with fits.open(file) as hdus:
        return [
            _described(hdu, exempt if hdu is hdus[0] else frozenset(), (types or {}).get(hdu.name))
            for hdu in hdus
            if hdu.name != "ASDF"
        ]


def _described(hdu: Any, exempt: frozenset[str], dtype: str | None) -> dict[str, Any]:
    cards = sorted(
        (card.keyword, json.dumps(_plain(card.value)))
        for card in hdu.header.cards
        if card.keyword not in _SKIPPED | exempt
    )
    described: dict[str, Any] = {"name": hdu.name, "cards": _short(json.dumps(cards).encode())}
    if isinstance(hdu, fits.PrimaryHDU):
        described["decisive"] = {
            keyword: _plain(hdu.header[keyword]) for keyword in DECISIVE if keyword in hdu.header
        }
    if hdu.is_image and hdu.data is not None:
        array = hdu.data.astype(dtype or hdu.data.dtype)
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        described |= {"dtype": array.dtype.name, "shape": list(array.shape)}
        described["pixels"] = _short(little.tobytes())
    return described


def _plain(value: Any) -> Any:
    """Return a JSON value; None for an undefined one."""
    return None if isinstance(value, fits.card.Undefined) else value


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
