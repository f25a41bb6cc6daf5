"""Printed results of a run: lines, a table, JSON and explanations."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from core.product import NO_MASK
from infra.cli import printable
from infra.local.run import Outcome


def report(outcomes: Iterable[Outcome], number: int, as_json: bool) -> list[Outcome]:
    """Print outcomes as they come, and a table after several; return them."""
    seen: list[Outcome] = []
    warned: set[str] = set()  # a warning about a mask comes with each of its exposures
    with _progress(number, hidden=as_json) as advance:
        for outcome in outcomes:
            seen.append(outcome)
            if as_json:
                print(json.dumps(asdict(outcome)), flush=True)
            else:
                print_warnings(text for text in outcome.warnings if text not in warned)
                warned |= set(outcome.warnings)
                _print(outcome)
            advance()
    if number > 1 and not as_json:
        _print_table(seen)
    return seen


def print_warnings(texts: Iterable[str]) -> None:
    """Print warnings to standard error."""
    for text in texts:
        print(printable(f"warning: {text}"), file=sys.stderr)


def _print(outcome: Outcome) -> None:
    if outcome.error:
        print(printable(f"failed: {outcome.reason}"), file=sys.stderr, flush=True)
    elif outcome.check:
        _print_explanation(outcome, outcome.check)
    else:
        mask = (outcome.mask or NO_MASK).removeprefix("crds://")
        line = f"{outcome.status:8}  {outcome.output}  {mask}  {outcome.unusable:.2%} DO_NOT_USE"
        print(printable(line), flush=True)


def _print_explanation(outcome: Outcome, facts: dict[str, str]) -> None:
    lines = {
        "Product": outcome.output,
        "Mask": (outcome.mask or NO_MASK).removeprefix("crds://"),
        "Context": outcome.context,
        **facts,
    }
    for name, count in outcome.flags.items():
        lines[name] = f"{count.pixels:,} pixels, {count.do_not_use:,} of them DO_NOT_USE"
    print(printable(outcome.input))
    for heading, text in lines.items():
        print(printable(f"  {heading:16}  {text}"))


@contextmanager
def _progress(number: int, hidden: bool) -> Iterator[Callable[[], object]]:
    if hidden or number == 1 or not sys.stdout.isatty():
        yield lambda: None
        return
    from rich.progress import Progress  # noqa: PLC0415  # a single file does not need it

    from infra.console import Console  # noqa: PLC0415

    with Progress(console=Console()) as progress:
        task = progress.add_task("dq_init", total=number)
        yield lambda: progress.advance(task)


def _print_table(outcomes: list[Outcome]) -> None:
    from rich.table import Table  # noqa: PLC0415

    from infra.console import Console  # noqa: PLC0415

    table = Table("Result", "Exposures", "Written", header_style="bold")
    results = [outcome.error or outcome.status for outcome in outcomes]
    for result, count in Counter(results).items():
        written = sum(o.bytes for o in outcomes if (o.error or o.status) == result)
        table.add_row(result, f"{count:,}", f"{written / 1e6:,.1f} MB")
    Console().print(table)
