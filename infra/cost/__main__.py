"""What exposures cost and how long they take: ``python -m infra cost --exposures 100000``.

What one takes was measured (docs/cost.md); how they go through is simulated, with the limits of AWS
(docs/limits.md). ``--arrive`` says how they come: at-once (a backfill, a reprocessing), downlink
(what a contact brings down, at the same moment), or steady (over a day). With ``--stack`` memory,
encoding and concurrency are those of a deployed stack.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from infra.cost.arrivals import PER_DAY, at_once, downlink, steady
from infra.cost.invocation import DEFAULT_MEMORY, Invocation, measured
from infra.cost.limits import AWS, DROPPED
from infra.cost.simulation import Outcome, Setup, simulate
from infra.stacks import find_stack
from infra.terminal import Mistake, parser_of, span

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
            raise Mistake(f"--{name} {value:g}: expected {least:g} to {most:g}")
    settings, found = _settings(arguments), measured()
    one = found.of_size(int(arguments.size * 1e6), settings.encoding).with_memory(settings.memory)
    if one.seconds > _TIMEOUT:
        raise Mistake(f"{one.exposure} take {one.seconds:.0f} s, Lambda ends it after {_TIMEOUT}")
    setup = Setup((one,), concurrency=settings.concurrency, cold_seconds=found.cold_seconds)
    limits = replace(AWS, account=arguments.account)
    outcome = simulate(_arrivals(arguments), setup, limits, arguments.seed)
    if arguments.json:
        print(json.dumps({"invocation": asdict(one), "outcome": asdict(outcome)}, indent=2))
    else:
        _show(one, settings, outcome)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("cost", __doc__)
    parser.add_argument("--exposures", type=int, default=PER_DAY, help=f"how many ({PER_DAY})")
    parser.add_argument("--size", type=float, default=92.0, help="MB of each (92)")
    ways = ["at-once", "downlink", "steady"]
    parser.add_argument(
        "--arrive", choices=ways, default=ways[0], help=f"how they come ({ways[0]})"
    )
    parser.add_argument("--stack", help="name of a deployed stack")
    parser.add_argument("--memory", type=int, help=f"MB of the function ({DEFAULT_MEMORY})")
    parser.add_argument("--encoding", choices=["native", "float32"], help="of the science pixels")
    parser.add_argument("--concurrency", type=int, help="exposures at the same time (20)")
    parser.add_argument(
        "--account", type=int, default=AWS.account, help="the account's concurrency (1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is random (0)")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


def _settings(arguments: argparse.Namespace) -> _Settings:
    """Those of the stack, where there is one; what is named goes before them."""
    known = _Settings()
    if arguments.stack:
        stack = find_stack(arguments.stack)
        which = "BackfillConcurrency" if arguments.arrive == "at-once" else "MaximumConcurrency"
        at_once = int(stack.parameters.get(which, known.concurrency))
        known = _Settings(stack.memory, stack.science_encoding, at_once)
    given = {name: getattr(arguments, name) for name in ("memory", "encoding", "concurrency")}
    return replace(known, **{name: value for name, value in given.items() if value is not None})


def _arrivals(arguments: argparse.Namespace) -> Iterator[float]:
    number = arguments.exposures
    if arguments.arrive == "steady":
        return steady(number, random.Random(arguments.seed), number)  # noqa: S311
    return at_once(number) if arguments.arrive == "at-once" else downlink(number)


def _show(one: Invocation, settings: _Settings, outcome: Outcome) -> None:
    console = Console()
    title = (
        f"{outcome.exposures:,} exposures of {one.exposure}, {one.encoding}, "
        f"with {settings.memory} MB of memory on arm64, at most {settings.concurrency} at a time"
    )
    table = Table("what is paid for", "USD", box=SIMPLE, title=title, title_justify="left")
    table.columns[1].justify = "right"
    for name, usd in one.parts().items():
        table.add_row(name, f"{usd * outcome.exposures:,.4f}")
    more = outcome.usd - one.usd() * outcome.exposures
    table.add_row("starts of containers, requests tried again", f"{more:,.4f}")
    table.add_section()
    table.add_row("in all, without storage", f"{outcome.usd:,.4f}")
    console.print(table)
    console.print(
        f"Done after {span(outcome.seconds)}; the longest wait {span(outcome.oldest)}; "
        f"{outcome.most_at_once} at the same time, {outcome.cold_starts} cold starts."
    )
    if outcome.slow_downs or outcome.throttles or outcome.failed:
        console.print(
            f"S3 answered SlowDown to {outcome.slow_downs:,} requests, Lambda did not take "
            f"{outcome.throttles:,} invocations; {outcome.failed:,} exposures were given up."
        )
    if outcome.oldest > AWS.kept:
        console.print(DROPPED, style="bold red")
