"""What exposures cost and how long they take: ``python -m infra cost --exposures 100000``.

The cost and the seconds of one exposure were measured (docs/cost.md); the time of many that are
submitted together follows from the limits of AWS (docs/limits.md). With ``--stack`` encoding
and concurrency (BackfillConcurrency) are those of a deployed stack.
"""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from itertools import repeat

from rich.box import SIMPLE
from rich.table import Table

from infra.aws import find_stack
from infra.cli import UserError, format_duration, parser_of, plural
from infra.console import Console
from infra.cost.estimate import AWS, DROPPED, PER_DAY, exposures_seconds
from infra.cost.prices import DEFAULT_MEMORY, Invocation, measured

__all__ = ["main"]


_RANGES = {
    "exposures": (1, 10**8),
    "size": (0.001, 100_000),
    "memory": (512, 10_240),
    "concurrency": (1, 1000),
    "account": (1, 10**6),
}
"""Least and most of what may be given; memory and concurrency as the template has them."""
_TIMEOUT = 900


@dataclass(frozen=True)
class _Settings:
    memory: int = DEFAULT_MEMORY
    encoding: str = "native"
    concurrency: int = 20


def main(words: list[str]) -> None:
    """Print it."""
    arguments = _parser().parse_args(words)
    for name, (least, most) in _RANGES.items():
        value = getattr(arguments, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name} {value}: expected {least} to {most}")
    settings, size = _settings(arguments), int(arguments.size * 1e6)
    one = measured().of_size(size, settings.encoding).with_memory(settings.memory)
    if one.seconds > _TIMEOUT:
        raise UserError(f"{one.exposure} take {one.seconds:.0f} s, Lambda ends it after {_TIMEOUT}")
    limits = replace(AWS, account=arguments.account)
    sizes = repeat(size, arguments.exposures)
    seconds = exposures_seconds(sizes, settings.concurrency, settings.encoding, limits)
    if arguments.json:
        total = {
            "exposures": arguments.exposures,
            "usd": one.usd() * arguments.exposures,
            "seconds": seconds,
        }
        print(json.dumps({"invocation": asdict(one), "total": total}, indent=2))
    else:
        _show(one, settings, arguments.exposures, seconds)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("cost", __doc__)
    parser.add_argument("--exposures", type=int, default=PER_DAY, help=f"how many ({PER_DAY})")
    parser.add_argument("--size", type=float, default=92.0, help="MB of each (92)")
    parser.add_argument("--stack", help="name of a deployed stack")
    parser.add_argument("--memory", type=int, help=f"MB of the function ({DEFAULT_MEMORY})")
    parser.add_argument("--encoding", choices=["native", "float32"], help="of the science pixels")
    parser.add_argument("--concurrency", type=int, help="exposures at the same time (20)")
    parser.add_argument(
        "--account", type=int, default=AWS.account, help="the account's concurrency (1000)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


def _settings(arguments: argparse.Namespace) -> _Settings:
    """Those of the stack, where there is one; what is named goes before them."""
    known = _Settings()
    if arguments.stack:
        stack = find_stack(arguments.stack)
        at_once = int(stack.parameters.get("BackfillConcurrency", known.concurrency))
        known = _Settings(encoding=stack.science_encoding, concurrency=at_once)
    given = {name: getattr(arguments, name) for name in ("memory", "encoding", "concurrency")}
    return replace(known, **{name: value for name, value in given.items() if value is not None})


def _show(one: Invocation, settings: _Settings, exposures: int, seconds: float) -> None:
    console = Console()
    console.print(
        f"{plural(exposures, 'exposure')} of {one.exposure}, {one.encoding}, with "
        f"{settings.memory} MB of memory on arm64, at most {settings.concurrency} at a time"
    )
    table = Table("Service", "USD", box=SIMPLE)
    table.columns[1].justify = "right"
    for name, usd in one.parts().items():
        table.add_row(name, f"{usd * exposures:,.4f}")
    table.add_section()
    table.add_row("Total without storage", f"{one.usd() * exposures:,.4f}")
    console.print(table)
    console.print(f"Submitted together, they are done after about {format_duration(seconds)}.")
    if seconds > AWS.kept:
        console.print(DROPPED, style="bold red")
