"""Time of the first product of a new process, compared with jwst, by phase.

The function is the deployed bundle under AWS's own runtime client and emulator, with an empty /tmp:
what is measured is one Invoke, from the start of Python to the answer. jwst is measured from the
first line of its script.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmark.bench import RAW, Bench, Row, function_environment, move, spread
from tests.benchmark.material import EXPOSURES
from tests.benchmark.servers import discarding
from tests.bundle.lambda_runtime import BUNDLE, PYTHON, alone, runtime
from tests.jwst import Jwst

_ROUNDS = 7
_INIT = re.compile(r"INIT REPORT\(durationMs: ([\d.]+)")
_INVOKE = re.compile(r"INVOKE RTDONE\(.*?duration: ([\d.]+)ms")
_IMPORT = re.compile(r"import time: +(\d+) \| +\d+ \| +([^\s.]+)")
_LEAST_SHOWN = 0.010


@dataclass
class First:
    """Seconds of first products of one exposure, by alternating new processes."""

    name: str
    ours: list[float] = field(default_factory=list)
    init: list[float] = field(default_factory=list)
    invoke: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    transfer: list[float] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """Return the rows that compare the first products."""
        ways = {"on local files": self.theirs}
        if self.transfer:
            whole = [step + moved for step, moved in zip(self.theirs, self.transfer, strict=True)]
            ways["fetched from S3 and put back there"] = whole
        for way, theirs in ways.items():
            yield Row(
                f"first product of a fresh process, {self.name}, against jwst's, {way}",
                "<= 0.33",
                f"{median(self.ours) / median(theirs):.3f}",
                f"{spread(self.ours)} against {spread(theirs)}, {_ROUNDS} each",
            )


def measure(bench: Bench, jwst: Jwst, subarray: Path, full: Path) -> list[First]:
    """Measure a subarray and a full frame, the latter also on a server that discards products."""
    found = []
    for name, path in (("a subarray", subarray), (EXPOSURES[0].name, full)):
        first, key = First(name), f"cold/{path.name}"
        bench.s3.upload_file(str(path), RAW, key)
        for _ in range(_ROUNDS):
            _ours(bench.port, key, first)
            _theirs(bench, jwst, path, first)
            first.transfer.append(move(bench, key, bench.folder / "cold.fits"))
        found.append(first)
    first = First(f"{EXPOSURES[0].name}, S3's copying taking no time")
    with discarding(full, jwst.cache) as port:
        for _ in range(_ROUNDS):
            _ours(port, f"cold/{full.name}", first)
            _theirs(bench, jwst, full, first)
    return [*found, first]


def _ours(port: int, key: str, first: First) -> None:
    """Start the bundle without the proxy and build the product twice."""
    request = {"bucket": RAW, "key": key, "onExisting": "replace"}
    with tempfile.TemporaryDirectory() as folder:
        with runtime(function_environment(port), Path(folder)) as running:
            start = time.perf_counter()
            answer: Any = running.invoke(request)
            first.ours.append(time.perf_counter() - start)
            assert answer.get("status") == "Complete", answer
            running.invoke(request)
        log = running.log.read_text()
    (init,), (invoke, again) = _INIT.findall(log), _INVOKE.findall(log)
    for seconds, measured in ((first.init, init), (first.invoke, invoke), (first.again, again)):
        seconds.append(float(measured) / 1000)


def _theirs(bench: Bench, jwst: Jwst, path: Path, first: First) -> None:
    (cost,) = jwst.answer("step", path, bench.folder / "cold.fits", 1)
    first.theirs.append(cost["since_start"])


def phases(measured: list[First]) -> list[str]:
    """Return the time of the first product by phase, as Markdown."""
    lines = [
        "## Where the time of a first product goes",
        "",
        "As printed by AWS's runtime emulator, medians in milliseconds:",
        "",
        f"| phase | {' | '.join(first.name for first in measured)} |",
        f"|---|{'---|' * len(measured)}",
    ]
    for name, phase in (("INIT", "init"), ("INVOKE", "invoke"), ("the same INVOKE again", "again")):
        cells = (f"{1000 * median(getattr(first, phase)):.0f}" for first in measured)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    own = imports()
    shown = [f"{name} {1000 * own[name]:.0f}" for name in own if own[name] >= _LEAST_SHOWN]
    total = sum(own.values())
    return [
        *lines,
        "",
        f"Imports in INIT, by `-X importtime` (which slows them): {1000 * total:.0f} ms; "
        f"of these {', '.join(shown)}, others less than 10 each.",
    ]


def imports() -> dict[str, float]:
    """Return the seconds of imports by package, without those of other packages; best of 5."""
    command = [str(PYTHON), "-X", "importtime", "-c", "import handler.app"]
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        environment = alone({}, Path(folder))
        for _ in range(5):
            done = subprocess.run(
                command, cwd=BUNDLE, env=environment, capture_output=True, text=True, check=True
            )
            own: Counter[str] = Counter()
            for microseconds, package in _IMPORT.findall(done.stderr):
                standard = package in sys.stdlib_module_names
                own["Python's library" if standard else package] += int(microseconds)
            runs.append(own)
    best = min(runs, key=lambda own: own.total())
    return {package: count / 1e6 for package, count in best.most_common()}
