"""The rich console of all commands. Apart from `infra.cli`, which works without rich."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from infra.cli import printable

__all__ = ["Console", "lines"]


def lines(*texts: str) -> Text:
    """Return texts as lines of one cell or message; line ends within a text are escaped."""
    return Text("\n".join(map(printable, texts)))


class Console(RichConsole):
    """A rich console that takes no markup from text, and escapes it as `printable` does.

    Line ends in strings are escaped, too, so that a key cannot look like a line of output; `lines`
    makes texts of several lines.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape text before its width is measured."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Escape the rest: Text objects, such as columns of progress bars."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, keep="\n\t"), style, control)
