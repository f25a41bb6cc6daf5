"""Draw ``mermaid`` blocks as SVG images when the site is built, one for each colour scheme."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any, ClassVar

import mermaidx
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_THEMES = {"only-light": "neutral", "only-dark": "dark"}


class Mermaid(SphinxDirective):
    """A diagram; its line ``accTitle: ...`` is the alternative text of the images."""

    has_content: ClassVar[bool] = True

    def run(self) -> list[nodes.Node]:
        """Return the images; a diagram that did not change is not drawn again."""
        text = "\n".join(self.content)
        title = re.search(r"^\s*accTitle: (.+)$", text, re.M)
        if title is None:
            raise self.error("the diagram has no line 'accTitle: ...', its alternative text")
        folder = Path(self.env.app.doctreedir).parent / "diagrams"
        folder.mkdir(exist_ok=True)
        container = nodes.container(classes=["diagram"])
        for visibility, theme in _THEMES.items():
            path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{theme}.svg"
            if not path.exists():
                path.write_text(_sized(mermaidx.render(text, theme=theme).svg()), encoding="utf-8")
            uri = os.path.relpath(path, Path(self.env.doc2path(self.env.docname)).parent)
            container += nodes.image(uri=uri, alt=title[1], classes=[visibility])
        return [container]


def _sized(svg: str) -> str:
    """Give an SVG image the size of its content, so that text has the size of the page's text."""
    size = re.search(r' viewBox="\S+ \S+ (\S+) (\S+)"', svg)
    return svg.replace('width="100%"', f'width="{size[1]}" height="{size[2]}"', 1) if size else svg


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True}
