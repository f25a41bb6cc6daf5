"""What the function reads of its inputs: headers, flags the exposure brings, the user's flags."""

import io
from functools import partial
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from numpy.typing import NDArray

from core.errors import InputRejected
from core.exposure import Exposure
from core.hdus import locate
from core.pixels import format_of
from core.step import image_name, kept
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore, StoredObject

__all__ = ["current_exposure", "present_image", "read_exposure", "read_user_dq"]

_LARGEST_USER_DQ = 256 * 1024 * 1024


def current_exposure(
    source: S3Location, etag: str | None, store: ObjectStore
) -> tuple[StoredObject, bool]:
    """Look an exposure up, and say whether it is still the object that was asked for.

    Parameters
    ----------
    source : `~handler.s3.locations.S3Location`
        The exposure, with the version that was asked for, if one was.
    etag : str or None
        Entity tag of what was asked for, where it is known.
    store : `~handler.s3.objects.ObjectStore`
        How to reach S3.

    Returns
    -------
    tuple of `~handler.s3.objects.StoredObject` and bool
        What lies there now, and whether it is what was asked for.

    Raises
    ------
    InputRejected
        If there is nothing.
    """
    found = store.describe(S3Location(source.bucket, source.key), missing=InputRejected)
    same_version = source.version_id in {None, found.location.version_id}
    return found, same_version and (etag is None or etag.strip('"') == found.etag.strip('"'))


def read_exposure(source: StoredObject, store: ObjectStore) -> Exposure:
    """Read the headers, and nothing but the headers.

    Raises
    ------
    InputRejected
        If it is no exposure.
    """
    name = str(source.location)
    hdus = locate(partial(store.read_headers, source), source.size, name)
    return Exposure.from_hdus(hdus, name)


def present_image(
    exposure: Exposure, source: StoredObject, store: ObjectStore
) -> NDArray[np.uint32] | None:
    """Read PIXELDQ or DQ of the exposure, where it has one that fits.

    Returns
    -------
    ndarray of uint32 or None
        Of the exposure's plane shape.
    """
    hdu = kept(exposure, image_name(exposure), exposure.plane_shape)
    if hdu is None:
        return None
    stored = store.read(source, hdu.data_start, hdu.data_length)
    pixels = format_of(hdu.header, f"{exposure.name}, {hdu.name}").decode(stored)
    return pixels.reshape(hdu.shape).astype(np.uint32)


def read_user_dq(found: StoredObject, store: ObjectStore) -> NDArray[Any]:
    """Read the first image of a FITS file.

    Raises
    ------
    InputRejected
        If there is none, or the file is too large for an image of a detector.
    """
    if found.size > _LARGEST_USER_DQ:
        raise InputRejected(
            f"{found.location}: has {found.size} bytes, expected a DQ image of at most "
            f"{_LARGEST_USER_DQ}"
        )
    content = store.read(found, 0, found.size)
    try:
        data = fits.getdata(io.BytesIO(content))
    except (OSError, IndexError, TypeError, ValueError, VerifyError) as exc:
        raise InputRejected(f"{found.location}: no DQ image can be read from it: {exc}") from exc
    return np.asarray(data)
