"""Pages: one self-contained HTML file each, rendered by Jinja2 with autoescape."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from core import SOFTWARE, __version__
from core.errors import InputRejected
from handler.crds.rules import is_applicable
from handler.s3.objects import S3Location
from infra.cli import UserError
from infra.mirror.bucket import Mirror
from infra.mirror.changes import Change
from infra.view.flags import Look, masks_look
from infra.view.history import chapters, history_look, history_table, mask_in

__all__ = [
    "Link",
    "page_name",
    "picture_page",
    "write_changes",
    "write_history",
    "write_index",
    "write_looks",
]


_FLAG_HEADINGS = ("Pixels", "of which DO_NOT_USE")
_CHANGE_HEADINGS = ("Before", "After", "Gained", "Lost")
_LONGEST = 100


@dataclass(frozen=True)
class Link:
    """A page in an index: its file name (empty for none), its title, and a line about it."""

    file: str
    title: str
    about: str


def page_name(title: str) -> str:
    """Return a file name for a title: no separators or schemes, and another for another title."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", title).lstrip("._-")[:_LONGEST]
    if safe != title or not safe:
        digest = hashlib.sha256(title.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        safe = f"{safe or 'page'}-{digest}"
    return f"{safe}.html"


def picture_page(look: Look, template: str = "picture.html", start: int = 0, **more: Any) -> str:
    """Return a page with a picture.

    Parameters
    ----------
    look : `~infra.view.flags.Look`
        What is drawn and said.
    template : str
        The template, which may extend picture.html.
    start : int
        The plane that is shown first.
    **more
        What else the template needs.
    """
    compares = look.picture.compares
    return _rendered(
        template,
        look.title,
        look.facts,
        compares=compares,
        headings=_CHANGE_HEADINGS if compares else _FLAG_HEADINGS,
        data={**look.picture.to_plain(), "start": start},
        code=Markup(_asset("page.js")),  # noqa: S704  # ours
        **more,
    )


def write_index(folder: Path, title: str, links: Iterable[Link]) -> Path:
    """Write index.html, with a line for each page; return its path."""
    path = folder / "index.html"
    path.write_text(_rendered("index.html", title, (), links=list(links)), encoding="utf-8")
    return path


def _rendered(template: str, title: str, facts: Iterable[tuple[str, str]], **more: Any) -> str:
    text = (
        _environment()
        .get_template(template)
        .render(
            title=title,
            facts=facts,
            style=Markup(_asset("page.css")),  # noqa: S704  # ours
            software=f"{SOFTWARE} {__version__}",
            **more,
        )
    )
    # A lone surrogate of a header or a key cannot be written as UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()


@cache
def _environment() -> Environment:
    found = Environment(loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined)
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return found


def _asset(name: str) -> str:
    return files("infra.view").joinpath("assets", name).read_text(encoding="utf-8")


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
    UserError
        If the mirror's URI is malformed, or no rule names the detector.
    """
    try:
        place = S3Location.parse_prefix(mirror)
    except ValueError as exc:
        raise UserError(str(exc)) from exc
    told = chapters(Mirror(s3, place), detector)
    look = history_look(detector, told, str(place))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / page_name(detector)
    page = picture_page(look, "history.html", len(told) - 1, **history_table(told))
    path.write_text(page, encoding="utf-8")
    return path


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
