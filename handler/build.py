"""Making one product: from an exposure and its mask to the object in S3."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.compat import check_asdf_agrees
from core.errors import InputRejected
from core.exposure import Exposure
from core.fits.hdus import locate
from core.fits.pixels import first_image
from core.product import Encoding, HeaderValues, compose
from core.step import initialize
from handler.crds.masks import MaskChoice, References
from handler.events import ExposureRequest
from handler.provenance import Provenance
from handler.s3.assembly import Assembly
from handler.s3.blocks import Blocks
from handler.s3.objects import ObjectStore, S3Location, StoredObject, Window
from handler.s3.write import Target

__all__ = [
    "Recipe",
    "describe_source",
    "describe_user_dq",
    "existing_image",
    "is_current",
    "make",
    "matches_event",
    "read_exposure",
    "read_product",
    "read_user_dq",
]

_LARGEST_USER_DQ = 256 * 1024 * 1024
_NO_VERSION = "null"
"""S3's name for the version of an object that was written while its bucket had none."""


def describe_source(request: ExposureRequest, store: ObjectStore) -> StoredObject:
    """Look the exposure up; a version only where a direct request names one.

    Raises
    ------
    InputRejected
        If it is not there, or may not be read.
    """
    source = request.source
    location = S3Location(source.bucket, source.key) if request.is_event else source
    return store.describe(location, InputRejected)


def matches_event(request: ExposureRequest, source: StoredObject) -> bool:
    """Say whether what lies there is still what an event speaks of."""
    version = request.source.version_id
    same_version = version is None or version == (source.version_id or _NO_VERSION)
    return same_version and request.etag in {None, source.etag.strip('"')}


def is_current(source: StoredObject, store: ObjectStore) -> bool:
    """Say whether a version is the current one of its object.

    Raises
    ------
    TransientFailure
        If S3 cannot be reached.
    """
    if source.location.version_id is None:  # found without naming a version
        return True
    now = store.find(S3Location(source.location.bucket, source.location.key))
    return now is not None and now.version_id == source.version_id


def read_exposure(source: StoredObject, store: ObjectStore) -> Exposure:
    """Read the headers and the metadata, and nothing else.

    Parameters
    ----------
    source : `~handler.s3.objects.StoredObject`
        The exposure.
    store : `~handler.s3.objects.ObjectStore`
        How to reach S3.

    Raises
    ------
    InputRejected
        If it is no exposure.
    """
    name = str(source.location)
    read = Window(store, source, InputRejected).read
    hdus = locate(read, source.size, name)
    exposure = Exposure.from_hdus(hdus, name)
    check_asdf_agrees(hdus, read, name)  # they lie where the last header was read
    return exposure


def existing_image(
    exposure: Exposure, source: StoredObject, store: ObjectStore
) -> NDArray[np.uint32] | None:
    """Read PIXELDQ or DQ of the exposure, where it has one that fits.

    Parameters are those of `read_exposure`, and what it returned.

    Returns
    -------
    ndarray of uint32 or None
        Of the exposure's plane shape.
    """
    return exposure.existing_image(
        lambda start, length: store.read(source, start, length, InputRejected)
    )


def read_product(product: StoredObject, store: ObjectStore) -> tuple[Exposure, NDArray[np.uint32]]:
    """Read what a product says of its exposure, and its data-quality image.

    Parameters are those of `read_exposure`.
    """
    exposure = read_exposure(product, store)
    image = existing_image(exposure, product, store)
    return exposure, np.zeros(exposure.plane_shape, np.uint32) if image is None else image


def describe_user_dq(location: S3Location | None, store: ObjectStore) -> StoredObject | None:
    """Look the user-supplied DQ up, where there is one.

    Raises
    ------
    InputRejected
        If it is not there, may not be read, or is too large for an image of a detector.
    """
    if location is None:
        return None
    described = store.describe(location, InputRejected)
    if described.size > _LARGEST_USER_DQ:
        raise InputRejected(
            f"{location}: has {described.size} bytes, expected a DQ image of at most "
            f"{_LARGEST_USER_DQ}"
        )
    return described


def read_user_dq(described: StoredObject | None, store: ObjectStore) -> NDArray[Any] | None:
    """Read the first image of a FITS file.

    Raises
    ------
    InputRejected
        If there is none.
    """
    if described is None:
        return None
    content = store.read(described, 0, described.size, InputRejected)
    return first_image(content, str(described.location))


@dataclass(frozen=True)
class Recipe:
    """What a product is made of, and where it goes.

    Attributes
    ----------
    exposure : `~core.exposure.Exposure`
        What the exposure's headers say.
    source, user_dq : `~handler.s3.objects.StoredObject`
        The exposure and, or None, the user-supplied DQ.
    reference : `~handler.crds.masks.MaskChoice`
        The mask.
    provenance : `~handler.provenance.Provenance`
        The same in short, for the product's metadata.
    target : `~handler.s3.write.Target`
        Where the product goes, and under which condition.
    """

    exposure: Exposure
    source: StoredObject
    user_dq: StoredObject | None
    reference: MaskChoice
    provenance: Provenance
    target: Target


def make(
    recipe: Recipe, references: References, blocks: Blocks, store: ObjectStore
) -> tuple[StoredObject, NDArray[np.uint32]]:
    """Run the step and write the product.

    Parameters
    ----------
    recipe : `Recipe`
        What to make.
    references : `~handler.crds.masks.References`
        The CRDS mirror.
    blocks : `~handler.s3.blocks.Blocks`
        Where S3 has the bytes of repeated planes.
    store : `~handler.s3.objects.ObjectStore`
        How to reach S3.

    Returns
    -------
    tuple
        The product, and its data-quality image (uint32, science frame).

    Raises
    ------
    InputRejected, ReferenceUnavailable, TransientFailure
        If it cannot be made; nothing is left behind then.
    """
    exposure = recipe.exposure
    quality = initialize(
        exposure,
        references.load(recipe.reference, exposure, store),
        existing_image(exposure, recipe.source, store),
        read_user_dq(recipe.user_dq, store),
    )
    encoding = Encoding(recipe.provenance.science_encoding)
    layout = compose(exposure, quality, _header_values(recipe), encoding)
    assembly = Assembly(layout, recipe.source, blocks, store)

    def is_same(existing: StoredObject) -> bool:
        return Provenance.from_metadata(existing.metadata) == recipe.provenance

    return assembly.write(recipe.target, is_same), quality.image


def _header_values(recipe: Recipe) -> HeaderValues:
    return HeaderValues(
        filename=recipe.target.location.key.rpartition("/")[2],
        date=datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds"),
        crds_version=recipe.reference.crds_version,
        crds_context=recipe.reference.context,
        mask=recipe.reference.label,
    )
