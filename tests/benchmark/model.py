"""Time of a warm invocation on the model of S3, compared with jwst and its transfers."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from tests.benchmark.bench import Bench, Row, move, served, spread, uploaded
from tests.benchmark.cpu import as_lambda, deployed_memory
from tests.benchmark.material import LongExposure
from tests.jwst import Jwst

_GOALS = {"92 MB": 0.9, "839 MB": 2.3, "4 GB": 4.5}
_GOAL_OF_VIRTUAL = 0.25
_EACH = 5
_THEIRS = {"92 MB": 3, "839 MB": 1}
"""Runs of jwst's step; none for 4 GB, which needs more memory than most machines have."""


def rows(bench: Bench, jwst: Jwst, exposures: tuple[LongExposure, ...]) -> Iterator[Row]:
    """Yield a row for every size, with the settings of the template."""
    for exposure in exposures:
        with served(bench, jwst.cache, exposure, "--slow") as (there, path):
            answers, virtual = (
                _run(there, path.stat().st_size, product) for product in ("native", "virtual")
            )
            theirs = []
            output = bench.folder / "jwst.fits"
            if exposure.name in _THEIRS:
                costs = jwst.answer("step", path, output, _THEIRS[exposure.name])
                theirs = [cost["seconds"] + move(there, exposure.key, output) for cost in costs]
                output.unlink()
        beside = f"; jwst, fetching and putting back: {spread(theirs)}" if theirs else ""
        yield _row(exposure, "native", _GOALS[exposure.name], answers, beside)
        yield _row(exposure, "virtual", _GOAL_OF_VIRTUAL, virtual)


def _run(there: Bench, size: int, product: str) -> list[Any]:
    with (
        as_lambda(deployed_memory(product)) as group,
        there.worker(product, counted=False, group=group) as worker,
    ):
        events = [uploaded(f"bench/{number}_uncal.fits", size) for number in range(_EACH + 1)]
        answers = [worker.send(event) for event in events]
    assert all(answer["detail"] == {"batchItemFailures": []} for answer in answers)
    return answers[1:]


def _row(
    exposure: LongExposure, product: str, goal: float, answers: list[Any], beside: str = ""
) -> Row:
    peak = answers[-1]["cost"]["peak_mib"]
    seconds = [answer["cost"]["seconds"] for answer in answers]
    return Row(
        f"time, {exposure.name}, warm, {product}, on the model of S3",
        f"<= {goal:.2f} s",
        f"{median(seconds):.2f} s",
        f"{spread(seconds)}, {_EACH} invocations with the CPU of {deployed_memory(product)} MB, "
        f"peak {peak:.0f} MiB{beside}",
    )
