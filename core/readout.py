"""Cutting a mask to the part of the detector that an exposure read out."""

import logging

import numpy as np
from numpy.typing import NDArray

from core.compat import Kind
from core.errors import InputRejected
from core.exposure import Exposure
from core.mask import Mask
from core.stripes import StripeReadout
from core.subarray import Subarray

__all__ = ["cut", "detector_mismatch"]

log = logging.getLogger(__name__)

_IRS2_DECLARED, _IRS2_ROWS = 2048, 3200
"""NIRSpec IRS2 interleaves reference pixels: 3200 rows are declared as the detector's 2048."""


def cut(mask: Mask, exposure: Exposure) -> NDArray[np.uint32]:
    """Cut a mask to an exposure's readout.

    The rules are those of `jwst.lib.reffile_utils` in jwst 3.0.0: a mask whose start and size
    match is used whole; otherwise the rows that the stripes read are gathered, or a window is
    cut out.

    Parameters
    ----------
    mask : `~core.mask.Mask`
        The mask.
    exposure : `~core.exposure.Exposure`
        The exposure.

    Returns
    -------
    ndarray of uint32
        Standard flags in the science frame: (ny, nx), or (SSTR_NST, ny, nx) for superstripes.
        A view of the mask where no rows had to be gathered; not to be written to.

    Raises
    ------
    InputRejected
        If the exposure lacks subarray keywords, contradicts itself, was read out where the
        mask has no pixels, or its integrations are no multiple of SSTR_NST.
    ReferenceUnavailable
        If the mask does not say what it covers.
    """
    exposure.check_integrations()
    science = exposure.subarray
    if science is None:
        raise InputRejected(f"{exposure.name}: SUBSTRT1, SUBSTRT2, SUBSIZE1 or SUBSIZE2 is missing")
    if exposure.superstripes <= 0 and _matches(mask, science, exposure):
        return _checked(mask.dq, exposure, science)
    _check_size(exposure, science)
    if exposure.stripes is not None:
        return _checked(_gather(mask, exposure, exposure.stripes, science), exposure, science)
    return _checked(_window(mask, exposure, science), exposure, science)


def detector_mismatch(mask: Mask, exposure: Exposure) -> str | None:
    """Return a warning if the mask belongs to another detector than the exposure, else None."""
    words = exposure.keywords
    own = ((words.text("INSTRUME") or "").upper(), (words.text("DETECTOR") or "").upper())
    if (mask.instrument or own[0], mask.detector or own[1]) == own:
        return None
    of_mask = f"{mask.instrument} {mask.detector}".strip()
    return f"{mask.name}: is of {of_mask}, and {exposure.name} is of {' '.join(own).strip()}"


def _matches(mask: Mask, science: Subarray, exposure: Exposure) -> bool:
    """Whether the mask covers exactly the exposure's area."""
    return _effective(mask.area, mask.dq.shape, mask.name) == _effective(
        science, exposure.image_shape, exposure.name
    )


def _effective(declared: Subarray, shape: tuple[int, ...], name: str) -> Subarray:
    """The declared area, with the array's own size where the two disagree."""
    rows, columns = shape
    if declared.ysize == _IRS2_DECLARED and rows == _IRS2_ROWS:
        rows = _IRS2_DECLARED
    effective = Subarray(declared.xstart, declared.ystart, columns, rows)
    if effective != declared:
        log.warning("%s: %s disagrees with its array of %s", name, declared, shape)
    return effective


def _check_size(exposure: Exposure, science: Subarray) -> None:
    """A part can only be cut to fit if the size declared is the image's own."""
    if (science.ysize, science.xsize) != exposure.image_shape:
        raise InputRejected(
            f"{exposure.name}: {science} contradicts SCI, whose images are "
            f"{exposure.image_shape[1]} x {exposure.image_shape[0]} pixels"
        )


def _window(mask: Mask, exposure: Exposure, science: Subarray) -> NDArray[np.uint32]:
    """Cut the exposure's rectangle out of the mask."""
    area = mask.area
    x, y = science.xstart - area.xstart, science.ystart - area.ystart
    columns, rows = min(area.xsize, mask.dq.shape[1]), min(area.ysize, mask.dq.shape[0])
    if x < 0 or y < 0 or x + science.xsize > columns or y + science.ysize > rows:
        raise InputRejected(
            f"{exposure.name}: read out where the mask has no pixels: science {science}; "
            f"{mask.name} {area}, array {mask.dq.shape[1]} x {mask.dq.shape[0]}; columns "
            f"{x} to {x + science.xsize} of {columns}, rows {y} to {y + science.ysize} of {rows}"
        )
    return mask.dq[y : y + science.ysize, x : x + science.xsize]


def _gather(
    mask: Mask, exposure: Exposure, stripes: StripeReadout, science: Subarray
) -> NDArray[np.uint32]:
    """Gather the rows that the stripes read, within the window along the fast axis."""
    if exposure.kind is Kind.GUIDER and stripes.count > 0:
        raise InputRejected(f"{exposure.name}: a guider exposure with {stripes}")
    slow = 1 if stripes.slow_is_x else 0
    fast = _fast_window(mask, exposure, 1 - slow, science)
    window = mask.dq[:, fast] if slow == 0 else mask.dq[fast, :]
    rows = stripes.rows(science, mask.dq.shape[slow])
    if stripes.count == 0:
        return np.take(window, next(rows), axis=slow)
    gathered = np.empty(exposure.plane_shape, np.uint32)
    for stripe, of_stripe in enumerate(rows):
        plane = np.take(window, of_stripe, axis=slow)
        if plane.shape != exposure.image_shape:
            return _checked(plane[np.newaxis], exposure, science)
        gathered[stripe] = plane
    return gathered


def _fast_window(mask: Mask, exposure: Exposure, axis: int, science: Subarray) -> slice:
    """The exposure's window along the fast axis (0: rows, 1: columns) of the mask."""
    start = mask.corner[1 - axis]
    if start is None:
        return slice(None)
    first = (science.ystart, science.xstart)[axis] - start
    stop = first + (science.ysize, science.xsize)[axis]
    if first < 0 or stop > mask.dq.shape[axis]:
        raise InputRejected(
            f"{exposure.name}: stripes read out where the mask has no pixels: science {science}; "
            f"{mask.name} starts at {start}; fast axis {first} to {stop} of {mask.dq.shape[axis]}"
        )
    return slice(first, stop)


def _checked(dq: NDArray[np.uint32], exposure: Exposure, science: Subarray) -> NDArray[np.uint32]:
    """Check that the cut mask has the shape of the exposure's planes."""
    if dq.shape != exposure.plane_shape:
        raise InputRejected(
            f"{exposure.name}: the mask cut to {science} has shape {dq.shape}, "
            f"expected {exposure.plane_shape}"
        )
    return dq
