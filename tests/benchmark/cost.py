"""What an exposure costs: ``make cost`` runs one of every class, and writes docs/cost.md.

The deployed bundle runs against the model of S3 (tests/model_of_s3), whose speed is what public
measurements say; requests, seconds, bytes logged and memory are counted, and multiplied by one dated
table of prices (infra/cost/prices.py).
"""

import argparse
import json
import os
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from infra.bundle.python import target_python
from infra.cost.prices import PRICES
from infra.demo.samples.exposures import write_exposure
from infra.demo.samples.mirror import write_sample_mirror
from infra.demo.samples.modes import MODES
from tests.benchmark.bench import HERE, RAW, function_environment
from tests.benchmark.material import LongExposure
from tests.benchmark.servers import discarding
from tests.bundle.lambda_runtime import BUNDLE
from tests.conftest import PROJECT
from tests.model_of_s3.server import COUNTS

MEMORY = 1769
MEMORIES = (512, 1024, 1769)
PER_DAY = 500
MODE = {mode.name: mode for mode in MODES}
LONG = (
    LongExposure("26 MB", 1, 3),
    LongExposure("92 MB", 1, 10, zeroframe=True),
    LongExposure("250 MB", 1, 30),
    LongExposure("839 MB", 1, 100),
)
SMALL = {"guider": MODE["fgs1-acq1"], "subarray": MODE["nircam-sub64p"]}
LAMBDA_LINES = 420
"""Bytes that Lambda itself logs of an invocation: START, END, REPORT with the trace."""
MESSAGES = 4
"""SQS requests of an exposure that arrives: sent, received, hidden, deleted."""
EACH = 3


@dataclass(frozen=True)
class Work:
    """What one invocation took."""

    exposure: str
    size: int
    encoding: str
    way: str
    seconds: float
    cpu: float
    puts: int
    gets: int
    events: int
    logged: int
    event_bytes: int
    peak_mib: float

    def parts(self, memory: int = MEMORY) -> dict[str, float]:
        """USD for a million, by what is paid for."""
        share = min(memory / MEMORY, 1)
        seconds = self.seconds + self.cpu * (1 / share - 1)  # less memory is less CPU
        logged = self.logged + LAMBDA_LINES + self.event_bytes
        one = {
            "S3 PUT": self.puts * PRICES.put,
            "S3 GET": self.gets * PRICES.get,
            "Lambda": seconds * memory / 1024 * PRICES.gigabyte_second + PRICES.invocation,
            "SQS": MESSAGES * PRICES.message,
            "EventBridge": self.events * PRICES.event,
            "Logs": logged / 1e9 * PRICES.logged_gigabyte,
        }
        return {name: 1e6 * usd for name, usd in one.items()}

    def total(self, memory: int = MEMORY) -> float:
        """USD for a million."""
        return sum(self.parts(memory).values())


