"""Input from the operator and output to the terminal, for all commands.

Text from outside (keys, header values, messages of servers) is escaped here: `printable` escapes
one string, `safe_output` all that `print` and argparse write, `infra.console` what rich writes.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NoReturn, TextIO

from handler.s3.objects import S3Location

__all__ = [
    "OPTIONAL",
    "UserError",
    "confirm",
    "format_duration",
    "how_to_install",
    "parser_of",
    "plural",
    "printable",
    "safe_output",
]

OPTIONAL = {
    "duckdb": "duckdb>=1.4",
    "flask": "flask>=3.0",
    "flask_cors": "flask-cors>=5.0",
    "jinja2": "jinja2>=3.1",
    "matplotlib": "matplotlib>=3.10",
    "moto": "moto[events,s3,sqs]>=5.1",
    "rich": "rich>=14.0",
}
"""Import names, and what pyproject.toml requires of them in its extras."""


def how_to_install(error: ModuleNotFoundError) -> str:
    """Return one line that says how to install a missing package of an extra.

    Parameters
    ----------
    error : ModuleNotFoundError
        The failed import.

    Returns
    -------
    str
        The line.

    Raises
    ------
    ModuleNotFoundError
        The error itself if the module belongs to none of the extras: that is a bug.
    """
    name = (error.name or "").partition(".")[0]
    if name not in OPTIONAL:
        raise error
    # Not an extra of this project: `pip install '.[reprocess]'` would replace an editable install.
    return (
        f"Python package {name}: not installed, expected {OPTIONAL[name]}; "
        f"run {sys.executable} -m pip install '{OPTIONAL[name]}'"
    )


class UserError(Exception):
    """A mistake of the operator, described in one line."""


class _Parser(argparse.ArgumentParser):
    """A parser that says what an S3 URI must look like, and describes a mistake in one line.

    Its subparsers are of this class, too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parse in (S3Location.parse, S3Location.parse_prefix):
            self.register("type", parse, _argument(parse))

    def error(self, message: str) -> NoReturn:
        """Leave the usage, which argparse prints first, to --help."""
        self.exit(2, f"{self.prog}: {printable(message)}; {self.prog} --help shows how to use it\n")


def _argument(parse: Callable[[str], S3Location]) -> Callable[[str], S3Location]:
    """Return the parser of an argument; argparse does not show the text of a ValueError."""

    def parsed(text: str) -> S3Location:
        try:
            return parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return parsed


def parser_of(command: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of one of the commands, whose description keeps its lines."""
    return _Parser(
        prog=f"python -m infra {command}",
        description=(description or "").replace("``", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def confirm(question: str) -> bool:
    """Ask the operator; the end of input (Ctrl-D) means no.

    Raises
    ------
    UserError
        If there is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise UserError(f"{question} Nothing was done: a terminal or --yes is needed to confirm")
    try:
        answer = input(f"{printable(question)} [y/N] ")
    except EOFError:
        print()
        return False
    return answer.strip().lower() in {"y", "yes"}


def format_duration(seconds: float) -> str:
    """Say how long something takes, in the unit that a person would choose."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def plural(number: int, noun: str) -> str:
    """Return ``1 message``, ``2 messages``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def printable(text: str, keep: str = "") -> str:
    """Escape what would not be seen as it is: control, format and bidi characters, surrogates.

    Parameters
    ----------
    text : str
        Text from outside.
    keep : str
        Characters that are not escaped, such as a newline.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


class _SafeStream(io.TextIOBase):
    """A text stream that escapes everything but line ends and tabs.

    rich writes escape sequences of its own: its consoles find the stream itself in
    `rich_proxied_file`, as they do behind rich's own proxies.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable(text, keep="\n\t"))
        return len(text)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self.rich_proxied_file.flush()

    def isatty(self) -> bool:
        return self.rich_proxied_file.isatty()

    def fileno(self) -> int:
        return self.rich_proxied_file.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.rich_proxied_file.encoding


@contextmanager
def safe_output() -> Iterator[None]:
    """Escape what is written to standard output and error, in any encoding of the terminal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with ExitStack() as both:
        both.enter_context(redirect_stdout(_SafeStream(sys.stdout)))
        both.enter_context(redirect_stderr(_SafeStream(sys.stderr)))
        yield
