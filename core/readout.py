"""The part of a mask that an exposure read out: the whole, a window, or gathered rows."""

import logging

import numpy as np
from numpy.typing import NDArray

from core.compat import Kind
from core.errors import InputRejected
from core.exposure import Exposure, Subarray
from core.fits.hdus import shape_text
from core.mask import Mask
from core.stripes import StripeReadout

log = logging.getLogger(__name__)

# NIRSpec IRS2 interleaves reference pixels: images of 3200 rows declare the detector's 2048.
# jwst-docs.stsci.edu, "NIRSpec IRS2 Detector Readout Mode"
_IRS2_DECLARED, _IRS2_ROWS = 2048, 3200


def cut(mask: Mask, exposure: Exposure) -> NDArray[np.uint32]:
    """Return a mask's flags of the pixels that an exposure read out, in its `plane_shape`.

    As in `jwst.lib.reffile_utils` of jwst 3.0.0, a mask of the same corner and size is used whole,
    except for superstripes; otherwise the rows of the stripes are gathered, or a window is cut out.

    Raises
    ------
    InputRejected
        If the exposure lacks a subarray keyword, its keywords contradict each other or SCI, or the
        mask lacks pixels that were read out.
    ReferenceUnavailable
        As `Mask.area`; the area is not needed for superstripes with MSTR_RD1.
    """
    if exposure.kind is Kind.SUPERSTRIPE and exposure.shape[0] % exposure.superstripes:
        raise InputRejected(
            f"{exposure.name}: {exposure.shape[0]} integrations, expected a multiple of "
            f"SSTR_NST={exposure.superstripes}"
        )
    science = exposure.subarray
    if science is None:
        raise InputRejected(f"{exposure.name}: lacks SUBSTRT1/2 or SUBSIZE1/2, expected all four")
    if exposure.superstripes <= 0 and (
        _true_area(mask.area, mask.dq.shape, mask.name)
        == _true_area(science, exposure.image_shape, exposure.name)
    ):
        return _checked(mask.dq, exposure, science)
    if (science.ysize, science.xsize) != exposure.image_shape:
        raise InputRejected(
            f"{exposure.name}: {science}, expected the size of the images in SCI: "
            f"{exposure.image_shape[1]} x {exposure.image_shape[0]} pixels"
        )
    if exposure.stripes is not None:
        return _checked(_gather(mask, exposure, exposure.stripes, science), exposure, science)
    return _checked(_window(mask, exposure, science), exposure, science)


def detector_mismatch(mask: Mask, exposure: Exposure) -> str | None:
    """Return a warning if INSTRUME or DETECTOR of mask and exposure differ, else None.

    A keyword that the mask lacks does not differ; one that only the exposure lacks does.
    """
    keywords = exposure.keywords
    own = tuple((keywords.text(name) or "").upper() for name in ("INSTRUME", "DETECTOR"))
    if (mask.instrument or own[0], mask.detector or own[1]) == own:
        return None
    detectors = ((mask.instrument, mask.detector), own)
    ours, its = (" ".join(filter(None, words)) or "no detector" for words in detectors)
    return f"{mask.name}: the mask is of {ours}, but {exposure.name} is of {its}; the mask is used"


def _true_area(declared: Subarray, shape: tuple[int, ...], name: str) -> Subarray:
    """Return the declared area with the array's size; log if it differs (IRS2: 2048 rows)."""
    rows, columns = shape
    if declared.ysize == _IRS2_DECLARED and rows == _IRS2_ROWS:
        rows = _IRS2_DECLARED
    area = Subarray(declared.xstart, declared.ystart, columns, rows)
    if area != declared:
        size = shape_text(shape)
        log.warning("%s: %s disagrees with its array of %s; array size used", name, declared, size)
    return area


def _window(mask: Mask, exposure: Exposure, science: Subarray) -> NDArray[np.uint32]:
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
    """Return the flags of the rows that the stripes read: one image, or one per superstripe."""
    if exposure.kind is Kind.GUIDER and stripes.count > 0:
        raise InputRejected(
            f"{exposure.name}: a guider exposure with {stripes}, expected SSTR_NST=0"
        )
    slow = 1 if stripes.slow_is_x else 0  # axes of the array: 0 is y, 1 is x
    start = mask.corner[slow]  # along the fast axis: corner is (x, y)
    window = mask.dq
    if start is not None:
        first = (science.xstart if slow == 0 else science.ystart) - start
        stop = first + (science.xsize if slow == 0 else science.ysize)
        length = mask.dq.shape[1 - slow]
        if first < 0 or stop > length:
            raise InputRejected(
                f"{exposure.name}: the stripes ({science}) read pixels {first + start} to "
                f"{stop + start - 1} along the fast axis, expected pixels of {mask.name}, {start} "
                f"to {start + length - 1}"
            )
        window = mask.dq[:, first:stop] if slow == 0 else mask.dq[first:stop, :]
    rows = stripes.rows(science, mask.dq.shape[slow])
    if stripes.count == 0:
        return np.take(window, next(rows), axis=slow)
    gathered = np.empty(exposure.plane_shape, np.uint32)
    for stripe, of_stripe in enumerate(rows):
        plane = np.take(window, of_stripe, axis=slow)
        if plane.shape != exposure.image_shape:
            return _checked(plane[np.newaxis], exposure, science)  # raises
        gathered[stripe] = plane
    return gathered


def _checked(dq: NDArray[np.uint32], exposure: Exposure, science: Subarray) -> NDArray[np.uint32]:
    if dq.shape != exposure.plane_shape:
        raise InputRejected(
            f"{exposure.name}: the mask cut to {science} has shape {shape_text(dq.shape)}, expected"
            f" {shape_text(exposure.plane_shape)}; check MSTR_* and SSTR_NST, SUBSTRT* of the mask"
        )
    return dq
