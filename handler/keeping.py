"""What is said of a product that is there already."""

from dataclasses import replace

from core.product import NO_MASK
from handler.announcements import Announcer, Draft
from handler.descriptions import exposure_summary, object_summary, planes_summary
from handler.event import ObjectSummary, ReferenceSummary
from handler.inputs import read_product
from handler.provenance import Provenance
from handler.s3.objects import StoredObject

__all__ = ["keep"]


def keep(draft: Draft, product: StoredObject, announcer: Announcer, mirror: str) -> Draft:
    """Find out whether a product was announced; if not, read what is to be said of it.

    Parameters
    ----------
    draft : `~handler.announcements.Draft`
        What is known so far, the ledger's entry among it.
    product : `~handler.s3.objects.StoredObject`
        The product.
    announcer : `~handler.announcements.Announcer`
        Knows who asks, and how to reach S3.
    mirror : str
        The CRDS mirror in use.

    Returns
    -------
    `~handler.announcements.Draft`
        What is to be announced: as if the product had been made just now.
    """
    draft = draft.know(output=object_summary(product), reference=_reference(product, mirror))
    draft = draft.know(input=_input(draft.findings.input, product))
    previous = announcer.announced_before(draft)
    if previous is not None:
        return replace(draft, previous=previous)
    exposure, image = read_product(product, announcer.store)
    provenance = Provenance.from_metadata(product.metadata)
    flags, row = planes_summary(exposure, image, pinned=bool(provenance and provenance.pinned))
    return replace(draft.know(exposure=exposure_summary(exposure), flags=flags), row=row)


def _input(asked: ObjectSummary | None, product: StoredObject) -> ObjectSummary | None:
    """The exposure: as it was found, or else as the product says that it was made from it."""
    provenance = Provenance.from_metadata(product.metadata)
    if asked is None or asked.etag is not None or provenance is None:
        return asked
    version, etag = provenance.input_version or None, f'"{provenance.input_etag}"'
    return replace(asked, version_id=asked.version_id or version, etag=etag)


def _reference(product: StoredObject, mirror: str) -> ReferenceSummary | None:
    """The mask that the product was made with, and the context that chose it then."""
    provenance = Provenance.from_metadata(product.metadata)
    if provenance is None:
        return None
    mask = None if provenance.mask == NO_MASK else provenance.mask
    return ReferenceSummary(mask, provenance.mask_sha1 or None, provenance.crds_context, mirror)
