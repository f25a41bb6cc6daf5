"""A page for every mask that changes between two contexts."""

from collections.abc import Iterable
from pathlib import Path

from core.errors import InputRejected
from handler.references.mappings import is_applicable
from infra.look.flags import masks_look
from infra.look.masks import mask_in
from infra.look.page import Link, page_name, picture_page, write_index
from infra.mirror.bucket import Mirror
from infra.mirror.changes import Change

__all__ = ["write_changes"]


def write_changes(mirror: Mirror, changes: Iterable[Change], title: str, folder: Path) -> Path:
    """Write the pages, and an index of them; returns the index.

    Masks of two shapes are named in the index, and not compared.

    Raises
    ------
    ReferenceUnavailable
        If a mask is not there, or is no mask.
    """
    folder.mkdir(parents=True, exist_ok=True)
    links: dict[tuple[str, str], Link] = {}
    for change in changes:
        pair = (change.before, change.after)
        if pair in links or not all(name and is_applicable(name) for name in pair):
            continue
        matched = " ".join([change.instrument.upper(), *(value for _, value in change.parameters)])
        links[pair] = _written(mirror, change, f"{matched}, from {change.start[:10]}", folder)
    return write_index(folder, title, links.values())


def _written(mirror: Mirror, change: Change, about: str, folder: Path) -> Link:
    pair = [mask_in(mirror, name, change.instrument) for name in (change.before, change.after)]
    title = f"{change.before} to {change.after}"
    try:
        look = masks_look(*pair)
    except InputRejected as exc:
        return Link("", title, f"{about}: not compared, {exc}")
    path = folder / page_name(title.replace(" ", "-").replace(".fits", ""))
    path.write_text(picture_page(look), encoding="utf-8")
    return Link(path.name, title, about)
