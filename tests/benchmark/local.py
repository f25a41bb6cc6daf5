"""The command dq-init run against strun dq_init, each in fresh processes, in turns."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from statistics import median

from infra.demo.samples import CONTEXT
from tests.benchmark.bench import Row, spread
from tests.benchmark.material import LongExposure
from tests.conftest import PROJECT
from tests.jwst import Jwst

LARGE = LongExposure("839 MB", 1, 100)
NIGHT, EXPOSURES, PROCESSES = LongExposure("26 MB", 1, 3), 100, 2

# A small process in between, because a process inherits the peak memory of the one that starts it.
_MEASURE = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "seconds": seconds,
    "cpu": used.ru_utime + used.ru_stime,
    "peak_mib": used.ru_maxrss / 1024,
    "written_mb": used.ru_oublock * 512 / 1e6,
}))
"""


@dataclass(frozen=True)
class Cost:
    """The resources of a command and its processes."""

    seconds: float
    cpu: float
    peak_mib: float  # of the largest process
    written_mb: float


def rows(folder: Path, jwst: Jwst, subarray: Path, full: Path) -> Iterator[Row]:
    """Yield the rows for one exposure of each size, and for a night."""
    yield from single("a subarray", 0.25, subarray, folder, jwst, rounds=7)
    yield from single("92 MB", 0.33, full, folder, jwst, rounds=7)
    large = _written(LARGE, folder / "large_uncal.fits")
    yield from single(LARGE.name, 0.25, large, folder, jwst, rounds=3)
    large.unlink()
    night = folder / "night"
    night.mkdir()
    for number in range(EXPOSURES):
        _written(NIGHT, night / f"{number}_uncal.fits")
    ours, theirs = _ours(folder, night, "--jobs", str(PROCESSES)), _theirs(folder, jwst, night)
    rmtree(night)
    name = f"{EXPOSURES} exposures of {NIGHT.name}, {PROCESSES} processes"
    yield Row(
        f"dq-init run, {name}, against strun for each: CPU time",
        "",
        f"{ours.cpu / theirs.cpu:.3f}",
        f"{ours.cpu:.0f} s against {theirs.cpu:.0f} s; {ours.seconds:.0f} s against "
        f"{theirs.seconds:.0f} s of time; {ours.written_mb:,.0f} MB against "
        f"{theirs.written_mb:,.0f} MB written; peak {ours.peak_mib:.0f} MiB against "
        f"{theirs.peak_mib:.0f} MiB",
    )


def single(
    name: str, goal: float, path: Path, folder: Path, jwst: Jwst, rounds: int
) -> Iterator[Row]:
    """Yield the rows for one exposure."""
    pairs = [(_ours(folder, path), _theirs(folder, jwst, path)) for _ in range(rounds)]
    ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
    ratio = median(cost.cpu for cost in ours) / median(cost.cpu for cost in theirs)
    yield Row(
        f"dq-init run in a fresh process, {name}, against strun: CPU time",
        f"<= {goal}",
        f"{ratio:.3f}",
        f"{spread([cost.cpu for cost in ours])} against {spread([cost.cpu for cost in theirs])}, "
        f"{rounds} each; {spread([cost.seconds for cost in ours])} against "
        f"{spread([cost.seconds for cost in theirs])} of time; {ours[0].written_mb:,.0f} MB against "
        f"{theirs[0].written_mb:,.0f} MB written",
    )
    yield Row(
        f"dq-init run in a fresh process, {name}: peak memory",
        "<= 256 MiB",
        f"{max(cost.peak_mib for cost in ours):.0f} MiB",
        f"strun: {max(cost.peak_mib for cost in theirs):.0f} MiB",
    )


def _ours(folder: Path, path: Path, *words: str) -> Cost:
    command = [sys.executable, "-m", "infra", "run", str(path), *words]
    return _measure([*command, "--output-dir", str(folder / "products")], folder, {})


def _theirs(folder: Path, jwst: Jwst, path: Path) -> Cost:
    """Run strun for one exposure, or for each of a folder, two at a time."""
    output = folder / "products"
    output.mkdir()
    strun = [str(jwst.interpreter.with_name("strun")), "dq_init"]
    words = ["--disable-crds-steppars", f"--output_dir={output}", "--log-level=ERROR"]
    server = {"CRDS_SERVER_URL": jwst.server, "CRDS_MODE": "local"}
    if path.is_file():
        return _measure([*strun, str(path), *words], folder, server)
    command = ["xargs", "-P", str(PROCESSES), "-I", "{}", *strun, "{}", *words]
    names = "\n".join(map(str, sorted(path.iterdir())))
    return _measure(command, folder, server, names)


def _measure(command: list[str], folder: Path, more: dict[str, str], given: str = "") -> Cost:
    settings = {"CRDS_PATH": str(folder / "cache"), "CRDS_CONTEXT": CONTEXT, **more}
    environment = {**os.environ, **settings, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command],
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        check=True,
    )
    products = folder / "products"
    assert list(products.glob("*.fits")), command
    rmtree(products)
    return Cost(**json.loads(done.stdout))


def _written(exposure: LongExposure, path: Path) -> Path:
    with path.open("wb") as file:
        file.writelines(exposure.content())
    return path
