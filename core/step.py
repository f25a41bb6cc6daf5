"""The step: initialise the data-quality planes of an exposure and set the mask's flags in them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import InputRejected
from core.exposure import Exposure
from core.fits.hdus import shape_text
from core.fits.pixels import integer_flags
from core.flags import DO_NOT_USE
from core.mask import Mask
from core.readout import cut


@dataclass(frozen=True)
class DataQuality:
    """The data-quality planes that the step creates: standard flags, science frame."""

    image: NDArray[np.uint32]  # PIXELDQ, or DQ of a guider exposure: `Exposure.plane_shape`
    # Flags to set in every group of GROUPDQ: (1, ny, nx), or (SSTR_NST, ny, nx) for superstripes
    # with a mask. Unused for a guider exposure, which has no GROUPDQ.
    groupdq_planes: NDArray[np.uint8]


def initialize(
    exposure: Exposure,
    mask: Mask | None,
    existing: NDArray[np.uint32] | None = None,
    user: NDArray[Any] | None = None,
) -> DataQuality:
    """Merge the flags of `mask`, `user` and `existing`, the input's PIXELDQ or DQ.

    GROUPDQ gets DO_NOT_USE of `mask` and `user` only. Without a mask, `user` is ignored. Raises as
    `cut`, and `InputRejected` if `user` is not of `plane_shape` or not of whole numbers.
    """
    flags = np.zeros(exposure.plane_shape, np.uint32) if mask is None else cut(mask, exposure)
    if user is not None and mask is not None:
        if user.shape != exposure.plane_shape:
            raise InputRejected(
                f"{exposure.name}: the user-supplied DQ is {user.dtype.name} of shape "
                f"{shape_text(user.shape)}, expected integers of shape "
                f"{shape_text(exposure.plane_shape)}"
            )
        own = integer_flags(user, f"{exposure.name}, user-supplied DQ")
        flags = flags | own.astype(np.uint32)
    # Without a mask jwst skips the step: GROUPDQ gets one plane of zeros, even for superstripes.
    for_groups = flags if mask is not None else np.zeros(exposure.image_shape, np.uint32)
    return DataQuality(
        image=flags if existing is None else flags | existing,
        groupdq_planes=(for_groups.astype(np.uint8) & np.uint8(DO_NOT_USE)).reshape(
            -1, *exposure.image_shape
        ),
    )
