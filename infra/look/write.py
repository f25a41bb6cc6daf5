"""Writing pages into a folder."""

from pathlib import Path
from typing import Any

from handler.s3.locations import S3Location
from infra.look.flags import Look
from infra.look.history import chapters, history_look, history_table
from infra.look.page import Link, picture_page, write_index
from infra.mirror.bucket import Mirror

__all__ = ["write_archive", "write_history", "write_looks"]


def write_looks(looks: list[Look], folder: Path) -> Path:
    """Write a page for each, and an index of them; returns the page to open first."""
    folder.mkdir(parents=True, exist_ok=True)
    links: list[Link] = []
    for look in looks:
        name = look.title.replace(" ", "-")
        alike = sum(link.title == look.title for link in links)
        path = folder / f"{name}{f'-{alike + 1}' if alike else ''}.html"
        path.write_text(picture_page(look))
        links.append(Link(path.name, look.title, "; ".join(text for _, text in look.facts[:4])))
    return path if len(links) == 1 else write_index(folder, "Flags", links)


def write_history(mirror: str, detector: str, folder: Path, s3: Any) -> Path:
    """Write the page of a detector's masks; returns it."""
    place = S3Location.parse_prefix(mirror)
    told = chapters(Mirror(s3, place), detector)
    look = history_look(detector, told, str(place))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{detector}.html"
    path.write_text(picture_page(look, history_table(told), start=len(told) - 1))
    return path


def write_archive(target: str, folder: Path, s3: Any) -> Path:
    """Write the pages of a catalogue that lies here, or in S3."""
    from infra.look.catalogue import write_catalogue  # noqa: PLC0415  # needs DuckDB
    from infra.reprocessing.catalogue import Catalogue  # noqa: PLC0415

    if not target.startswith("s3://"):
        return write_catalogue(Path(target), folder)
    place = S3Location.parse_prefix(target.removesuffix("/exposures.parquet"))
    with Catalogue.open(s3, place) as catalogue:
        return write_catalogue(catalogue.path, folder)
