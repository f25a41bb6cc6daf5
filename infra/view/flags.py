"""The content of the pages of products, raw exposures and masks: facts and a picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import InputRejected, ReferenceUnavailable
from core.exposure import Exposure
from core.fits.hdus import Keywords
from core.mask import Mask
from core.step import initialize
from core.virtual import read_flags
from handler.crds.masks import References
from handler.s3.objects import ObjectStore
from infra.view.files import File
from infra.view.pictures import Box, Picture, comparison, plane

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """The content of an HTML page: a title, facts, and a picture of flags below them."""

    title: str
    facts: Facts
    picture: Picture


def product_page(
    file: File, references: References | None, context: str, store: ObjectStore
) -> Page:
    """Return the page of a product, or of the product that a raw exposure would get.

    For a raw exposure, `references` and `context` select the mask; None raises `InputRejected`. For
    a product, `references` only serve to show the mask outside its window.
    """
    exposure, image = _read(file)
    header = exposure.header
    if image is not None and "R_MASK" in header:
        name, used = str(header["R_MASK"]), str(header.get("CRDS_CTX", ""))
        mask = _mask_of(name, exposure, references, store)
    elif references is None:
        raise InputRejected(
            f"{file.name}: a raw exposure, expected a product; to select its mask, add --mirror "
            "s3://bucket/prefix or --stack NAME"
        )
    else:
        reference = references.resolve(exposure, context, None, store)
        mask = references.load(reference, exposure, store)
        name = reference.label or "N/A"
        used = f"{reference.context}, as it would be applied"
        image = initialize(exposure, mask, image).image
    facts = (
        *_exposure_facts(exposure),
        ("Mask", name.removeprefix("crds://")),
        ("Context", used),
        *((("S_DQINIT", str(header["S_DQINIT"])),) if header.get("S_DQINIT") else ()),
    )
    if image.ndim == 3:
        total = len(image)
        planes = tuple(plane(one, f"stripe {k} of {total}") for k, one in enumerate(image, 1))
        return Page(file.stem, facts, Picture(planes, exposure.image_shape))
    picture = _with_surroundings(image, mask, exposure)
    return Page(file.stem, facts, picture or Picture((plane(image),), exposure.image_shape))


def _read(file: File) -> tuple[Exposure, NDArray[np.uint32] | None]:
    """Return an exposure or product, and its data-quality image if it has one."""
    if file.is_virtual:
        return read_flags(file.content(), file.name)
    exposure = Exposure.from_hdus(file.hdus, file.name)
    return exposure, exposure.existing_image(file.read)


def _mask_of(
    label: str, exposure: Exposure, references: References | None, store: ObjectStore
) -> Mask | None:
    """Return the mask that `label`, a product's R_MASK, names; None if it is not available."""
    if references is None or not label.startswith("crds://"):
        return None
    name = label.removeprefix("crds://")
    try:
        digest = references.rules.digest_of(name)
        instrument = exposure.keywords.text("INSTRUME") or ""
        return references.masks.load(name, digest, instrument, store) if digest else None
    except ReferenceUnavailable:
        return None


def _with_surroundings(
    image: NDArray[np.uint32], mask: Mask | None, exposure: Exposure
) -> Picture | None:
    """Return a picture of a mask that shows a subarray's flags inside its window."""
    science = exposure.subarray
    if mask is None or science is None or exposure.stripes is not None:
        return None
    area = mask.area
    x, y = science.xstart - area.xstart, science.ystart - area.ystart
    ny, nx = image.shape
    fits_in = x >= 0 and y >= 0 and x + nx <= mask.dq.shape[1] and y + ny <= mask.dq.shape[0]
    if mask.dq.shape == image.shape or not fits_in:
        return None
    whole = mask.dq.copy()
    whole[y : y + ny, x : x + nx] = image
    return Picture((plane(whole),), whole.shape, (area.xstart, area.ystart), Box(x, y, nx, ny))


def _exposure_facts(exposure: Exposure) -> Facts:
    words, area = exposure.keywords, exposure.subarray
    instrument, detector, kind, observed, window = (
        words.text(name) or "?"
        for name in ("INSTRUME", "DETECTOR", "EXP_TYPE", "DATE-OBS", "SUBARRAY")
    )
    integrations, groups, ny, nx = exposure.shape
    if exposure.stripes is not None:
        window += ": stripes; rows and columns are those of the image, not of the detector"
    elif area is not None:
        window += f": columns {area.xstart} to {area.xstart + nx - 1}"
        window += f", rows {area.ystart} to {area.ystart + ny - 1}"
    return (
        ("Detector", f"{instrument} {detector}"),
        ("Exposure", f"{kind}, {exposure.kind.value}, observed {observed}"),
        ("Shape", f"{integrations} integrations, {groups} groups, {nx} x {ny} pixels"),
        ("Window", window),
    )


def mask_page(file: File) -> Page:
    """Return the page of a MASK reference file."""
    mask = file.mask()
    words = Keywords(file.hdus[0].header, file.name)
    ny, nx = mask.dq.shape
    facts = (
        ("Detector", f"{mask.instrument} {mask.detector}"),
        ("Pixels", f"{nx} x {ny}, {words.text('SUBARRAY') or 'full frame'}"),
        ("Use after", (words.text("USEAFTER") or "?").partition("T")[0]),
        ("Pedigree", words.text("PEDIGREE") or "?"),
        ("Author", words.text("AUTHOR") or "?"),
        ("Description", words.text("DESCRIP") or "?"),
    )
    return Page(file.stem, facts, Picture((plane(mask.dq),), (ny, nx), _corner(mask)))


def comparison_page(before: Mask, after: Mask) -> Page:
    """Return the page of the flags that change from one mask to another."""
    if before.dq.shape != after.dq.shape:
        (ny, nx), (y, x) = before.dq.shape, after.dq.shape
        raise InputRejected(
            f"{after.name}: {x} x {y} pixels, expected {nx} x {ny} as in {before.name}"
        )
    ny, nx = after.dq.shape
    drawn = (comparison(before.dq, after.dq),)
    facts = (
        ("Before", before.name),
        ("After", after.name),
        ("Detector", f"{after.instrument} {after.detector}"),
        ("Pixels", f"{nx} x {ny}"),
    )
    picture = Picture(drawn, (ny, nx), _corner(after), compares=True)
    return Page(f"{before.name} to {after.name}", facts, picture)


def _corner(mask: Mask) -> tuple[int, int]:
    return (mask.subarray.xstart, mask.subarray.ystart) if mask.subarray else (1, 1)
