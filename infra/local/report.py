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
    """Print each outcome as it arrives, and a table if `number` > 1; return the outcomes."""
    seen: list[Outcome] = []
    warned: set[str] = set()  # a warning about a mask comes with each of its exposures
    with _progress(number, hidden=as_json) as (show, advance):
        for outcome in outcomes:
            seen.append(outcome)
            if as_json:
                show(json.dumps(asdict(outcome)), False)
            else:
                for text in outcome.warnings:
                    if text not in warned:
                        show(f"warning: {text}", True)
                warned |= set(outcome.warnings)
                for text in _lines(outcome):
                    show(text, bool(outcome.error))
            advance()
    if number > 1 and not as_json:
        _print_table(seen)
    return seen


def show_line(text: str, is_error: bool) -> None:
    """Print one line, to standard error if it is a warning or a failure."""
    print(printable(text), file=sys.stderr if is_error else sys.stdout, flush=True)


def _lines(outcome: Outcome) -> Iterator[str]:
    mask = (outcome.mask or NO_MASK).removeprefix("crds://")
    if outcome.error:
        # An error of a reference names only the reference.
        subject = "" if outcome.input in str(outcome.reason) else f"{outcome.input}: "
        yield f"failed: {subject}{outcome.reason}"
    elif outcome.check is None:
        yield f"{outcome.status:8}  {outcome.output}  {mask}  {outcome.unusable:.2%} DO_NOT_USE"
    else:
        yield outcome.input
        facts = {"Product": outcome.output, "Mask": mask, "Context": outcome.context}
        flags = {
            name: f"{count.pixels:,} pixels, {count.do_not_use:,} of them DO_NOT_USE"
            for name, count in outcome.flags.items()
        }
        for heading, text in (facts | outcome.check | flags).items():
            yield f"  {heading:16}  {text}"


@contextmanager
def _progress(
    number: int, hidden: bool
) -> Iterator[tuple[Callable[[str, bool], object], Callable[[], object]]]:
    """Yield two functions: print a line (text, is it an error), and advance a progress bar."""
    if hidden or number == 1 or not sys.stdout.isatty():
        yield show_line, lambda: None
        return
    from rich.progress import Progress  # noqa: PLC0415  # a single file does not need it

    from infra.console import Console  # noqa: PLC0415

    # The redirection of rich would bypass `infra.cli.safe_output`, which then escapes the colours.
    with Progress(console=Console(), redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task("dq_init", total=number)

        def show(text: str, is_error: bool) -> None:
            if is_error and not sys.stderr.isatty():  # redirected: it cannot disturb the bar
                show_line(text, is_error)
            else:
                progress.console.print(text, soft_wrap=True)

        yield show, lambda: progress.advance(task)


def _print_table(outcomes: list[Outcome]) -> None:
    from rich.table import Table  # noqa: PLC0415

    from infra.console import Console  # noqa: PLC0415

    table = Table("Result", "Exposures", "Written", header_style="bold")
    results = [outcome.error or outcome.status for outcome in outcomes]
    for result, count in Counter(results).items():
        written = sum(o.bytes for o in outcomes if (o.error or o.status) == result)
        table.add_row(result, f"{count:,}", f"{written / 1e6:,.1f} MB")
    Console().print(table)
