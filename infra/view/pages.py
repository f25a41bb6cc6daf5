"""HTML pages of flags; each is one file without references to others, rendered by Jinja2."""

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
    """A line of an index: a page's file name (empty if it has no page), title and remark."""

    file: str
    title: str
    about: str


def write_pages(pages: list[Page], folder: Path) -> Path:
    """Write pages, and an index if there are several; return the path of the file to open."""
    links: list[Link] = []
    used = {"index.html"}
    for page in pages:
        stem, number = page_name(page.title).removesuffix(".html"), 1
        # File systems of macOS and Windows do not distinguish case.
        while (name := f"{stem}--{number}.html" if number > 1 else f"{stem}.html").lower() in used:
            number += 1
        used.add(name.lower())
        path = _write(folder, name, render_page(page))
        links.append(Link(path.name, page.title, "; ".join(text for _, text in page.facts[:4])))
    return path if len(links) == 1 else _write_index(folder, "Flags", links)


def write_history(mirror: Mirror, detector: str, folder: Path) -> Path:
    """Write the page of the masks that `mask_periods` finds for a detector; return its path."""
    periods = mask_periods(mirror, detector)
    page = history_page(detector, periods, str(mirror.location))
    html = render_page(page, "history.html", len(periods) - 1, **history_table(periods))
    return _write(folder, page_name(detector), html)


def write_changes(mirror: Mirror, changes: Iterable[Change], title: str, folder: Path) -> Path:
    """Write a page for each replaced mask and its successor; return the path of the index.

    A change from or to no mask is left out; masks of different shapes only have a line in the
    index.
    """
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
        name = page_name(pair.replace(" ", "-").replace(".fits", ""))
        _write(folder, name, render_page(page))
        links[names] = Link(name, pair, about)
    return _write_index(folder, title, links.values())


def _write_index(folder: Path, title: str, links: Iterable[Link]) -> Path:
    return _write(folder, "index.html", _render("index.html", title, (), links=list(links)))


def _write(folder: Path, name: str, html: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / name, folder / f".{name}.partial"
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(path)
    except OSError as exc:  # of a full disk, it names no file
        raise OSError(exc.errno, exc.strerror, str(path)) from exc
    finally:
        partial.unlink(missing_ok=True)
    return path


def page_name(title: str) -> str:
    """Return the file name of a page: safe as a relative URL, different for different titles."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", title).lstrip("._-")[:_LONGEST]
    if safe != title or not safe:
        digest = hashlib.sha256(title.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        safe = f"{safe or 'page'}-{digest}"
    return f"{safe}.html"


def render_page(page: Page, template: str = "picture.html", start: int = 0, **more: Any) -> str:
    """Return the HTML of a page of flags that shows the plane with index `start` first."""
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
    more |= {"title": title, "facts": facts, "software": f"{SOFTWARE} {__version__}"}
    style = Markup(_asset("page.css"))  # noqa: S704  # ours
    text = _environment().get_template(template).render(more, style=style)
    # A lone surrogate in a header or a key cannot be written as UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()


@cache
def _environment() -> Environment:
    found = Environment(loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined)
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return found


def _asset(name: str) -> str:
    return files("infra.view").joinpath("assets", name).read_text(encoding="utf-8")
