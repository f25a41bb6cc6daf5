"""The page docs/cost.md, from what was measured."""

from collections.abc import Iterator

from infra.cost.estimate import MONTHLY, PER_DAY
from infra.cost.prices import DATE, DEFAULT_MEMORY, PRICES, Invocation, Measured

__all__ = ["page"]

_GOALS = {
    ("92 MB", "native", "forward"): 85,
    ("92 MB", "native", "reprocessed"): 85,
    ("839 MB", "native", "forward"): 130,
    ("839 MB", "native", "reprocessed"): 130,
}
_GOAL_OF_REPEATED = 10
_BEFORE = {"forward": 94, "reprocessed": 95, "repeated": 11, "Lambda": 20.9}
"""USD for a million of 92 MB, as commit 4cf13a1 measured it with 1,769 MB of memory; it had not
counted S3's own event, nor what hides the message."""


def page(measured: Measured, minutes: float) -> str:
    """Return it as Markdown."""
    parts = (_opening(measured, minutes), _table(measured), _goals(measured), _totals(measured))
    more = (_monthly(), _by_memory(measured), _wins(measured))
    return "\n".join(line for part in (*parts, *more) for line in part)


def _million(invocation: Invocation) -> float:
    return 1e6 * invocation.usd()


def _opening(measured: Measured, minutes: float) -> Iterator[str]:
    yield f"""# What it costs

Made on {measured.date} by `make cost` in {minutes:.0f} minutes: the deployed bundle on the model of S3 (60 MB/s a
copy request, 70 MB/s for uploads and reads together, 25 ms a request), with the CPU that Lambda gives
to {DEFAULT_MEMORY} MB ({DEFAULT_MEMORY}/1769 of one, in periods of 20 ms), and the prices of us-east-1 as
`infra/cost/prices.py` has them ({DATE}). What it comes to for other numbers, sizes and settings:

```
python -m infra cost --exposures 100000 --size 250
python -m infra cost --stack dq-init --exposures 1000000
```

How long that takes, and where the limits of AWS are: [limits.md](limits.md).

## A million exposures, in USD

Warm, without storage. *Forward* is an upload, *repeated* the same event again, *reprocessed* a product
made anew. Logged are the function's lines, Lambda's own, and the event in EventLog.
"""


def _table(measured: Measured) -> Iterator[str]:
    heads = list(measured.invocations[0].parts())
    yield f"| exposure | encoding | way | {' | '.join(heads)} | in all | s | PUT | GET | logged, bytes | MiB |"
    yield f"|---|---|---|{'---|' * (len(heads) + 6)}"
    for one in measured.invocations:
        cells = " | ".join(f"{1e6 * usd:.1f}" for usd in one.parts().values())
        yield (
            f"| {one.exposure} | {one.encoding} | {one.way} | {cells} | **{_million(one):.0f}** | "
            f"{one.seconds:.2f} | {one.puts} | {one.gets} | {one.all_logged:,} | {one.peak_mib:.0f} |"
        )
    yield ""


def _goals(measured: Measured) -> Iterator[str]:
    yield "| what | goal | measured |"
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

A TB of exposures of 92 MB: {usual.usd() * 1e12 / usual.size:.2f} USD (others: 0.75 USD, NSIDC with Coiled).

A year of {PER_DAY} exposures of 92 MB a day: {year:.0f} USD for the exposures, {always:.0f} USD for what a stack costs
anyway (below). So many a day are 46 GB, four fifths of what two contacts a day bring down, each at least
28.6 GB (JWST User Documentation, "JWST Solid State Recorder").
"""


def _monthly() -> Iterator[str]:
    yield "What a stack costs by the month, however little it has to do:"
    yield ""
    yield "| | number | USD a month |"
    yield "|---|---|---|"
    numbers = (MONTHLY.metrics, MONTHLY.alarms, MONTHLY.dashboards, MONTHLY.polled_queues)
    for (name, usd), number in zip(MONTHLY.parts().items(), numbers, strict=True):
        yield f"| {name} | {number} | {usd:.2f} |"
    yield f"| in all | | {sum(MONTHLY.parts().values()):.2f} |"
    yield ""
    yield "AWS takes off ten metrics, ten alarms, three dashboards and a million requests to SQS a month"
    yield "for an account; here nothing is."
    yield ""


def _by_memory(measured: Measured) -> Iterator[str]:
    memories = sorted({one.memory for one in measured.others})
    yield f"""## By the function's memory

