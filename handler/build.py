"""Read the inputs of a product, and run the step on them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.compat import check_asdf_agrees
from core.errors import InputRejected
from core.exposure import Exposure
from core.fits.hdus import locate
from core.fits.pixels import first_image
from core.mask import Mask
from core.step import DataQuality, initialize
from handler.s3.objects import ObjectStore, S3Location, StoredObject, Window

_LARGEST_USER_DQ = 256 * 1024 * 1024


def read_exposure(source: StoredObject, store: ObjectStore) -> Exposure:
    """Read the headers and the ASDF extension of an exposure or product."""
    name = str(source.location)
    read = Window(store, source, InputRejected).read
    hdus = locate(read, source.size, name)
    exposure = Exposure.from_hdus(hdus, name)
    check_asdf_agrees(hdus, read, name)  # the last HDU: mostly in the window already
    return exposure


def read_existing_image(
    exposure: Exposure, source: StoredObject, store: ObjectStore
) -> NDArray[np.uint32] | None:
    """Read PIXELDQ or DQ of an exposure or product, if it has one of the right shape."""
    return exposure.existing_image(
        lambda start, length: store.read(source, start, length, InputRejected)
    )


def describe_user_dq(location: S3Location | None, store: ObjectStore) -> StoredObject | None:
    """Describe the user-supplied DQ, if there is any; reject files too large for a DQ image."""
    if location is None:
        return None
    described = store.describe(location, InputRejected)
    if described.size > _LARGEST_USER_DQ:
        raise InputRejected(
            f"{location}: has {described.size} bytes, expected a DQ image of at most "
            f"{_LARGEST_USER_DQ}"
        )
    return described


def run_step(
    exposure: Exposure,
    source: StoredObject,
    mask: Mask | None,
    user_dq: StoredObject | None,
    store: ObjectStore,
) -> DataQuality:
    """Run the step on an exposure, its existing DQ and the user-supplied DQ."""
    existing = read_existing_image(exposure, source, store)
    user_image: NDArray[Any] | None = None
    if user_dq is not None:
        content = store.read(user_dq, 0, user_dq.size, InputRejected)
        user_image = first_image(content, str(user_dq.location))
    return initialize(exposure, mask, existing, user_image)
