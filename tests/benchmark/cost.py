"""Measure the cost of an exposure of every class; ``make cost`` writes docs/reference/cost.md.

The deployed bundle runs against the model of S3 (tests/model_of_s3), whose speed is what public
measurements say, with the CPU that Lambda gives (tests.benchmark.cpu). Requests, seconds, bytes
logged and memory are counted, kept in infra/cost/measured.json, and multiplied by one dated table of
prices (infra/cost/prices.py). The limits of AWS: docs/explanation/limits.md.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from infra.bundle.build import target_python
from infra.cost.prices import Invocation, Measured
from tests.benchmark.bench import HERE, RAW, batch, function_environment, uploaded
from tests.benchmark.cost_page import page
from tests.benchmark.cpu import ONE_CPU, as_lambda, deployed_memory
from tests.benchmark.material import LongExposure
from tests.benchmark.servers import discarding
from tests.bundle.lambda_runtime import BUNDLE
from tests.conftest import PROJECT
from tests.model_of_s3.server import COUNTS
from tests.samples.exposures import write_exposure
from tests.samples.mirror import write_sample_mirror
from tests.samples.modes import MODES

OTHER_MEMORIES = (1024, ONE_CPU)
MODE = {mode.name: mode for mode in MODES}
LONG = (
    LongExposure("26 MB", 1, 3),
    LongExposure("92 MB", 1, 10, zeroframe=True),
    LongExposure("250 MB", 1, 30),
    LongExposure("839 MB", 1, 100),
)
SMALL = {"guider": MODE["fgs1-acq1"], "subarray": MODE["nircam-sub64p"]}
WAYS = ("forward", "repeated", "reprocessed")
EACH = 3


class Function:
    """The built bundle in a process whose log is counted."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def run(self, event: dict[str, Any]) -> dict[str, Any]:
        """Process an event; return its requests, seconds and bytes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.counts()
        before = self.log.stat().st_size
        self.process.stdin.write(json.dumps(event) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer | {"counts": self.counts(), "logged": self.log.stat().st_size - before}

    def counts(self) -> dict[str, int]:
        """Return the requests to the server since the last call."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{COUNTS}") as answer:
            found: dict[str, int] = json.load(answer)
        return found


@contextmanager
def function(port: int, product: str, memory: int) -> Iterator[Function]:
    """Start the bundle with the environment of the template and the CPU of a memory size."""
    with tempfile.TemporaryDirectory() as scratch, as_lambda(memory) as group:
        more = {"POWERTOOLS_LOG_LEVEL": "INFO", "POWERTOOLS_METRICS_DISABLED": "false"}
        environment = os.environ | function_environment(port, product) | more
        environment |= {"TMPDIR": scratch, "PYTHONPATH": str(BUNDLE)}
        log = Path(scratch) / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [str(target_python()), str(HERE / "worker.py")],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                text=True,
            )  # fmt: skip
            group.write_text(str(process.pid))
            yield Function(process, port, log)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


class Subject(NamedTuple):
    """A measurement: an exposure of some class and the settings of the function."""

    name: str
    path: Path
    product: str
    memory: int


def measure(
    subject: Subject, cache: Path, ways: tuple[str, ...] = WAYS, each: int = EACH
) -> Iterator[Invocation]:
    """Measure an exposure for an upload, a repeated event and a rebuild."""
    size = subject.path.stat().st_size
    with (
        discarding(subject.path, cache, "--slow") as port,
        function(port, subject.product, subject.memory) as running,
    ):
        running.run(
            uploaded("bench/first_uncal.fits", size)
        )  # includes the work that a container does once
        for way in ways:
            runs = [running.run(_event(way, number, size)) for number in range(each)]
            last, counts = runs[-1], runs[-1]["counts"]
            yield Invocation(
                subject.name, subject.product, way, size, subject.memory,
                round(median(run["cost"]["seconds"] for run in runs), 4),
                round(median(run["cost"]["cpu"] for run in runs), 4),
                counts.get("put", 0), counts.get("get", 0), counts.get("event", 0),
                last["logged"], counts.get("event bytes", 0), counts.get("product bytes", 0),
                round(last["cost"]["peak_mib"], 1),
            )  # fmt: skip


def cold_seconds(path: Path, cache: Path) -> float:
    """Return the additional seconds of a container's first invocation."""
    taken = []
    size = path.stat().st_size
    for _ in range(EACH):
        with discarding(path, cache, "--slow") as port:
            started = time.monotonic()
            with function(port, "native", deployed_memory("native")) as running:
                running.run(uploaded("bench/first_uncal.fits", size))
                first = time.monotonic() - started
                warm = running.run(uploaded("bench/second_uncal.fits", size))
                taken.append(first - warm["cost"]["seconds"])
    return round(median(taken), 2)


def _event(way: str, number: int, size: int) -> dict[str, Any]:
    key = f"bench/{number}_uncal.fits"
    if way == "reprocessed":
        return batch(json.dumps({"bucket": RAW, "key": key, "onExisting": "replace"}))
    return uploaded(key, size)


def exposures(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write one exposure of every class and yield each."""
    path = folder / "x_uncal.fits"
    for name, mode in SMALL.items():
        write_exposure(mode, path)
        yield name, path
    for exposure in LONG:
        with path.open("wb") as file:
            file.writelines(exposure.content())
        yield exposure.name, path


def measure_all(folder: Path, only: str | None) -> Measured:
    """Measure every class with the memory of the template and with others."""
    write_sample_mirror(folder / "cache")
    found: list[Invocation] = []
    others: list[Invocation] = []
    cold = 0.0
    for name, path in exposures(folder):
        if only not in {None, name}:
            continue
        if name == "subarray":
            cold = cold_seconds(path, folder / "cache")
        for product in ("native", "float32", "virtual"):
            subject = Subject(name, path, product, deployed_memory(product))
            found += _told(measure(subject, folder / "cache"))
            is_long = product == "float32" and path.stat().st_size > 10**7
            times = 1 if is_long else EACH
            for memory in () if product == "virtual" else OTHER_MEMORIES:
                other = subject._replace(memory=memory)
                others += _told(measure(other, folder / "cache", ("forward",), times))
    return Measured(f"{datetime.now(UTC):%Y-%m-%d}", cold, tuple(found), tuple(others))


def _told(invocations: Iterator[Invocation]) -> Iterator[Invocation]:
    for one in invocations:
        print(
            f"{one.exposure:9} {one.product:8} {one.way:12} {one.memory:5} MB {one.seconds:6.2f} s "
            f"{1e6 * one.usd():7.1f} USD a million",
            flush=True,
        )
        yield one


def main() -> None:
    """Measure, print, and write infra/cost/measured.json and docs/reference/cost.md."""
    parser = argparse.ArgumentParser(prog="make cost", description=__doc__)
    parser.add_argument("--only", help="one class, and nothing is written")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        measured = measure_all(Path(name), arguments.only)
    if not arguments.only:
        measured.write()
        text = page(measured, (time.monotonic() - started) / 60)
        (PROJECT / "docs" / "reference" / "cost.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
