"""Thousands of exposures, some bad, some repeated, the function killed again and again.

``python -m tests.e2e.soak`` deploys the built template on MiniStack, lets it work, and counts what
is left: products, announcements, messages. It exits with 1 if anything was lost or doubled.
"""

import argparse
import os
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.demo.samples.exposures import write_exposure
from infra.demo.samples.modes import MODES
from tests.conftest import PROJECT
from tests.e2e.conftest import ENVIRONMENT
from tests.e2e.stack import Stack, deployed

MODE = next(mode for mode in MODES if mode.name == "nircam-sub64p")
PRODUCT_SIZE = 259200


def main() -> None:
    """Run it, and print what is left."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="exposures")
    parser.add_argument("--seed", type=int, default=20220712)
    parser.add_argument("--pause", type=float, default=4.0, help="mean seconds between kills")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    os.environ.update(ENVIRONMENT)
    bin_ = PROJECT / ".venv-ministack" / "bin" / "python", PROJECT / ".venv-tools" / "bin" / "sam"
    keys = [f"soak/jw{number:05}_uncal.fits" for number in range(arguments.count)]
    bad = set(chance.sample(keys, arguments.count // 20))
    repeated = chance.sample(keys, arguments.count // 10)
    with deployed(*bin_) as stack:
        started = time.monotonic()
        kills = run(stack, keys, bad, repeated, arguments.pause, chance)
        faults = check(stack, keys, bad, repeated)
        statuses = Counter(detail["status"] for detail in stack.announced)
        print(
            f"{len(keys)} exposures, {len(bad)} of them bad, {len(repeated)} events repeated, "
            f"{kills} kills, {time.monotonic() - started:.0f} s\n"
            f"announced: {dict(statuses)}\n"
            f"products: {len(stack.products())}, expected {len(keys) - len(bad)}\n"
            f"in the rejected-queue: {stack.depth('RejectedQueue')}, expected {len(bad)}\n"
            f"left in the queue: {stack.depth('UploadedQueue')}, failed: "
            f"{stack.depth('FailedQueue')}, undelivered: {stack.depth('UndeliveredQueue')}"
        )
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


def run(
    stack: Stack,
    keys: list[str],
    bad: set[str],
    repeated: list[str],
    pause: float,
    chance: random.Random,
) -> int:
    """Upload everything while the function is killed now and then; wait for the end."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "x_uncal.fits")
        write_exposure(MODE, path)
        good = path.read_bytes()
    kills, ended = [0], threading.Event()

    def kill() -> None:
        while not ended.wait(chance.expovariate(1 / pause)):
            kills[0] += stack.kill_function(chance)

    killer = threading.Thread(target=kill)
    killer.start()
    again = set(repeated)
    for key in keys:
        stack.upload(key, good[:5000] if key in bad else good)
        if key in again:
            stack.repeat_event(key)
    while stack.depth("UploadedQueue") > 2:
        time.sleep(1)
    ended.set()
    killer.join()
    stack.drain(600)
    return kills[0]


def check(stack: Stack, keys: list[str], bad: set[str], repeated: list[str]) -> list[str]:
    """Say what is not as it should be."""
    expected = {
        key.rpartition("/")[2].replace("_uncal", "_dq_init"): PRODUCT_SIZE
        for key in keys
        if key not in bad
    }
    faults = [] if stack.products() == expected else ["the products are not those expected"]
    said: dict[str, Counter[str]] = {key: Counter() for key in keys}
    for detail in stack.announced:
        said[detail["input"]["key"]][detail["status"]] += 1
    for key in keys:
        once = Counter(["Failed" if key in bad else "Complete"])
        extra = said[key] - once
        if once - said[key] or set(extra) - {"Skipped"} or (extra and key not in repeated):
            reasons = [d["reason"] for d in stack.announced if d["input"]["key"] == key]
            faults.append(f"{key}: announced {dict(said[key])}: {reasons}")
    wanted = {
        "UploadedQueue": 0,
        "FailedQueue": 0,
        "UndeliveredQueue": 0,
        "RejectedQueue": len(bad),
    }
    found = {queue: stack.depth(queue) for queue in wanted}
    if found != wanted:
        faults.append(f"the queues hold {found}, expected {wanted}")
    return faults


if __name__ == "__main__":
    main()
