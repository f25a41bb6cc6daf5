"""Options of several commands, and types of arguments.

click shows the name of a function that is a type in capitals, as in ``--mirror S3_URI``.
"""

import math
import os
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import click

from handler.s3.objects import S3Location

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FILE = click.Path(dir_okay=False, path_type=Path)


class _Folder(click.Path):
    """A click type: the path of a folder; ``~`` and environment variables are expanded."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the argument, expanded, as a path; a usage error for an unsuitable path."""
        # Path.expanduser raises an error for an unknown user.
        expanded = os.path.expanduser(os.path.expandvars(value))  # noqa: PTH111
        return super().convert(expanded, param, ctx)


FOLDER = _Folder(file_okay=False, path_type=Path)


class Number(click.FloatRange):
    """A click type: a number in a range, except NaN, which click's own type accepts."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the argument as a number, or fail with a usage error."""
        number = float(super().convert(value, param, ctx))
        return self.fail(f"{value!r} is not a number.") if math.isnan(number) else number


def s3_uri(text: str) -> S3Location:
    """Parse an argument ``s3://bucket[/prefix]`` (a click type)."""
    try:
        return S3Location.parse_prefix(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


def together(*options: Decorator) -> Decorator:
    """Return one decorator that adds several options; --help lists them in this order."""
    return lambda function: reduce(lambda inner, option: option(inner), options[::-1], function)


stack = partial(click.option, "--stack", metavar="NAME", help="Name of the deployed stack.")
context = partial(click.option, metavar="CONTEXT")
mirror = click.option("--mirror", type=s3_uri, help="CRDS mirror: s3://bucket[/prefix].")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
dry_run = click.option("--dry-run", is_flag=True, help="Only show what would be done.")
pause = click.option(
    "--pause", type=Number(0, 3600), default=5.0, help="Seconds between two polls."
)
