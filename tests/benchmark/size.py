"""Bytes through the function and peak memory, for every size and encoding."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmark.bench import MIB, Bench, Row, served
from tests.benchmark.material import LongExposure


def rows(bench: Bench, cache: Path, exposures: tuple[LongExposure, ...]) -> Iterator[Row]:
    """Yield the rows, measured with a server that discards products."""
    for exposure in exposures:
        with served(bench, cache, exposure) as (there, _):
            for encoding in ("native", "float32"):
                with there.worker(encoding) as worker:
                    worker.run(exposure.key)  # the first invocation writes the block
                    answer = worker.run(exposure.key)
                if exposure.name == "839 MB" and encoding == "native":
                    yield from moved(answer)
                yield memory(exposure, encoding, answer)


def moved(answer: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of bytes."""
    for way, goal in (("received", 8), ("sent", 32)):
        yield Row(
            f"bytes through the function, 839 MB, warm: {way}",
            f"<= {goal} MiB",
            f"{answer[way] / MIB:.1f} MiB",
            "at the socket, protocol included",
        )


def memory(exposure: LongExposure, encoding: str, answer: dict[str, Any]) -> Row:
    """Return the row of peak memory."""
    cost = answer["cost"]
    moved = f"{answer['received'] / MIB:.1f} MiB in, {answer['sent'] / MIB:.1f} MiB out"
    return Row(
        f"peak memory, {exposure.name}, {encoding}",
        "<= 256 MiB",
        f"{cost['peak_mib']:.0f} MiB",
        f"{moved}; {cost['seconds']:.1f} s, CPU {cost['cpu']:.1f} s",
    )
