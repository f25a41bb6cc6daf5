"""Bytes through the function and its memory, for every size and both encodings."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmark.bench import MIB, Bench, Row
from tests.benchmark.material import LongExposure
from tests.benchmark.servers import CountingProxy, discarding


def rows(bench: Bench, cache: Path, exposures: tuple[LongExposure, ...]) -> Iterator[Row]:
    """Yield the rows, the largest float32 product last."""
    for encoding in ("native", "float32"):
        for exposure in exposures[: 3 if encoding == "native" else 2]:
            with bench.worker(encoding) as worker:
                answer = worker.run(exposure.key)
                if encoding == "native":  # the first made the block; float32 streams either way
                    answer = worker.run(exposure.key)
            if exposure.name == "839 MB" and encoding == "native":
                for way, goal in (("received", 8), ("sent", 32)):
                    yield Row(
                        f"bytes through the function, 839 MB, warm: {way}",
                        f"<= {goal} MiB",
                        f"{answer[way] / MIB:.1f} MiB",
                        "at the socket, protocol included",
                    )
            yield memory(exposure, encoding, answer)
    yield largest(bench, cache, exposures[-1])


def largest(bench: Bench, cache: Path, exposure: LongExposure) -> Row:
    """Memory for the largest exposure in float32, against a server that keeps nothing."""
    path = bench.folder / "largest_uncal.fits"
    with path.open("wb") as file:
        file.writelines(exposure.content())
    with discarding(path, cache) as port:
        proxy = CountingProxy(port)
        proxy.start()
        with replace(bench, port=port, proxy=proxy).worker("float32", blocks=False) as worker:
            answer = worker.run(exposure.key)
    path.unlink()
    return memory(exposure, "float32", answer, "; the server kept nothing of it")


def memory(exposure: LongExposure, encoding: str, answer: dict[str, Any], remark: str = "") -> Row:
    """The row of the peak memory."""
    cost = answer["cost"]
    moved = f"{answer['received'] / MIB:.1f} MiB in, {answer['sent'] / MIB:.1f} MiB out"
    return Row(
        f"peak memory, {exposure.name}, {encoding}",
        "<= 256 MiB",
        f"{cost['peak_mib']:.0f} MiB",
        f"{moved}; {cost['seconds']:.1f} s, CPU {cost['cpu']:.1f} s{remark}",
    )
