"""How far it goes: the second part of ``make cost``; writes docs/limits.md and docs/limits.svg.

Exposures arrive as they do from the telescope, or a million at once; a simulation (infra/cost) puts
what ``make cost`` measured through AWS's limits. What the simulation is worth is tried on a local
AWS: tests.e2e.soak.
"""

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from infra.cost.arrivals import PER_DAY, at_once, downlink, steady
from infra.cost.invocation import DEFAULT_MEMORY, Invocation, Measured, measured
from infra.cost.limits import AWS
from infra.cost.simulation import Outcome, Setup, simulate
from infra.terminal import span
from tests.conftest import PROJECT

MILLION = 1_000_000
CONCURRENCIES = (20, 100, 300, 440, 1000)
SUBJECTS = (("92 MB", "native"), ("839 MB", "native"), ("92 MB", "float32"))
DAYS = 30
COLOURS = ("#0072b2", "#d55e00", "#009e73")
"""Okabe and Ito's: told apart by everybody."""
_HEADS = "at a time | drained after | longest wait | most at once | SlowDown | throttled | given up | USD"
_RULE = "|---|---|---|---|---|---|---|---|---|"


def setup(found: Measured, one: Invocation, concurrency: int) -> Setup:
    """As it is deployed, but for the concurrency."""
    return Setup((one,), concurrency=concurrency, cold_seconds=found.cold_seconds)


def of_a_million(found: Measured) -> dict[tuple[str, str, int], Outcome]:
    """Each subject at each concurrency."""
    return {
        (name, encoding, at_a_time): simulate(
            at_once(MILLION), setup(found, found.one(name, encoding), at_a_time)
        )
        for name, encoding in SUBJECTS
        for at_a_time in CONCURRENCIES
    }


