"""The step: initialise the data-quality planes of an exposure and set the mask's flags in them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import InputRejected
from core.exposure import Exposure
from core.fits.pixels import whole_numbers
from core.flags import DO_NOT_USE
from core.mask import Mask
from core.readout import cut

__all__ = ["DataQuality", "initialize"]


@dataclass(frozen=True)
class DataQuality:
    """What the step makes of an exposure.

    Attributes
    ----------
    image : ndarray of uint32
        PIXELDQ, or DQ of a guider exposure: (ny, nx), or (SSTR_NST, ny, nx) for superstripes.
        Standard flags, science frame.
    groupdq_planes : ndarray of uint8
        The flags that the step sets in every group: one plane per stripe,
        (1 or SSTR_NST, ny, nx); one plane where no mask applies. A guider exposure has no
        GROUPDQ for them.
    """

    image: NDArray[np.uint32]
    groupdq_planes: NDArray[np.uint8]


def initialize(
    exposure: Exposure,
    mask: Mask | None,
    existing: NDArray[np.uint32] | None = None,
    user: NDArray[Any] | None = None,
) -> DataQuality:
    """Initialise the data-quality planes and set the flags of the mask in them.

    This is `jwst.dq_init` of jwst 3.0.0: the mask's flags are set in PIXELDQ (or DQ), its
    DO_NOT_USE in GROUPDQ too.

    Parameters
    ----------
    exposure : `~core.exposure.Exposure`
        The exposure.
    mask : `~core.mask.Mask` or None
        The mask; None where there is none.
    existing : ndarray of uint32 or None
        The data-quality image that the input has already.
    user : ndarray or None
        User-supplied flags, integers or floats that are whole numbers, merged with the mask's.

    Returns
    -------
    `DataQuality`
        The planes. Nothing that was passed in is changed.

    Raises
    ------
    InputRejected
        If the user's image is not of whole numbers or not of the cut mask's shape, or the mask
        cannot be cut to the readout (`core.readout.cut`).
    ReferenceUnavailable
        If the mask does not say what it covers.
    """
    flags = np.zeros(exposure.plane_shape, np.uint32) if mask is None else cut(mask, exposure)
    if user is not None and mask is not None:
        flags = flags | _user_flags(user, exposure)
    image = flags if existing is None else flags | existing
    # Without a mask one plane of nothing is set in every group, whatever the stripes.
    set_in_groups = flags if mask is not None else np.zeros(exposure.image_shape, np.uint32)
    planes = set_in_groups.astype(np.uint8) & np.uint8(DO_NOT_USE)
    return DataQuality(image=image, groupdq_planes=planes.reshape(-1, *exposure.image_shape))


def _user_flags(user: NDArray[Any], exposure: Exposure) -> NDArray[np.uint32]:
    if user.shape != exposure.plane_shape:
        raise InputRejected(
            f"{exposure.name}: the user-supplied DQ is {user.dtype.name} of shape {user.shape}, "
            f"expected integers of shape {exposure.plane_shape}"
        )
    return whole_numbers(user, f"{exposure.name}, user-supplied DQ").astype(np.uint32)
