"""A picture of flags without loss: one byte a pixel, an index into the values that occur."""

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.flags import PIXEL_FLAGS

__all__ = ["REFERENCE", "Box", "Picture", "comparison", "plane"]

REFERENCE = ("REFERENCE_PIXEL", "NON_SCIENCE", "BAD_REF_PIXEL")
"""Flags of pixels that never see the sky."""
_BYTE, _TWO_BYTES = 256, 65536
"""Values that an index of one and of two bytes distinguishes."""
_BEST, _QUICK = 9, 7
"""Of zlib: a tenth smaller, or in a third of the time."""


@dataclass(frozen=True)
class Box:
    """A rectangle of an array: its first column and row, from 0, and its size."""

    x: int
    y: int
    nx: int
    ny: int


@dataclass(frozen=True)
class Picture:
    """What a page draws.

    Attributes
    ----------
    planes : tuple of dict
        As `plane` or `comparison` make them; all of one shape.
    shape : tuple of int
        (ny, nx), science frame.
    corner : tuple of int
        FITS coordinates (from 1) of the first column and row.
    window : `Box` or None
        What was read out, where the planes show more than that.
    compares : bool
        Whether the planes are comparisons.
    """

    planes: tuple[dict[str, Any], ...]
    shape: tuple[int, int]
    corner: tuple[int, int] = (1, 1)
    window: Box | None = None
    compares: bool = False

    def to_plain(self) -> dict[str, Any]:
        """Return it ready for JSON, as infra/view/assets/page.js reads it."""
        window = self.window
        return {
            "nx": self.shape[1],
            "ny": self.shape[0],
            "x0": self.corner[0],
            "y0": self.corner[1],
            "window": window and {"x": window.x, "y": window.y, "nx": window.nx, "ny": window.ny},
            "compares": self.compares,
            "flags": [[name, bit] for name, bit in PIXEL_FLAGS.items()],
            "reference": [PIXEL_FLAGS[name] for name in REFERENCE],
            "planes": list(self.planes),
        }


def plane(
    dq: NDArray[np.uint32], label: str = "", *, is_one_of_many: bool = False
) -> dict[str, Any]:
    """Pack a 2-D image of standard flags.

    Parameters
    ----------
    dq : ndarray of uint32
        Shape (ny, nx), science frame.
    label : str
        What the page calls it.
    is_one_of_many : bool
        Whether it is better packed quickly.
    """
    flagged = np.flatnonzero(dq)
    values, inverse = np.unique(dq.reshape(-1)[flagged], return_inverse=True)
    return _packed(
        dq.size, flagged, inverse, [0, *values.tolist()], label, _QUICK if is_one_of_many else _BEST
    )


def comparison(
    before: NDArray[np.uint32], after: NDArray[np.uint32], label: str = ""
) -> dict[str, Any]:
    """Pack two images of one shape: every value is a pair.

    Parameters
    ----------
    before, after : ndarray of uint32
        Shape (ny, nx), science frame.
    label : str
        What the page calls it.
    """
    both = (before.astype(np.uint64) << np.uint64(32)) | after
    flagged = np.flatnonzero(both)
    values, inverse = np.unique(both.reshape(-1)[flagged], return_inverse=True)
    pairs = [[int(value) >> 32, int(value) & 0xFFFFFFFF] for value in values]
    return _packed(both.size, flagged, inverse, [[0, 0], *pairs], label)


def _packed(
    size: int,
    flagged: NDArray[np.intp],
    inverse: NDArray[np.intp],
    values: list[Any],
    label: str,
    level: int = _BEST,
) -> dict[str, Any]:
    wide = 0 if len(values) <= _BYTE else 2 if len(values) <= _TWO_BYTES else 4
    index = np.zeros(size, f"<u{wide or 1}")
    index[flagged] = inverse + 1
    packed = base64.b64encode(zlib.compress(index.tobytes(), level)).decode()
    return {"label": label, "values": values, "wide": wide, "data": packed}