def row(what: str, at_a_time: int, outcome: Outcome) -> str:
    """One of the tables."""
    cells = (
        what, at_a_time, span(outcome.seconds), span(outcome.oldest), outcome.most_at_once,
        f"{outcome.slow_downs:,}", f"{outcome.throttles:,}", outcome.failed, f"{outcome.usd:.2f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def from_the_telescope(found: Measured) -> Iterator[str]:
    """Rows for a downlink, and for a month of steady arrival."""
    one = found.one("92 MB")
    for at_a_time in CONCURRENCIES:
        outcome = simulate(downlink(), setup(found, one, at_a_time))
        yield row(f"{PER_DAY // 2} of a downlink, at the same moment", at_a_time, outcome)
    arriving = list(steady(DAYS * PER_DAY, random.Random(0)))
    for at_a_time in CONCURRENCIES:
        outcome = simulate(arriving, setup(found, one, at_a_time))
        after_the_last = outcome.seconds - (arriving[-1] - arriving[0])
        outcome = replace(outcome, seconds=after_the_last)
        yield row(f"{PER_DAY} a day for {DAYS} days", at_a_time, outcome)


def of_accounts(found: Measured) -> Iterator[str]:
    """Rows for accounts that have less to give."""
    one = found.one("92 MB")
    cases = (
        ("a new account: 10 in all", replace(AWS, account=10), 20),
        ("1,000 in all, others take 700", replace(AWS, others=700), 440),
        ("1,000 in all, others take 700", replace(AWS, others=700), 300),
        ("S3 has divided the bucket in four before", replace(AWS, puts=4 * AWS.puts), 1000),
    )
    for what, limits, at_a_time in cases:
        outcome = simulate(at_once(MILLION // 10), setup(found, one, at_a_time), limits)
        yield row(what, at_a_time, outcome)


def page(found: Measured, outcomes: dict[tuple[str, str, int], Outcome], seconds: float) -> str:
    """The page."""
    one = found.one("92 MB")
    rate = AWS.puts / one.puts
    fastest = rate * one.seconds
    return f"""# How far it goes

Made by `make cost` ({seconds:.0f} s of it): a simulation, event by event, of exposures in a queue that drives the
function (`python -m infra cost` runs it for other numbers). An invocation takes what was measured on the
model of S3 on {found.date} ([cost.md](cost.md): 92 MB native {one.seconds:.2f} s and {one.puts} PUT-class requests, {DEFAULT_MEMORY} MB of
memory); a container's first takes {found.cold_seconds:.1f} s more. The limits, each with its source in
`infra/cost/limits.py`: Lambda's poller takes {AWS.first_pollers} messages at first and {AWS.more_pollers * 60:.0f} more a minute; the account has
{AWS.account:,} invocations at a time; S3 takes {AWS.puts:,} PUT-class and {AWS.gets:,} GET-class requests a second of a partition,
answers SlowDown to more, and has divided the partition after {AWS.split_after / 60:.0f} minutes of that; the client asks {AWS.attempts}
times, and what still fails comes back by the queue. A bucket begins with one partition. Queue, containers
and kills of the simulation are held against MiniStack by `make soak`
([what came of it](operating.md#what-was-measured)); S3's and Lambda's limits no emulator has.

![Time and cost of a million exposures](limits.svg)

## A million at once

| exposure | {_HEADS} |
{_RULE}
{_joined(row(f"{key[0]} {key[1]}", key[2], outcome) for key, outcome in outcomes.items())}

## As the telescope sends them

| arrival | {_HEADS} |
{_RULE}
{_joined(from_the_telescope(found))}

(Of a steady stream it is told when it is drained after the last has arrived.)

## Accounts and buckets that are otherwise

A hundred thousand of 92 MB at once:

| | {_HEADS} |
{_RULE}
{_joined(of_accounts(found))}

## What follows

- **MaximumConcurrency** 20, the default, is plenty for what arrives: the whole of a downlink is done in
  seconds. More would only let a mistake cost more at once.
- **BackfillConcurrency**: time falls in proportion up to some {fastest:.0f} at a time for 92 MB native; there one partition's
  {AWS.puts:,} PUT-class requests a second are used up ({rate:.0f} products a second). More is not faster until S3 has
  divided the bucket, and is paid for in waiting; {_hundreds(fastest)} is a good number for a million, 100 for a night.
  Larger exposures ask less often, and gain from more.
- Leave the account some: what other functions take is throttled away from this one. (Here the poller tries
  again every second; AWS says only that it backs off, so that a throttled queue may be slower than told.)
- **Memory** 512: the function waits, and less memory waits more cheaply. Even float32 of large exposures,
  whose pixels it converts, gains a hundredth of its time by twice the memory, for a quarter more money.
"""


def _hundreds(number: float) -> int:
    return max(int(number // 100) * 100, 100)


def _joined(rows: Iterable[str]) -> str:
    return "\n".join(rows)


def plot(found: Measured, outcomes: dict[tuple[str, str, int], Outcome]) -> Figure:
    """Time by concurrency, and cost and time by memory."""
    with mpl.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "limits"}):
        figure = Figure(figsize=(9.2, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _by_concurrency(left, outcomes)
        _by_memory(right, found)
    return figure


def _by_concurrency(axes: Axes, outcomes: dict[tuple[str, str, int], Outcome]) -> None:
    for (name, encoding), colour in zip(SUBJECTS, COLOURS, strict=True):
        hours = [outcomes[name, encoding, number].seconds / 3600 for number in CONCURRENCIES]
        axes.plot(CONCURRENCIES, hours, "o-", color=colour, label=f"{name} {encoding}")
    axes.set(xscale="log", yscale="log", title="A million exposures at once")
    axes.set(xlabel="BackfillConcurrency", ylabel="hours until none is left")
    axes.xaxis.set_major_locator(FixedLocator(CONCURRENCIES))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)


def _by_memory(axes: Axes, found: Measured) -> None:
    for (name, encoding), colour in zip(SUBJECTS, COLOURS, strict=True):
        same = [o for o in found.others if (o.exposure, o.encoding) == (name, encoding)]
        points = [found.one(name, encoding), *sorted(same, key=lambda one: one.memory)]
        memories, usd = [one.memory for one in points], [1e6 * one.usd() for one in points]
        axes.plot(memories, usd, "o-", color=colour, label=f"{name} {encoding}")
        for one, x, y in zip(points, memories, usd, strict=True):
            text, place = f"{one.seconds:.1f} s", (0, 7)
            axes.annotate(text, (x, y), place, textcoords="offset points", ha="center", fontsize=7)
    axes.set(title="Forward, and the seconds of an invocation", ylim=(0, 245), xlim=(400, 1880))
    axes.set(xlabel="Memory, MB", ylabel="USD for a million")
    axes.xaxis.set_major_locator(FixedLocator(memories))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False, loc="lower right")


def main() -> None:
    """Simulate, print, and write the page and its plot."""
    started, found = time.monotonic(), measured()
    outcomes = of_a_million(found)
    docs = PROJECT / "docs"
    plot(found, outcomes).savefig(docs / "limits.svg", metadata={"Date": None})
    text = page(found, outcomes, time.monotonic() - started)
    (docs / "limits.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
