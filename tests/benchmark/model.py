"""Time of a warm invocation on the model of S3, compared with jwst and its transfers."""

from collections.abc import Iterator
from statistics import median

from tests.benchmark.bench import Bench, Row, move, served, spread
from tests.benchmark.cpu import DEPLOYED, as_lambda
from tests.benchmark.material import LongExposure
from tests.jwst import Jwst

_GOALS = {"92 MB": 1.5, "839 MB": 3.0, "4 GB": 8.0}
_EACH = 5
_THEIRS = {"92 MB": 3, "839 MB": 1}
"""Runs of jwst's step; none for 4 GB, which needs more memory than most machines have."""


def rows(bench: Bench, jwst: Jwst, exposures: tuple[LongExposure, ...]) -> Iterator[Row]:
    """Yield a row for every size, with the settings of the template."""
    for exposure in exposures:
        with served(bench, jwst.cache, exposure, "--slow") as (there, path):
            with (
                as_lambda(DEPLOYED) as group,
                there.worker("native", counted=False, group=group) as worker,
            ):
                answers = [worker.run(exposure.key) for _ in range(_EACH + 1)][1:]
            theirs = []
            output = bench.folder / "jwst.fits"
            if exposure.name in _THEIRS:
                costs = jwst.answer("step", path, output, _THEIRS[exposure.name])
                theirs = [cost["seconds"] + move(there, exposure.key, output) for cost in costs]
                output.unlink()
        peak = answers[-1]["cost"]["peak_mib"]
        seconds = [answer["cost"]["seconds"] for answer in answers]
        beside = f"; jwst, fetching and putting back: {spread(theirs)}" if theirs else ""
        yield Row(
            f"time, {exposure.name}, warm, native, on the model of S3",
            f"<= {_GOALS[exposure.name]:.1f} s",
            f"{median(seconds):.2f} s",
            f"{spread(seconds)}, {_EACH} invocations with the CPU of {DEPLOYED} MB, peak {peak:.0f} "
            f"MiB{beside}",
        )
