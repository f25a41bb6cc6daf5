"""Writing pages: one file each, that needs no server, no network and nothing beside it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from core import SOFTWARE, __version__
from infra.look.flags import Look

__all__ = ["Link", "picture_page", "plain_page", "write_index"]

_FLAG_KEY = (
    '<span class="swatch first"></span>DO_NOT_USE'
    '<span class="swatch second"></span>suspect'
    '<span class="swatch third"></span>reference or non-science. '
    "Where several pixels share a dot of the screen, the worst is shown."
)
_CHANGE_KEY = (
    '<span class="swatch first"></span>gains a flag'
    '<span class="swatch second"></span>loses one'
    '<span class="swatch third"></span>keeps its flags'
)
_FLAG_HEADINGS = ("Pixels", "of which DO_NOT_USE")
_CHANGE_HEADINGS = ("Before", "After", "Gained", "Lost")


@dataclass(frozen=True)
class Link:
    """A page in an index: its file name, its title, and a line about it."""

    file: str
    title: str
    about: str


def picture_page(look: Look, more: str = "", start: int = 0) -> str:
    """Return a page with a picture.

    Parameters
    ----------
    look : `~infra.look.flags.Look`
        What is drawn and said.
    more : str
        HTML below the picture.
    start : int
        The plane that is shown first.
    """
    compares = look.picture.compares
    headings = _CHANGE_HEADINGS if compares else _FLAG_HEADINGS
    body = _fill(
        _asset("picture.html"),
        caption="What the mask after gains and loses" if compares else "Flags that occur",
        headings="".join(f'<th scope="col">{heading}</th>' for heading in headings),
        key=_CHANGE_KEY if compares else _FLAG_KEY,
        more=more,
    )
    data = json.dumps({**look.picture.to_plain(), "start": start}, separators=(",", ":"))
    safe = data.replace("</", "<\\/")
    script = (
        f'<script type="application/json" id="data">{safe}</script>\n'
        f"<script>\n{_asset('page.js')}</script>"
    )
    return _page(look.title, look.facts, body, script)


def plain_page(title: str, facts: Iterable[tuple[str, str]], body: str) -> str:
    """Return a page without a picture; `body` is HTML."""
    return _page(title, facts, body, "")


def write_index(folder: Path, title: str, links: Iterable[Link]) -> Path:
    """Write index.html, with a line for each page; returns its path."""
    rows = "".join(
        f'<tr><td><a href="{escape(link.file)}">{escape(link.title)}</a></td>'
        f'<td style="text-align: left">{escape(link.about)}</td></tr>'
        for link in links
    )
    path = folder / "index.html"
    path.write_text(plain_page(title, (), f'<div class="wide"><table>{rows}</table></div>'))
    return path


def _page(title: str, facts: Iterable[tuple[str, str]], body: str, script: str) -> str:
    told = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts
    )
    return _fill(
        _asset("page.html"),
        title=escape(title),
        style=_asset("page.css"),
        facts=told,
        body=body,
        script=script,
        footer=f"Made by {SOFTWARE} {__version__}. Science frame: row 1 is at the bottom.",
    )


def _fill(template: str, **parts: Any) -> str:
    """Put parts where the template names them; what is put in is not looked at again."""
    pieces = template.split("@")
    return "".join(
        str(parts[piece]) if number % 2 else piece for number, piece in enumerate(pieces)
    )


def _asset(name: str) -> str:
    return files("infra.look").joinpath("assets", name).read_text(encoding="utf-8")