class Function:
    """The deployed bundle in a process of its own, whose log is counted."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def run(self, event: dict[str, Any]) -> dict[str, Any]:
        """Have it answer an event; returns what that took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.counts()
        before = self.log.stat().st_size
        self.process.stdin.write(json.dumps(event) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer | {"counts": self.counts(), "logged": self.log.stat().st_size - before}

    def counts(self) -> dict[str, int]:
        """What was asked of the server since the last look."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{COUNTS}") as answer:
            found: dict[str, int] = json.load(answer)
        return found


@contextmanager
def function(port: int, encoding: str) -> Iterator[Function]:
    """Start it, as it is deployed."""
    with tempfile.TemporaryDirectory() as scratch:
        more = {"POWERTOOLS_LOG_LEVEL": "INFO", "POWERTOOLS_METRICS_DISABLED": "false"}
        environment = os.environ | function_environment(port, encoding) | more
        environment |= {"TMPDIR": scratch, "PYTHONPATH": str(BUNDLE)}
        log = Path(scratch) / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [str(target_python()), str(HERE / "worker.py")],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                text=True,
            )  # fmt: skip
            yield Function(process, port, log)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def created(key: str) -> dict[str, Any]:
    """An upload, as EventBridge tells of it."""
    detail = {"bucket": {"name": RAW}, "object": {"key": key}}
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}


def measure(name: str, path: Path, encoding: str, cache: Path) -> Iterator[Work]:
    """Run an exposure as it arrives, as its event is repeated, and as it is made anew."""
    with discarding(path, cache, "--slow") as port, function(port, encoding) as running:
        running.run(created("bench/first_uncal.fits"))  # what a container does once
        for way in ("forward", "repeated", "reprocessed"):
            runs = [running.run(_event(way, number)) for number in range(EACH)]
            last, cost = runs[-1], [run["cost"] for run in runs]
            counts = last["counts"]
            yield Work(
                name, path.stat().st_size, encoding, way,
                median(one["seconds"] for one in cost), median(one["cpu"] for one in cost),
                counts.get("put", 0), counts.get("get", 0), counts.get("event", 0),
                last["logged"], len(json.dumps(last["detail"])), last["cost"]["peak_mib"],
            )  # fmt: skip


def _event(way: str, number: int) -> dict[str, Any]:
    key = f"bench/{number}_uncal.fits"
    if way == "reprocessed":
        return {"bucket": RAW, "key": key, "onExisting": "replace"}
    return created(key)


def exposures(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write one exposure of every class, one after another."""
    path = folder / "x_uncal.fits"
    for name, mode in SMALL.items():
        write_exposure(mode, path)
        yield name, path
    for exposure in LONG:
        with path.open("wb") as file:
            file.writelines(exposure.content())
        yield exposure.name, path


def report(works: list[Work], minutes: float) -> str:
    """The page."""
    parts = list(works[0].parts())
    lines = [
        "# What it costs",
        "",
        f"Made on {datetime.now(UTC):%Y-%m-%d} by `make cost` in {minutes:.0f} minutes: the deployed bundle",
        "on the model of S3 (60 MB/s a copy request, 70 MB/s for uploads and reads together, 25 ms a",
        "request), prices of us-east-1 as `infra/cost/prices.py` has them with their date. USD for a",
        f"million exposures, warm, without storage; Lambda on arm64 with {MEMORY} MB.",
        "",
        f"| exposure | encoding | way | {' | '.join(parts)} | in all | s | PUT | GET | logged, bytes | MiB |",
        f"|---|---|---|{'---|' * (len(parts) + 6)}",
    ]
    for work in works:
        cells = [f"{usd:.1f}" for usd in work.parts().values()]
        lines.append(
            f"| {work.exposure} | {work.encoding} | {work.way} | {' | '.join(cells)} | "
            f"**{work.total():.0f}** | {work.seconds:.2f} | {work.puts} | {work.gets} | "
            f"{work.logged + work.event_bytes + LAMBDA_LINES:,} | {work.peak_mib:.0f} |"
        )
    return "\n".join([*lines, "", *_notes(works)]) + "\n"


def _notes(works: list[Work]) -> Iterator[str]:
    usual = next(
        w for w in works if (w.exposure, w.encoding, w.way) == ("92 MB", "native", "forward")
    )
    yield "*Forward* is an upload, *repeated* the same event again, *reprocessed* a product made anew."
    yield "Logged are the function's lines, Lambda's own, and the event in EventLog. X-Ray samples some"
    yield "five in a hundred traces (0.3 USD for a million); queries, alarms and the dashboard cost a fixed"
    yield "few USD a month, metrics by detector 0.30 USD each."
    yield ""
    yield f"A TB of exposures of 92 MB: {usual.total() * 1e12 / usual.size / 1e6:.2f} USD."
    yield f"A year of {PER_DAY} exposures of 92 MB a day: {usual.total() * PER_DAY * 365 / 1e6:.0f} USD. (So many a"
    yield "day are taken as given, and were not looked up; MAST's search counts the `_uncal` files of any"
    yield "period.)"
    yield ""
    yield "## By the function's memory"
    yield ""
    yield "Less memory is cheaper while the function waits, and gives it less CPU. The table reckons so: the"
    yield "seconds that were measured, and its CPU time stretched by the share of a CPU that Lambda gives."
    yield "Lambda's network was not measured at any of these."
    yield ""
    yield "| exposure | encoding | " + " | ".join(f"{memory} MB" for memory in MEMORIES) + " |"
    yield "|---|---|" + "---|" * len(MEMORIES)
    for work in works:
        if work.way == "forward":
            cells = " | ".join(f"{work.total(memory):.0f}" for memory in MEMORIES)
            yield f"| {work.exposure} | {work.encoding} | {cells} |"


def main() -> None:
    """Measure, print, and write docs/cost.md."""
    parser = argparse.ArgumentParser(prog="make cost", description=__doc__)
    parser.add_argument("--only", help="one class, and nothing is written")
    arguments = parser.parse_args()
    started, works = datetime.now(UTC), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sample_mirror(folder / "cache")
        for exposure, path in exposures(folder):
            if arguments.only in {None, exposure}:
                for encoding in ("native", "float32"):
                    works += measure(exposure, path, encoding, folder / "cache")
    text = (
        report(works, (datetime.now(UTC) - started).total_seconds() / 60)
        if not arguments.only
        else ""
    )
    for work in works:
        print(f"{work.exposure:9} {work.encoding:8} {work.way:12} {work.total():7.1f} USD {work}")
    if text:
        (PROJECT / "docs" / "cost.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
