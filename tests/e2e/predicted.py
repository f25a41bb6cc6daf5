"""Whether the simulation of infra/cost is true: it predicts how long a queue takes on MiniStack.

What an invocation takes there is measured class by class and in peace. Then hundreds of exposures of
all classes wait in the queue, and are processed while the function is killed now and then. The
simulation has the same mix, the same kills and two at a time, and must say how long that takes.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from handler.batches import GRACE
from infra.cost.invocation import Invocation
from infra.cost.limits import Limits
from infra.cost.simulation import Setup, simulate
from tests.e2e.stack import PARAMETERS, Stack

AT_A_TIME = int(PARAMETERS["MaximumConcurrency"])
TOLERANCE = 0.15
CALIBRATED = {"small": 200, "multipart": 30, "with blocks": 16, "bad": 100}
"""How many of each class are measured in peace; and as many events of the first are repeated."""
MIXED = {"small": 500, "multipart": 60, "with blocks": 30, "bad": 60, "repeated": 100}
_PAUSE = 12.0
"""Mean seconds between two kills."""
_LAST = 60
"""Messages from which on nobody is killed: a message that is killed late is all that is waited for."""
_BACKOFF = 1.0
"""Seconds that MiniStack's poller rests after an invocation that ended in an error."""
_BUSY, _STARTS = 120, 3
_SEEDS = 20
_LOOK = 0.05
_MINISTACK = Limits(
    first_pollers=AT_A_TIME, more_pollers=0, account=10**6, puts=10**9, gets=10**9, idle=10**6
)


@dataclass(frozen=True)
class Taken:
    """What invocations take there, in seconds: by class, and what is lost by a start."""

    by_class: Mapping[str, float]
    start: float


def compare(stack: Stack, bodies: Mapping[str, bytes], chance: random.Random) -> list[str]:
    """Hold what is simulated against what happens, and print both; says if they differ too much."""
    taken = measured(stack, bodies)
    seconds, kills = happened(stack, bodies, chance)
    simulated = predicted(taken, kills)
    off = simulated / seconds - 1
    each = ", ".join(f"{name} {value:.2f}" for name, value in taken.by_class.items())
    print(
        f"seconds of an invocation: {each}; lost by a start {taken.start:.1f}\n"
        f"{sum(MIXED.values())} messages, {len(kills)} kills: took {seconds:.0f} s, "
        f"simulated {simulated:.0f} s ({off:+.1%})",
        flush=True,
    )
    if abs(off) > TOLERANCE:
        return [f"the simulation is off by {off:+.0%}, expected {TOLERANCE:.0%} at most"]
    return []


def measured(stack: Stack, bodies: Mapping[str, bytes]) -> Taken:
    """Measure each class, with nothing else going on."""
    first = next(iter(bodies))
    _drained(stack, lambda: _upload(stack, "warm-up", bodies[first], 2 * AT_A_TIME))
    by_class = {}
    for name, count in CALIBRATED.items():
        seconds, _ = _drained(stack, _uploading(stack, name, bodies[name], count))
        by_class[name] = AT_A_TIME * seconds / (count - 1)
    count = CALIBRATED[first]
    seconds, _ = _drained(stack, lambda: _repeat(stack, first, count))
    by_class["repeated"] = AT_A_TIME * seconds / (count - 1)
    return Taken(by_class, _lost_by_a_start(stack, bodies[first], by_class[first]))


def happened(
    stack: Stack, bodies: Mapping[str, bytes], chance: random.Random
) -> tuple[float, list[float]]:
    """Have the mix processed, and containers killed; returns the seconds, and when each was killed."""
    order = [name for name, count in MIXED.items() for _ in range(count)]
    chance.shuffle(order)

    def fill() -> None:
        for number, name in enumerate(order):
            if name == "repeated":
                stack.repeat_event(_key("small", number % CALIBRATED["small"]))
            else:
                stack.upload(_key(f"mixed-{name}", number), bodies[name])

    return _drained(stack, fill, chance)


def predicted(taken: Taken, kills: Sequence[float]) -> float:
    """Seconds that the mix takes, the median of some seeds: who is killed is chance."""
    works = tuple(
        Invocation(name, "", "", 0, 1, taken.by_class[name], 0.0, 0, 0, 0, 0, 0, 0.0)
        for name in MIXED
    )
    setup = Setup(
        works, tuple(MIXED.values()), concurrency=AT_A_TIME, kills=tuple(kills),
        cold_seconds=taken.start + AT_A_TIME * _BACKOFF, warm=AT_A_TIME,
        visibility=float(PARAMETERS["Timeout"]) + GRACE,
    )  # fmt: skip
    arrivals = [0.0] * sum(MIXED.values())
    return median(simulate(arrivals, setup, _MINISTACK, seed).seconds for seed in range(_SEEDS))


def _drained(
    stack: Stack, fill: Callable[[], None], chance: random.Random | None = None
) -> tuple[float, list[float]]:
    """Fill the queue while nobody takes from it; then have it emptied, with kills if by chance.

    Returns the seconds from the first that is done until the last (how soon MiniStack notices that a
    queue goes on is not counted), and when somebody was killed.
    """
    with stack.paused():
        fill()
        full = 0
        while full == 0 or full != stack.depth("UploadedQueue"):
            full = stack.depth("UploadedQueue")
            time.sleep(1)
    while stack.depth("UploadedQueue") == full:
        time.sleep(_LOOK)
    started, kills = time.monotonic(), []
    following = chance.expovariate(1 / _PAUSE) if chance else float("inf")
    while left := stack.depth("UploadedQueue"):
        now = time.monotonic() - started
        if chance and now >= following and left > _LAST:
            if stack.kill_function(chance):
                kills.append(now)
            following = now + chance.expovariate(1 / _PAUSE)
        time.sleep(_LOOK)
    return time.monotonic() - started, kills


def _key(name: str, number: int) -> str:
    return f"measured/{name}-{number}_uncal.fits".replace(" ", "-")


def _upload(stack: Stack, name: str, body: bytes, count: int) -> None:
    for number in range(count):
        stack.upload(_key(name, number), body)


def _uploading(stack: Stack, name: str, body: bytes, count: int) -> Callable[[], None]:
    return lambda: _upload(stack, name, body, count)


def _repeat(stack: Stack, name: str, count: int) -> None:
    for number in range(count):
        stack.repeat_event(_key(name, number))


def _lost_by_a_start(stack: Stack, body: bytes, small: float) -> float:
    """Seconds of work that are lost by a start, while the other container is busy.

    A start unpacks the bundle in MiniStack's own process, which serves S3, too: the other one waits.
    """

    def fill() -> None:
        _upload(stack, "start", body, _BUSY)
        stack.workers()[0].kill()

    lost = (AT_A_TIME * _drained(stack, fill)[0] - (_BUSY - 1) * small for _ in range(_STARTS))
    return median(lost)
