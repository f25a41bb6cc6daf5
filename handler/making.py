"""Making one product: from an exposure and its mask to the object in S3."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from core.exposure import Exposure
from core.product import Encoding, HeaderValues, compose
from core.step import initialize
from handler.inputs import existing_image, read_user_dq
from handler.provenance import Provenance
from handler.references.resolution import Reference, References
from handler.s3.assembly import Assembly
from handler.s3.blocks import Blocks
from handler.s3.objects import ObjectStore, StoredObject
from handler.s3.upload import Target

__all__ = ["Recipe", "make"]


@dataclass(frozen=True)
class Recipe:
    """What a product is made of, and where it goes.

    Attributes
    ----------
    exposure : `~core.exposure.Exposure`
        What the exposure's headers say.
    source, user_dq : `~handler.s3.objects.StoredObject`
        The exposure and, or None, the user-supplied DQ.
    reference : `~handler.references.resolution.Reference`
        The mask.
    provenance : `~handler.provenance.Provenance`
        The same in short, for the product's metadata.
    target : `~handler.s3.upload.Target`
        Where the product goes, and under which condition.
    """

    exposure: Exposure
    source: StoredObject
    user_dq: StoredObject | None
    reference: Reference
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
    references : `~handler.references.resolution.References`
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
