"""Process thousands of exposures, some bad or repeated, while the function is killed.

``python -m tests.e2e.soak`` deploys the built template on MiniStack, lets it work, and counts what
is left: products, results, messages. Sizes are mixed, so that single PUTs, multipart uploads and the
making of blocks are killed. It exits with 1 if anything was lost, or made or concluded twice.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conftest import PROJECT
from tests.e2e.stack import Stack, deployed
from tests.samples.exposures import write_exposure
from tests.samples.modes import MODES

MODE = {mode.name: mode for mode in MODES}
SIZES = {
    "small": (MODE["nircam-sub64p"], 0.92),
    "multipart": (replace(MODE["nircam-full"], shape=(1, 1, 2048, 2048)), 0.06),
    "with blocks": (replace(MODE["nircam-full"], shape=(1, 4, 2048, 2048)), 0.02),
}
"""Sizes of the exposures, and their fractions."""
FOLDER = "soak/"


@dataclass
class Work:
    """The uploaded exposures and the number of kills."""

    sizes: dict[str, str]
    bad: set[str]
    repeated: list[str]
    kills: int = 0


def main() -> None:
    """Run the soak and print its results."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="exposures")
    parser.add_argument("--seed", type=int, default=20220712)
    parser.add_argument("--pause", type=float, default=4.0, help="mean seconds between kills")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    bin_ = PROJECT / ".venv-ministack" / "bin" / "python", PROJECT / ".venv-tools" / "bin" / "sam"
    keys = [f"{FOLDER}jw{number:05}_uncal.fits" for number in range(arguments.count)]
    names, shares = list(SIZES), [share for _, share in SIZES.values()]
    sizes = {key: chance.choices(names, shares)[0] for key in keys}
    bad = set(chance.sample(keys, arguments.count // 20))
    work = Work(sizes, bad, chance.sample(keys, arguments.count // 10))
    bodies = exposures()
    with deployed(*bin_) as stack:
        started = time.monotonic()
        run(stack, work, bodies, arguments.pause, chance)
        faults = check(stack, work)
        print(summary(stack, work, time.monotonic() - started))
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


def summary(stack: Stack, work: Work, seconds: float) -> str:
    """Return the rows of the summary."""
    results = {detail["id"]: detail["status"] for detail in stack.announced}
    again = len(stack.announced) - len(results)
    return (
        f"{len(work.sizes)} exposures ({dict(Counter(work.sizes.values()))}), {len(work.bad)} of "
        f"them bad, {len(work.repeated)} events repeated, {work.kills} kills, {seconds:.0f} s\n"
        f"results by id: {dict(Counter(results.values()))}; announced again with an id that was "
        f"known: {again}\n"
        f"products: {len(made(stack))}, expected {len(work.sizes) - len(work.bad)}\n"
        f"in the queue of failures: {stack.depth('FailedQueue')}\n"
        f"left in the queue: {stack.depth('UploadedQueue')}, unfinished: "
        f"{stack.depth('UnfinishedQueue')}, undelivered: {stack.depth('UndeliveredQueue')}"
    )


def exposures() -> dict[str, bytes]:
    """Return an exposure of each size."""
    bodies = {}
    with TemporaryDirectory() as folder:
        path = Path(folder, "x_uncal.fits")
        for name, (mode, _) in SIZES.items():
            write_exposure(mode, path)
            bodies[name] = path.read_bytes()
    return bodies


def bad_of(body: bytes) -> bytes:
    """Return a truncated exposure."""
    return body[:5000]


def run(
    stack: Stack, work: Work, bodies: dict[str, bytes], pause: float, chance: random.Random
) -> None:
    """Upload the exposures while the function is killed, and wait until all are processed."""
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(chance.expovariate(1 / pause)):
            work.kills += stack.kill_function(chance)

    killer = threading.Thread(target=kill)
    killer.start()
    again = set(work.repeated)
    for key, size in work.sizes.items():
        stack.upload(key, bad_of(bodies[size]) if key in work.bad else bodies[size])
        if key in again:
            stack.repeat_event(key)
    while stack.depth("UploadedQueue") > 2:
        time.sleep(1)
    ended.set()
    killer.join()
    stack.drain(900)


def made(stack: Stack) -> dict[str, int]:
    """Return the sizes of the soak's products."""
    return {key: size for key, size in stack.products().items() if key.startswith(FOLDER)}


def check(stack: Stack, work: Work) -> list[str]:
    """Return the differences from the expected state."""
    good = [key for key in work.sizes if key not in work.bad]
    products, faults = made(stack), []
    if products.keys() != {key.replace("_uncal", "_dq_init") for key in good}:
        faults.append("the products are not those expected")
    by_size = defaultdict(set)
    for key in good:
        by_size[work.sizes[key]].add(products.get(key.replace("_uncal", "_dq_init")))
    if any(len(found) > 1 for found in by_size.values()):
        faults.append(f"products of one size differ in length: {dict(by_size)}")
    for key in work.sizes:
        results = Counter(stack.said(key))
        causes = 1 + work.repeated.count(key)
        expected = Counter(Failed=causes) if key in work.bad else Counter(Complete=1)
        skipped = 0 if key in work.bad else causes - 1
        if results - Counter(Skipped=skipped) != expected:
            reasons = [d["reason"] for d in stack.announced if d["input"]["key"] == key]
            faults.append(f"{key}: {dict(results)}: {reasons}")
    left = {name: stack.depth(name) for name in ("UploadedQueue", "UnfinishedQueue")}
    left["UndeliveredQueue"] = stack.depth("UndeliveredQueue")
    if any(left.values()):
        faults.append(f"the queues hold {left}, expected nothing")
    failures = sum(1 + work.repeated.count(key) for key in work.bad)
    if stack.depth("FailedQueue") < failures:
        faults.append(f"FailedQueue holds {stack.depth('FailedQueue')}, expected {failures}")
    return faults


if __name__ == "__main__":
    main()
