"""What is drawn of a product, a raw file or a mask, and what is said of it."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import InputRejected, ReferenceUnavailable
from core.exposure import Exposure
from core.fits.hdus import Keywords
from core.mask import Mask
from core.step import initialize
from handler.crds.masks import References
from handler.s3.objects import ObjectStore
from infra.view.files import File
from infra.view.pictures import Box, Picture, comparison, plane

__all__ = ["Look", "mask_look", "masks_look", "product_look"]

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Look:
    """One page: its title, what is said above the picture, the picture."""

    title: str
    facts: Facts
    picture: Picture


def product_look(
    file: File, references: References | None, context: str, store: ObjectStore
) -> Look:
    """Look at a product, or at what a raw exposure's would be.

    Parameters
    ----------
    file : `~infra.view.files.File`
        The product or exposure.
    references : `~handler.crds.masks.References` or None
        The CRDS mirror: chooses a raw exposure's mask, and has what lies outside the window.
    context : str
        For raw exposures.
    store : `~handler.s3.objects.ObjectStore`
        How to reach the mirror.

    Raises
    ------
    InputRejected
        If it is neither, or is raw and there is no mirror.
    """
    exposure = Exposure.from_hdus(file.hdus, file.name)
    image, mask, chosen = _image(file, exposure, references, context, store)
    facts = (*_of_exposure(exposure), *_of_reference(exposure, chosen))
    if image.ndim == 3:
        total = len(image)
        planes = tuple(plane(one, f"stripe {k} of {total}") for k, one in enumerate(image, 1))
        return Look(file.stem, facts, Picture(planes, exposure.image_shape))
    picture = _around(image, mask, exposure) or Picture((plane(image),), exposure.image_shape)
    return Look(file.stem, facts, picture)


def _image(
    file: File,
    exposure: Exposure,
    references: References | None,
    context: str,
    store: ObjectStore,
) -> tuple[NDArray[np.uint32], Mask | None, str]:
    """The flags, the whole mask if it is at hand, and by which rules it was chosen."""
    header, existing = exposure.header, exposure.existing_image(file.read)
    if existing is not None and "R_MASK" in header:
        name, used = str(header["R_MASK"]), str(header.get("CRDS_CTX", ""))
        return existing, _mask_of(name, exposure, references, store), f"{name} by {used}"
    if references is None:
        raise InputRejected(
            f"{file.name}: has no flags yet; --mirror s3://... (or --stack) says where masks are"
        )
    reference = references.resolve(exposure, context, None, store)
    mask = references.load(reference, exposure, store)
    said = f"{reference.label or 'N/A'} by {reference.context}, as it would be applied"
    return initialize(exposure, mask, existing).image, mask, said


def _mask_of(
    label: str, exposure: Exposure, references: References | None, store: ObjectStore
) -> Mask | None:
    """The mask that a product names, if the mirror has it."""
    if references is None or not label.startswith("crds://"):
        return None
    name = label.removeprefix("crds://")
    try:
        digest = references.rules.digest_of(name)
        if digest is None:
            return None
        instrument = exposure.keywords.text("INSTRUME") or ""
        return references.masks.load(name, digest, instrument, store)
    except ReferenceUnavailable:
        return None


def _around(image: NDArray[np.uint32], mask: Mask | None, exposure: Exposure) -> Picture | None:
    """The image within the whole mask, where the mask has more than the window."""
    science = exposure.subarray
    if mask is None or science is None or exposure.stripes is not None:
        return None
    if mask.dq.shape == image.shape:
        return None
    area = mask.area
    x, y = science.xstart - area.xstart, science.ystart - area.ystart
    ny, nx = image.shape
    if x < 0 or y < 0 or x + nx > mask.dq.shape[1] or y + ny > mask.dq.shape[0]:
        return None
    whole = mask.dq.copy()
    whole[y : y + ny, x : x + nx] = image
    return Picture((plane(whole),), whole.shape, (area.xstart, area.ystart), Box(x, y, nx, ny))


def _of_exposure(exposure: Exposure) -> Facts:
    words = exposure.keywords
    instrument, detector, kind, observed = (
        words.text(name) or "?" for name in ("INSTRUME", "DETECTOR", "EXP_TYPE", "DATE-OBS")
    )
    integrations, groups, ny, nx = exposure.shape
    return (
        ("Detector", f"{instrument} {detector}"),
        ("Exposure", f"{kind}, {exposure.kind.value}, observed {observed}"),
        ("Shape", f"{integrations} integrations, {groups} groups, {nx} x {ny} pixels"),
        ("Window", _window(words, exposure, (ny, nx))),
    )


def _window(words: Keywords, exposure: Exposure, shape: tuple[int, int]) -> str:
    name, area = words.text("SUBARRAY") or "?", exposure.subarray
    if exposure.stripes is not None:
        return f"{name}: stripes; rows and columns are those of the image, not of the detector"
    if area is None:
        return name
    ny, nx = shape
    columns = f"columns {area.xstart} to {area.xstart + nx - 1}"
    return f"{name}: {columns}, rows {area.ystart} to {area.ystart + ny - 1}"


def _of_reference(exposure: Exposure, chosen: str) -> Facts:
    mask, _, rules = chosen.partition(" by ")
    status = exposure.header.get("S_DQINIT")
    facts = (("Mask", mask.removeprefix("crds://")), ("Context", rules))
    return (*facts, ("S_DQINIT", str(status))) if status else facts


def mask_look(file: File) -> Look:
    """Look at a MASK reference file, on its detector.

    Raises
    ------
    ReferenceUnavailable
        If it is no mask.
    """
    mask = Mask.from_bytes(file.content(), file.stem)
    ny, nx = mask.dq.shape
    return Look(
        file.stem, _of_mask(file, mask), Picture((plane(mask.dq),), (ny, nx), _corner(mask))
    )


def masks_look(before: Mask, after: Mask) -> Look:
    """Look at what a mask adds to another one and takes back, on the detector.

    Raises
    ------
    InputRejected
        If they are of different shapes.
    """
    if before.dq.shape != after.dq.shape:
        raise InputRejected(
            f"{before.name} has {before.dq.shape} pixels, {after.name} {after.dq.shape}: expected "
            "equal"
        )
    ny, nx = after.dq.shape
    drawn = (comparison(before.dq, after.dq),)
    picture = Picture(drawn, (ny, nx), _corner(after), compares=True)
    facts = (
        ("Before", before.name),
        ("After", after.name),
        ("Detector", f"{after.instrument} {after.detector}"),
        ("Pixels", f"{nx} x {ny}"),
    )
    return Look(f"{before.name} to {after.name}", facts, picture)


def _corner(mask: Mask) -> tuple[int, int]:
    return (mask.subarray.xstart, mask.subarray.ystart) if mask.subarray else (1, 1)


def _of_mask(file: File, mask: Mask) -> Facts:
    words = Keywords(file.hdus[0].header, file.name)
    ny, nx = mask.dq.shape
    useafter = words.text("USEAFTER") or "?"
    facts: Any = (
        ("Detector", f"{mask.instrument} {mask.detector}"),
        ("Pixels", f"{nx} x {ny}, {words.text('SUBARRAY') or 'full frame'}"),
        ("Use after", re.sub("T.*", "", useafter)),
        ("Pedigree", words.text("PEDIGREE") or "?"),
        ("Author", words.text("AUTHOR") or "?"),
        ("Description", words.text("DESCRIP") or "?"),
    )
    return tuple(facts)
