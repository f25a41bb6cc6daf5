"""Text for the operator, escaped for any terminal.

The Lambda functions of infra/mirror.yaml import this module: it must not need click or rich.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

OPTIONAL = {
    "click": "click>=8.2",
    "duckdb": "duckdb>=1.4",
    "flask": "flask>=3.0",
    "flask_cors": "flask-cors>=5.0",
    "jinja2": "jinja2>=3.1",
    "matplotlib": "matplotlib>=3.10",
    "moto": "moto[events,s3,sqs]>=5.1",
    "rich": "rich>=14.0",
}
"""Packages of the extras in pyproject.toml: requirement by import name."""


class UserError(Exception):
    """An error that the operator can correct; its message is one line."""


def how_to_install(error: ModuleNotFoundError) -> str:
    """Return how to install the package that an import lacks; raise again if no extra has it."""
    name = (error.name or "").partition(".")[0]
    if name not in OPTIONAL:
        raise error
    # Not an extra of this project: `pip install '.[reprocess]'` would replace an editable install.
    return (
        f"Python package {name}: not installed, expected {OPTIONAL[name]}; "
        f"run {sys.executable} -m pip install '{OPTIONAL[name]}'"
    )


def confirm(question: str) -> bool:
    """Print a question on standard error; return whether the answer is ``y`` or ``yes``.

    Ctrl-D counts as no. `UserError` if standard input is not a terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise UserError(f"{question} Nothing was done, because a terminal or --yes is needed")
    # Standard output may be JSON for a program.
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        answer = input()
    except EOFError:
        print(file=sys.stderr)
        return False
    return answer.strip().lower() in {"y", "yes"}


def format_duration(seconds: float) -> str:
    """Return a duration as text, such as ``90 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def plural(number: int, noun: str) -> str:
    """Return a number and a noun, given in singular: ``1 message`` or ``2,000 messages``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def printable(text: str, keep: str = "") -> str:
    """Return text with Python's escape sequences for unprintable characters not in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


class _SafeStream(io.TextIOBase):
    """A text stream that writes text, escaped by `printable`, to `stream`.

    Line feeds and tabs are kept. If the reader of a pipe, such as ``head``, has closed it, the
    program exits with 1 and no message.
    """

    def __init__(self, stream: TextIO) -> None:
        # rich, which escapes text and then adds colours, writes to the stream of this attribute.
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        with _end_if_closed(self.rich_proxied_file):
            self.rich_proxied_file.write(printable(text, keep="\n\t"))
        return len(text)

    def flush(self) -> None:
        with _end_if_closed(self.rich_proxied_file):
            self.rich_proxied_file.flush()

    def isatty(self) -> bool:
        return self.rich_proxied_file.isatty()

    def fileno(self) -> int:  # rich needs it when its reader has closed the pipe
        return self.rich_proxied_file.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.rich_proxied_file.encoding


@contextmanager
def _end_if_closed(stream: TextIO) -> Iterator[None]:
    """Exit with 1 and no message if the `with` block raises BrokenPipeError."""
    try:
        yield
    except BrokenPipeError:
        # The interpreter flushes the stream at its end, and would report the error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise SystemExit(1) from None


@contextmanager
def safe_output() -> Iterator[None]:
    """Escape the `with` block's standard output and standard error, as `_SafeStream` does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A stream is None if the shell closed it (>&-).
    out, err = (_SafeStream(stream or io.StringIO()) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
