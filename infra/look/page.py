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
from infra.look.flags import Look

__all__ = ["Link", "page_name", "picture_page", "write_index"]

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
    look : `~infra.look.flags.Look`
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
    return files("infra.look").joinpath("assets", name).read_text(encoding="utf-8")