Forward, USD for a million (and seconds), each measured with the CPU that Lambda gives for that memory;
of float32 with more memory once, else the median of three.
The network is the same at any: 708 Mbit/s at 128 MB and at 3,008 (liangw-sec/faas_measure 2), no
difference between memories with real S3 traffic (sjakthol/aws-network-benchmark 1). TLS, which the model
does without, is some 5 ms of CPU for the 22 MB that a native product sends (`openssl speed`: 4 GB/s).

| exposure | encoding | {DEFAULT_MEMORY} MB | {" | ".join(f"{memory} MB" for memory in memories)} |
|---|---|---|{"---|" * len(memories)}"""
    for one in measured.invocations:
        if one.way == "forward":
            mine = [
                o
                for o in measured.others
                if (o.exposure, o.encoding) == (one.exposure, one.encoding)
            ]
            ordered = [one, *sorted(mine, key=lambda other: other.memory)]
            cells = " | ".join(f"{_million(o):.0f} ({o.seconds:.2f} s)" for o in ordered)
            yield f"| {one.exposure} | {one.encoding} | {cells} |"
    yield f"""
A new container's first invocation takes {measured.cold_seconds:.1f} s more, with the CPU of {DEFAULT_MEMORY} MB from the first
instruction on (Lambda is said to give more while a container starts).
"""


def _wins(measured: Measured) -> Iterator[str]:
    usual, event = measured.one("92 MB"), measured.one("92 MB", way="repeated")
    anew = measured.one("92 MB", way="reprocessed")
    rows = (
        ("a million of 92 MB, forward", f"{_BEFORE['forward']} USD", f"{_million(usual):.0f} USD"),
        ("a million of 92 MB, reprocessed", f"{_BEFORE['reprocessed']} USD", f"{_million(anew):.0f} USD"),
        ("a million of repeated events, 92 MB", f"{_BEFORE['repeated']} USD", f"{_million(event):.0f} USD"),
        (
            "of it memory: 1,769 MB, now 512",
            f"{_BEFORE['Lambda']} USD",
            f"{1e6 * usual.parts()['Lambda']:.1f} USD",
        ),
        ("of it copies: PUT-class requests for 92 MB and 839 MB", "13 and 20", f"{usual.puts} and {measured.one('839 MB').puts}"),
        ("of it log lines: bytes of 92 MB, the event and Lambda's included", "3,033 (4,300 with the event in both logs)", f"{usual.all_logged:,}"),
        ("metrics: by stack and by 19 detectors, now by stack", "up to 200, 60 USD a month", f"{MONTHLY.metrics}, {MONTHLY.metrics * PRICES.metric:.0f} USD a month"),
        ("X-Ray: every trace at less than one a second, now none", f"{1e6 * PRICES.trace:.0f} USD a million", "0 (`Tracing=Active` brings it back)"),
        ("the ledger: one write for each product", f"{1e6 * PRICES.put:.0f} USD a million", "as before"),
    )  # fmt: skip
    yield """## What was saved

| | before | now |
|---|---|---|"""
    yield from (f"| {what} | {before} | {now} |" for what, before, now in rows)
    yield f"""
What the dashboard shows by detector it asks of the log of events, when somebody looks. The ledger's write
stays: it saves a repeated event its announcement, tells whoever asks why a product failed, and is the
catalogue that reprocessing selects from; a second write is made only where the first attempt failed.
Wider parts cost time: 839 MB take {measured.one("839 MB").seconds:.1f} s (2.4 s before, goal 3 s).
"""
