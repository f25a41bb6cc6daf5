"""Measure the function side by side with jwst, and compare with the targets.

``make bench`` runs it. What it prints it also writes to RESULTS.md beside this file.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from infra.bundle.build import PYTHON
from tests.benchmark import archive, cold, local, model, size, warm
from tests.benchmark.bench import HERE, Bench, Row, fill, upload
from tests.benchmark.material import EXPOSURES
from tests.benchmark.servers import CountingProxy, absolute, ministack
from tests.jwst import Jwst
from tests.samples.exposures import write_exposure
from tests.samples.mirror import write_sample_mirror
from tests.samples.modes import MODES

CONFORMANCE = HERE.parent / "conformance"
PARTS = ("warm", "cold", "model", "size", "archive", "local")


def measure(bench: Bench, jwst: Jwst, parts: tuple[str, ...], notes: list[str]) -> Iterator[Row]:
    """Yield the rows of some parts; append remarks below the table to `notes`."""
    upload(bench.s3, EXPOSURES[0])
    full, subarray = bench.folder / "full_uncal.fits", bench.folder / "subarray_uncal.fits"
    with full.open("wb") as file:
        file.writelines(EXPOSURES[0].content())
    write_exposure(next(mode for mode in MODES if mode.name == "nircam-sub64p"), subarray)

    if "warm" in parts:
        yield from warm.rows(bench, jwst, EXPOSURES[0], full)
    if "cold" in parts:
        firsts = cold.measure(bench, jwst, subarray, full)
        for first in firsts:
            yield from first.rows()
        notes += cold.phases(firsts)
    if "model" in parts:
        yield from model.rows(bench, jwst, EXPOSURES)
    if "size" in parts:
        yield from size.rows(bench, jwst.cache, EXPOSURES)
    if "archive" in parts:
        folder = bench.folder / "archive"
        folder.mkdir()
        yield from archive.rows(folder, replace(jwst, script=CONFORMANCE / "with_jwst.py"))
    if "local" in parts:
        yield from local.rows(bench.folder, jwst, subarray, full)


def report(rows: list[Row], notes: list[str], seconds: float) -> str:
    """Return the table as Markdown."""
    with Path("/proc/cpuinfo").open() as info:
        processor = next((line.split(":")[1].strip() for line in info if "model name" in line), "?")
    lines = [
        "# Benchmark",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with `make bench` in {seconds / 60:.0f} minutes: "
        f"{platform.system()}, {os.cpu_count()} cores of {processor}.",
        f"The function is the deployed bundle on Python {PYTHON}; jwst 3.0.0 has the same Python.",
        "First products and equal bytes: S3 is MiniStack in a process of its own. CPU time, memory and",
        "bytes: S3 is a server that keeps nothing (`tests/model_of_s3`), for emulators need half an hour",
        "for the largest products, and the CPU that they share with the function. No time-out is raised.",
        "jwst reads and writes local files, except where it is said.",
        "Ratios are of one run, the two sides in turns, of medians; in brackets least and most.",
        "",
        "| what | goal | measured | |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "The model of S3 is the same server, as slow as public measurements say that S3 is: 60 MB/s a",
        "copy request, silent until it is done, 70 MB/s for all uploads and reads together, 25 ms a",
        "request.",
        "",
        *notes,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jwst", type=absolute, required=True, help="jwst's own interpreter")
    parser.add_argument("--ministack", type=absolute, required=True, help="MiniStack's interpreter")
    parser.add_argument("--only", choices=PARTS, help="one part, and nothing is written")
    arguments = parser.parse_args()
    parts = (arguments.only,) if arguments.only else PARTS
    started = datetime.now(UTC)
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as name, ministack(arguments.ministack) as port:
        folder = Path(name)
        jwst = Jwst(arguments.jwst, HERE / "with_jwst.py", folder / "cache")
        write_sample_mirror(jwst.cache)
        proxy = CountingProxy(port)
        proxy.start()
        bench = Bench(port, proxy, folder)
        fill(bench.s3, jwst.cache)
        for row in measure(bench, jwst, parts, notes):
            print(" | ".join(row), flush=True)
            rows.append(row)
    print("\n".join(notes))
    if not arguments.only:
        text = report(rows, notes, (datetime.now(UTC) - started).total_seconds())
        (HERE / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
