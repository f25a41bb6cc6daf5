"""Measure the length of repetitions from which a block saves time.

``python -m tests.benchmark.blocks --ministack INTERPRETER`` prints, for full frames of ever more
groups, what a warm invocation costs with the block and without it; docs/explanation/performance.md quotes it.
"""

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmark.bench import MIB, Bench, fill, upload
from tests.benchmark.material import LongExposure
from tests.benchmark.servers import CountingProxy, absolute, ministack
from tests.samples.mirror import write_sample_mirror


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ministack", type=absolute, required=True, help="MiniStack's interpreter")
    arguments = parser.parse_args()
    os.environ["BENCH_LEAST_GAIN"] = "1"  # even the shortest repetition has a block
    with tempfile.TemporaryDirectory() as folder, ministack(arguments.ministack) as port:
        write_sample_mirror(Path(folder) / "cache")
        proxy = CountingProxy(port)
        proxy.start()
        bench = Bench(port, proxy, Path(folder))
        fill(bench.s3, Path(folder) / "cache")
        print("| groups | GROUPDQ | CPU with block | without | MiB out with | without |")
        print("|---|---|---|---|---|---|")
        for groups in (1, 2, 4, 8, 16, 32):
            exposure = LongExposure(f"{groups} groups", 1, groups)
            upload(bench.s3, exposure)
            cells = [cost(bench, exposure, blocks) for blocks in (True, False)]
            print(
                f"| {groups} | {4 * groups} MiB | {cells[0][0]:.0f} ms | {cells[1][0]:.0f} ms "
                f"| {cells[0][1]:.0f} | {cells[1][1]:.0f} |",
                flush=True,
            )


def cost(bench: Bench, exposure: LongExposure, blocks: bool) -> tuple[float, float]:
    """Return CPU time in ms and MiB sent of a warm invocation."""
    with bench.worker("native", blocks) as worker:
        worker.run(exposure.key)
        answers = [worker.run(exposure.key) for _ in range(7)]
    return (
        1e3 * median(answer["cost"]["cpu"] for answer in answers),
        median(answer["sent"] for answer in answers) / MIB,
    )


if __name__ == "__main__":
    main()
