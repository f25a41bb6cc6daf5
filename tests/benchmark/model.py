"""Time of a warm invocation on the model of S3: as slow as S3, which no emulator is."""

from collections.abc import Iterator
from dataclasses import replace
from statistics import median

from tests.benchmark.bench import Bench, Row, spread
from tests.benchmark.material import LongExposure
from tests.benchmark.servers import CountingProxy, discarding
from tests.jwst import Jwst

_GOALS = {"92 MB": 1.5, "839 MB": 3.0, "4 GB": 8.0}
_EACH = 5


def rows(bench: Bench, jwst: Jwst, exposures: tuple[LongExposure, ...]) -> Iterator[Row]:
    """Yield a row for every size, with the settings that are deployed."""
    for exposure in exposures:
        path = bench.folder / "modelled_uncal.fits"
        with path.open("wb") as file:
            file.writelines(exposure.content())
        with discarding(path, jwst.cache, "--model") as port:
            proxy = CountingProxy(port)
            proxy.start()
            modelled = replace(bench, port=port, proxy=proxy)
            with modelled.worker("native", counted=False, patient=False) as worker:
                answers = [worker.run(exposure.key) for _ in range(_EACH + 1)][1:]
        path.unlink()
        peak = answers[-1]["cost"]["peak_mib"]
        seconds = [answer["cost"]["seconds"] for answer in answers]
        yield Row(
            f"time, {exposure.name}, warm, native, on the model of S3",
            f"<= {_GOALS[exposure.name]:.1f} s",
            f"{median(seconds):.2f} s",
            f"{spread(seconds)}, {_EACH} invocations; peak {peak:.0f} MiB",
        )
