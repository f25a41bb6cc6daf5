"""HTML pages, each in one file with all it needs, rendered by Jinja2 with autoescape."""

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
from infra.view.flags import Page, comparison_page
from infra.view.history import history_page, history_table, mask_in, mask_periods

_FLAG_HEADINGS = ("Pixels", "of which DO_NOT_USE")
_CHANGE_HEADINGS = ("Before", "After", "Gained", "Lost")
_LONGEST = 100
"""Characters of a title in a file name."""


@dataclass(frozen=True)
class Link:
    """A line of an index: a page's file name (empty if there is none), its title, and a remark."""

    file: str
    title: str
    about: str


def write_pages(pages: list[Page], folder: Path) -> Path:
    """Write pages, and an index if there are several; return the file to open first."""
    folder.mkdir(parents=True, exist_ok=True)
    links: list[Link] = []
    for page in pages:
        name = page_name(page.title)
        # File systems of macOS and Windows do not distinguish case.
        alike = sum(link.title.casefold() == page.title.casefold() for link in links)
        path = folder / (f"{name.removesuffix('.html')}--{alike + 1}.html" if alike else name)
        path.write_text(render_page(page), encoding="utf-8")
        links.append(Link(path.name, page.title, "; ".join(text for _, text in page.facts[:4])))
    return path if len(links) == 1 else _write_index(folder, "Flags", links)


def write_history(mirror: str, detector: str, folder: Path, s3: Any) -> Path:
    """Write the page of a detector's masks; return its path."""
    try:
        location = S3Location.parse_prefix(mirror)
    except ValueError as exc:
        raise UserError(str(exc)) from exc
    periods = mask_periods(Mirror(s3, location), detector)
    page = history_page(detector, periods, str(location))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / page_name(detector)
    html = render_page(page, "history.html", len(periods) - 1, **history_table(periods))
    path.write_text(html, encoding="utf-8")
    return path


def write_changes(mirror: Mirror, changes: Iterable[Change], title: str, folder: Path) -> Path:
    """Write a page for each pair of masks, and an index; return the path of the index."""
    folder.mkdir(parents=True, exist_ok=True)
    links: dict[tuple[str, str], Link] = {}
    for change in changes:
        names = (change.before, change.after)
        if names in links or not all(name and is_applicable(name) for name in names):
            continue
        matched = " ".join([change.instrument.upper(), *(value for _, value in change.parameters)])
        about, pair = f"{matched}, from {change.start[:10]}", f"{change.before} to {change.after}"
        masks = [mask_in(mirror, name, change.instrument) for name in names]
        try:
            page = comparison_page(*masks)
        except InputRejected as exc:
            links[names] = Link("", pair, f"{about}: not compared, {exc}")
            continue
        path = folder / page_name(pair.replace(" ", "-").replace(".fits", ""))
        path.write_text(render_page(page), encoding="utf-8")
        links[names] = Link(path.name, pair, about)
    return _write_index(folder, title, links.values())


def _write_index(folder: Path, title: str, links: Iterable[Link]) -> Path:
    path = folder / "index.html"
    path.write_text(_render("index.html", title, (), links=list(links)), encoding="utf-8")
    return path


def page_name(title: str) -> str:
    """Return a file name that is safe as a relative URL, and differs for different titles."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", title).lstrip("._-")[:_LONGEST]
    if safe != title or not safe:
        digest = hashlib.sha256(title.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        safe = f"{safe or 'page'}-{digest}"
    return f"{safe}.html"


def render_page(page: Page, template: str = "picture.html", start: int = 0, **more: Any) -> str:
    """Return the HTML of a page that shows the plane `start` first."""
    compares = page.picture.compares
    return _render(
        template,
        page.title,
        page.facts,
        compares=compares,
        headings=_CHANGE_HEADINGS if compares else _FLAG_HEADINGS,
        data={**page.picture.to_plain(), "start": start},
        code=Markup(_asset("page.js")),  # noqa: S704  # ours
        **more,
    )


def _render(template: str, title: str, facts: Iterable[tuple[str, str]], **more: Any) -> str:
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
    # A lone surrogate in a header or a key cannot be written as UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()


@cache
def _environment() -> Environment:
    found = Environment(loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined)
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return found


def _asset(name: str) -> str:
    return files("infra.view").joinpath("assets", name).read_text(encoding="utf-8")
