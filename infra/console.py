"""The terminal output of all commands (not in `infra.cli`, because Lambda functions lack rich)."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from infra.cli import printable


def lines(*texts: str) -> Text:
    """Return texts as lines of a rich `Text`, each escaped by `printable`, line ends too."""
    return Text("\n".join(map(printable, texts)))


class Console(RichConsole):
    """A console of the package rich that prints text without markup, escaped by `printable`.

    Line ends of a `str` are escaped, too: a key must not look like a line of output. Those of a
    `Text` are kept; `lines` creates one from texts that are not trusted.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a `str` as rich `Text`, escaped by `printable`, line ends included."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of an object, escaped by `printable` except line feeds and tabs."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, keep="\n\t"), style, control)
