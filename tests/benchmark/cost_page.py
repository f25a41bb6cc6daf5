"""The page docs/reference/cost.md, written from the measurement."""

from collections.abc import Iterator
from itertools import repeat

from infra.cli import format_duration
from infra.cost.estimate import MONTHLY, PER_DAY, exposures_seconds
from infra.cost.prices import DATE, PRICES, Invocation, Measured

__all__ = ["page"]

_GOALS = {
    ("92 MB", "native", "forward"): 70,
    ("92 MB", "native", "reprocessed"): 70,
    ("92 MB", "virtual", "forward"): 20,
    ("839 MB", "native", "forward"): 130,
    ("839 MB", "native", "reprocessed"): 130,
}
_GOAL_OF_REPEATED = 10
_BEFORE = {"forward": 94, "reprocessed": 95, "repeated": 11, "Lambda": 20.9}
"""USD per million of 92 MB with 1,769 MB of memory, measured at commit 4cf13a1, which did not count
S3's own event and ChangeMessageVisibility."""


def page(measured: Measured, minutes: float) -> str:
    """Return the page as Markdown."""
    parts = (_opening(measured, minutes), _table(measured), _goals(measured), _totals(measured))
    more = (_virtual(measured), _times(measured), _monthly(), _by_memory(measured), _wins(measured))
    return "\n".join(line for part in (*parts, *more) for line in part)


def _million(invocation: Invocation) -> float:
    return 1e6 * invocation.usd()


def _opening(measured: Measured, minutes: float) -> Iterator[str]:
    yield f"""# Cost

A million exposures of 92 MB cost **{_million(measured.one("92 MB")):.0f} USD**. A stack without exposures costs
**{sum(MONTHLY.parts().values()):.0f} USD a month**.

Measured on {measured.date} by `make cost` in {minutes:.0f} minutes: the deployed bundle on the model of S3 (60 MB/s per
copy request, 70 MB/s for uploads and reads together, 25 ms per request), with the memory of the template
({measured.one("92 MB").memory} MB for assembled products, {measured.one("92 MB", "virtual").memory} MB for virtual ones) and the CPU that Lambda gives to it (memory/1769
of one CPU, in periods of 20 ms), at the prices of us-east-1 of {DATE} (`infra/cost/prices.py`). To estimate other numbers, sizes and settings:

```bash
dq-init cost --exposures 100000 --size 250
dq-init cost --stack dq-init --exposures 1000000
```

For the time, see [limits and throughput](../explanation/limits.md).

## A million exposures, in USD

Warm, without storage. *native* and *float32* are the pixels of assembled products, *virtual* is a
[virtual product](../how-to/virtual.md). *forward*: an upload; *repeated*: the same event again; *reprocessed*: a rebuilt product.
Logged bytes are the lines of the function and of Lambda, and the event in EventLog.
"""


def _table(measured: Measured) -> Iterator[str]:
    heads = list(measured.invocations[0].parts())
    yield f"| exposure | product | way | {' | '.join(heads)} | total | s | PUT | GET | logged, bytes | MiB |"
    yield f"|---|---|---|{'---|' * (len(heads) + 6)}"
    for one in measured.invocations:
        cells = " | ".join(f"{1e6 * usd:.1f}" for usd in one.parts().values())
        yield (
            f"| {one.exposure} | {one.product} | {one.way} | {cells} | **{_million(one):.0f}** | "
            f"{one.seconds:.2f} | {one.puts} | {one.gets} | {one.all_logged:,} | {one.peak_mib:.0f} |"
        )
    yield ""


def _goals(measured: Measured) -> Iterator[str]:
    yield "| USD per million | goal | measured |"
    yield "|---|---|---|"
    for key, goal in _GOALS.items():
        yield f"| {' '.join(key)} | <= {goal} | {_million(measured.one(*key)):.0f} |"
    repeated = [one for one in measured.invocations if one.way == "repeated"]
    low, most = min(map(_million, repeated)), max(map(_million, repeated))
    yield f"| repeated, any | <= {_GOAL_OF_REPEATED} | {low:.1f} to {most:.1f} |"
    yield ""


def _totals(measured: Measured) -> Iterator[str]:
    usual = measured.one("92 MB")
    year = usual.usd() * PER_DAY * 365
    always = 12 * sum(MONTHLY.parts().values())
    yield f"""## A TB, and a year of the observatory

One TB of exposures of 92 MB costs {usual.usd() * 1e12 / usual.size:.2f} USD (for comparison: 0.75 USD, NSIDC with Coiled).

A year of {PER_DAY} exposures of 92 MB per day costs {year:.0f} USD for the exposures and {always:.0f} USD for the stack
(below). These are 46 GB a day, four fifths of two downlinks of at least 28.6 GB each (JWST User Documentation,
"JWST Solid State Recorder").
"""


def _times(measured: Measured) -> Iterator[str]:
    yield """## Time of a million exposures

Submitted together, with different numbers of concurrent invocations ([limits and throughput](../explanation/limits.md)).

| exposure | product | s | PUT | 20 at a time | 100 | 300 | 440 | 1,000 |
|---|---|---|---|---|---|---|---|---|"""
    for name, product in (
        ("92 MB", "native"),
        ("839 MB", "native"),
        ("92 MB", "float32"),
        ("92 MB", "virtual"),
    ):
        one = measured.one(name, product)
        times = [
            format_duration(exposures_seconds(repeat(one.size, 10**6), at_once, product))
            for at_once in (20, 100, 300, 440, 1000)
        ]
        yield f"| {name} | {product} | {one.seconds:.2f} | {one.puts} | {' | '.join(times)} |"
    yield ""


