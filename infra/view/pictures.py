"""Lossless pictures of flags: for every pixel an index into the list of values that occur."""

import base64
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.flags import PIXEL_FLAGS

_REFERENCE = ("REFERENCE_PIXEL", "NON_SCIENCE", "BAD_REF_PIXEL")
"""Names of the flags of pixels that do not receive light."""
# zlib level 9 gives a result smaller by a tenth; 7 takes a third of its time.
_SMALL, _FAST = 9, 7


@dataclass(frozen=True)
class Box:
    """A rectangle of an array: its first column and row, from 0, and its size."""

    x: int
    y: int
    nx: int
    ny: int


@dataclass(frozen=True)
class Picture:
    """A picture of a page: planes of one shape, of which the page shows one at a time."""

    planes: tuple[dict[str, Any], ...]  # returned by `plane` or `comparison`
    shape: tuple[int, int]  # (ny, nx), science frame
    corner: tuple[int, int] = (1, 1)  # (x, y) that the page shows for the first pixel
    window: Box | None = None  # the subarray, if the planes show more of the detector
    compares: bool = False  # whether the planes are those of `comparison`

    def to_plain(self) -> dict[str, Any]:
        """Return the data of the picture that assets/page.js reads, for JSON."""
        return {
            "nx": self.shape[1],
            "ny": self.shape[0],
            "x0": self.corner[0],
            "y0": self.corner[1],
            "window": self.window and asdict(self.window),
            "compares": self.compares,
            "flags": [[name, bit] for name, bit in PIXEL_FLAGS.items()],
            "reference": [PIXEL_FLAGS[name] for name in _REFERENCE],
            "planes": list(self.planes),
        }


def plane(dq: NDArray[np.uint32], label: str = "", *, is_fast: bool = False) -> dict[str, Any]:
    """Return a plane of a picture from a 2-D image of flags; `is_fast` compresses it less."""
    flagged = np.flatnonzero(dq)
    values, inverse = np.unique(dq.reshape(-1)[flagged], return_inverse=True)
    level = _FAST if is_fast else _SMALL
    return _pack(dq.size, flagged, inverse, [0, *values.tolist()], label, level)


def comparison(before: NDArray[np.uint32], after: NDArray[np.uint32]) -> dict[str, Any]:
    """Return a plane of a picture whose values are pairs: flags before and flags after."""
    both = (before.astype(np.uint64) << np.uint64(32)) | after
    flagged = np.flatnonzero(both)
    values, inverse = np.unique(both.reshape(-1)[flagged], return_inverse=True)
    pairs = [[int(value) >> 32, int(value) & 0xFFFFFFFF] for value in values]
    return _pack(both.size, flagged, inverse, [[0, 0], *pairs], "", _SMALL)


def _pack(
    size: int,
    flagged: NDArray[np.intp],
    inverse: NDArray[np.intp],
    values: list[Any],
    label: str,
    level: int,
) -> dict[str, Any]:
    """Return a plane of indices into `values`: `inverse` + 1 of flagged pixels, else 0."""
    wide = 0 if len(values) <= 2**8 else 2 if len(values) <= 2**16 else 4
    index = np.zeros(size, f"<u{wide or 1}")
    index[flagged] = inverse + 1
    packed = base64.b64encode(zlib.compress(index.tobytes(), level)).decode()
    return {"label": label, "values": values, "wide": wide, "data": packed}
