"""The step: initialise the data-quality planes of an exposure and set the mask's flags in them."""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import InputRejected
from core.exposure import Exposure, Kind
from core.flags import DO_NOT_USE
from core.hdus import Hdu, find

__all__ = ["DataQuality", "image_name", "initialize", "kept"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataQuality:
    """What the step makes of an exposure.

    Attributes
    ----------
    image : ndarray of uint32
        PIXELDQ, or DQ of a guider exposure: (ny, nx), or (SSTR_NST, ny, nx) for superstripes.
        Standard flags, science frame.
    groups : ndarray of uint8
        The flags that the step sets in every group: one plane per stripe,
        (1 or SSTR_NST, ny, nx). A guider exposure has no GROUPDQ for them.
    """

    image: NDArray[np.uint32]
    groups: NDArray[np.uint8]


def image_name(exposure: Exposure) -> str:
    """EXTNAME of the data-quality image: DQ for a guider exposure, else PIXELDQ."""
    return "DQ" if exposure.kind is Kind.GUIDER else "PIXELDQ"


def kept(exposure: Exposure, name: str, shape: tuple[int, ...]) -> Hdu | None:
    """Find a data-quality array of the input that the step merges into.

    Parameters
    ----------
    exposure : `~core.exposure.Exposure`
        The exposure.
    name : str
        EXTNAME of the array.
    shape : tuple of int
        The shape it must have. An array of another shape is replaced, with a warning.

    Returns
    -------
    `~core.hdus.Hdu` or None
        The array's HDU; None where zeros take its place.

    Raises
    ------
    InputRejected
        If the input has something else of that name: a table, or an array of other axes.
    """
    hdu = find(exposure.hdus, name)
    if hdu is None or (hdu.is_image and hdu.shape == shape):
        return hdu
    if not hdu.is_image or len(hdu.shape) != len(shape):
        raise InputRejected(
            f"{exposure.name}: {name} has {len(hdu.shape)} axes, expected an image of {len(shape)}"
        )
    log.warning(
        "%s: %s has shape %s, expected %s; nothing is merged into it",
        exposure.name,
        name,
        hdu.shape,
        shape,
    )
    return None


def initialize(
    exposure: Exposure,
    mask: NDArray[np.uint32] | None,
    present: NDArray[np.uint32] | None = None,
    user: NDArray[np.integer] | None = None,
) -> DataQuality:
    """Initialise the data-quality planes and set the flags of the mask in them.

    This is `jwst.dq_init` of jwst 3.0.0: the mask's flags are set in PIXELDQ (or DQ), its
    DO_NOT_USE in GROUPDQ too.

    Parameters
    ----------
    exposure : `~core.exposure.Exposure`
        The exposure.
    mask : ndarray of uint32 or None
        The mask cut to the readout, of shape `exposure.plane_shape`; None where there is none.
    present : ndarray of uint32 or None
        The data-quality image that the input has already.
    user : ndarray of integers or None
        User-supplied flags, merged with the mask's.

    Returns
    -------
    `DataQuality`
        The planes. Nothing that was passed in is changed.

    Raises
    ------
    InputRejected
        If the user's image is not of integers or not of the mask's shape.
    """
    flags = np.zeros(exposure.plane_shape, np.uint32) if mask is None else mask
    if user is not None and mask is not None:
        flags = flags | _user_flags(user, exposure)
    image = flags if present is None else flags | present
    planes = flags.astype(np.uint8) & np.uint8(DO_NOT_USE)
    return DataQuality(image=image, groups=planes.reshape(-1, *exposure.image_shape))


def _user_flags(user: NDArray[np.integer], exposure: Exposure) -> NDArray[np.uint32]:
    if user.dtype.kind not in "iu" or user.shape != exposure.plane_shape:
        raise InputRejected(
            f"{exposure.name}: the user-supplied DQ is {user.dtype.name} of shape {user.shape}, "
            f"expected integers of shape {exposure.plane_shape}"
        )
    return user.astype(np.uint32)