def _virtual(measured: Measured) -> Iterator[str]:
    yield """## Virtual products

USD per million products: to make one, to keep it in S3 Standard for a month, and to make a complete file of a virtual
product, in S3 (a request with `"form": "assembled"`) or outside AWS (`dq-init expand`, almost all of it the transfer).

| exposure | make: native | virtual | keep a month: native | virtual | times less | expand in S3 | outside AWS |
|---|---|---|---|---|---|---|---|"""
    for one in measured.invocations:
        if (one.product, one.way) == ("native", "forward"):
            virtual = measured.one(one.exposure, "virtual")
            keep, keep_virtual = 1e6 * one.usd_a_month(), 1e6 * virtual.usd_a_month()
            rebuilt = measured.one(one.exposure, way="reprocessed")
            sent = 1e6 * one.stored / 1e9 * PRICES.sent_gigabyte
            yield (
                f"| {one.exposure} | {_million(one):.0f} | {_million(virtual):.0f} | {keep:,.1f} | "
                f"{keep_virtual:,.1f} | {keep / keep_virtual:.0f} | {_million(rebuilt):.0f} | {sent:,.0f} |"
            )
    yield ""


def _monthly() -> Iterator[str]:
    yield "Monthly cost of a stack without exposures:"
    yield ""
    yield "| resource | number | USD a month |"
    yield "|---|---|---|"
    numbers = (MONTHLY.metrics, MONTHLY.alarms, MONTHLY.dashboards, MONTHLY.polled_queues)
    for (name, usd), number in zip(MONTHLY.parts().items(), numbers, strict=True):
        yield f"| {name} | {number} | {usd:.2f} |"
    yield f"| total | | {sum(MONTHLY.parts().values()):.2f} |"
    yield ""
    yield "The free tier of an account (ten metrics, ten alarms, three dashboards and a million requests to SQS a"
    yield "month) is not subtracted."
    yield ""


def _by_memory(measured: Measured) -> Iterator[str]:
    memories = sorted({one.memory for one in measured.others})
    yield f"""## Cost by memory

USD per million of *forward* (and seconds), measured with the CPU that Lambda gives for that memory; median of three
runs, one run for large float32 products with more memory. The network does not depend on memory: 708 Mbit/s at 128 MB and at
3,008 MB (liangw-sec/faas_measure 2), no difference with real S3 traffic (sjakthol/aws-network-benchmark 1). The model
has no TLS, which takes about 5 ms of CPU for the 22 MB that a native product sends (`openssl speed`: 4 GB/s).

| exposure | product | {measured.one("92 MB").memory} MB | {" | ".join(f"{memory} MB" for memory in memories)} |
|---|---|---|{"---|" * len(memories)}"""
    for one in measured.invocations:
        if one.way == "forward" and one.product != "virtual":  # measured with one memory
            mine = [
                o for o in measured.others if (o.exposure, o.product) == (one.exposure, one.product)
            ]
            ordered = [one, *sorted(mine, key=lambda other: other.memory)]
            cells = " | ".join(f"{_million(o):.0f} ({o.seconds:.2f} s)" for o in ordered)
            yield f"| {one.exposure} | {one.product} | {cells} |"
    yield f"""
The first invocation of a new container takes {measured.cold_seconds:.1f} s more, with the CPU of {measured.one("92 MB").memory} MB also during INIT
(Lambda may give more).
"""


def _wins(measured: Measured) -> Iterator[str]:
    usual, event = measured.one("92 MB"), measured.one("92 MB", way="repeated")
    rebuilt = measured.one("92 MB", way="reprocessed")
    rows = (
        ("USD per million of 92 MB, forward", f"{_BEFORE['forward']} USD", f"{_million(usual):.0f} USD"),
        ("USD per million of 92 MB, reprocessed", f"{_BEFORE['reprocessed']} USD", f"{_million(rebuilt):.0f} USD"),
        ("USD per million of 92 MB, repeated", f"{_BEFORE['repeated']} USD", f"{_million(event):.0f} USD"),
        (
            "Lambda's share of forward: 1,769 MB of memory, now 512 MB",
            f"{_BEFORE['Lambda']} USD",
            f"{1e6 * usual.parts()['Lambda']:.1f} USD",
        ),
        ("PUT-class requests of 92 MB and 839 MB", "13 and 20", f"{usual.puts} and {measured.one('839 MB').puts}"),
        ("logged bytes of 92 MB, including the event and Lambda's lines", "3,033 (4,300 with the event in both logs)", f"{usual.all_logged:,}"),
        ("metrics by stack and 19 detectors, now by stack", "up to 200, 60 USD a month", f"{MONTHLY.metrics}, {MONTHLY.metrics * PRICES.metric:.0f} USD a month"),
        ("X-Ray traces, now off by default", f"{1e6 * PRICES.trace:.0f} USD a million", "0 (`Tracing=Active` enables them)"),
        ("ledger, one write for each product", f"{1e6 * PRICES.put:.0f} USD a million", "unchanged"),
    )  # fmt: skip
    yield """## Savings

| measure | before | now |
|---|---|---|"""
    yield from (f"| {what} | {before} | {now} |" for what, before, now in rows)
    yield f"""
The dashboard reads figures by detector from the log of events. The ledger's write was kept: it saves publishing a
repeated event, keeps the reason of a failure, and is the source of the catalogue; a second write happens only after a
failed attempt. Fewer, larger parts take more time: 839 MB take {measured.one("839 MB").seconds:.1f} s (2.4 s before, goal 3 s).
"""
