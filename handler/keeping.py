"""What is said of a product that is there already."""

from dataclasses import replace

from handler.announcements import Announcer, Draft
from handler.descriptions import (
    catalogue_row,
    exposure_summary,
    flag_summary,
    object_summary,
)
from handler.inputs import read_product
from handler.s3.objects import StoredObject

__all__ = ["keep"]


def keep(draft: Draft, product: StoredObject, announcer: Announcer) -> Draft:
    """Find out whether a product was announced; if not, read what is to be said of it.

    Parameters
    ----------
    draft : `~handler.announcements.Draft`
        What is known so far.
    product : `~handler.s3.objects.StoredObject`
        The product.
    announcer : `~handler.announcements.Announcer`
        Knows the ledger, and how to reach S3.

    Returns
    -------
    `~handler.announcements.Draft`
        What is to be announced: as if the product had been made just now.
    """
    entry = announcer.ledger.read(product.location, announcer.store)
    draft = replace(draft.know(output=object_summary(product)), entry=entry)
    previous = announcer.announced_before(draft)
    if previous is not None:
        return replace(draft, previous=previous)
    exposure, image = read_product(product, announcer.store)
    summary, flags = exposure_summary(exposure), flag_summary(image)
    return replace(draft.know(exposure=summary, flags=flags), row=catalogue_row(exposure, image))
