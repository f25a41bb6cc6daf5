"""Writing pages into a folder."""

from pathlib import Path
from typing import Any

from handler.s3.locations import S3Location
from infra.look.flags import Look
from infra.look.history import chapters, history_look, history_table
from infra.look.page import Link, page_name, picture_page, write_index
from infra.mirror.bucket import Mirror
from infra.terminal import Mistake

__all__ = ["write_history", "write_looks"]


def write_looks(looks: list[Look], folder: Path) -> Path:
    """Write a page for each, and an index of them; returns the page to open first."""
    folder.mkdir(parents=True, exist_ok=True)
    links: list[Link] = []
    for look in looks:
        name = page_name(look.title)
        # File systems of macOS and Windows do not distinguish case.
        alike = sum(link.title.casefold() == look.title.casefold() for link in links)
        path = folder / (f"{name.removesuffix('.html')}--{alike + 1}.html" if alike else name)
        path.write_text(picture_page(look), encoding="utf-8")
        links.append(Link(path.name, look.title, "; ".join(text for _, text in look.facts[:4])))
    return path if len(links) == 1 else write_index(folder, "Flags", links)


def write_history(mirror: str, detector: str, folder: Path, s3: Any) -> Path:
    """Write the page of a detector's masks; returns it.

    Raises
    ------
    Mistake
        If the mirror's URI is malformed, or no rule names the detector.
    """
    try:
        place = S3Location.parse_prefix(mirror)
    except ValueError as exc:
        raise Mistake(str(exc)) from exc
    told = chapters(Mirror(s3, place), detector)
    look = history_look(detector, told, str(place))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / page_name(detector)
    page = picture_page(look, "history.html", len(told) - 1, **history_table(told))
    path.write_text(page, encoding="utf-8")
    return path
