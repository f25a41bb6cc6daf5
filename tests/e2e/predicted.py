"""Whether the simulation of infra/cost is true: it predicts how long the soak takes on MiniStack.

What an invocation takes there is measured before, class by class and in peace; then the simulation
has the soak's arrivals, its mix and its kills put through a queue of two at a time, and says when
the last exposure is done.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from infra.cost.invocation import Invocation
from infra.cost.limits import Limits
from infra.cost.simulation import Setup, simulate
from tests.e2e.stack import PARAMETERS, Stack

AT_A_TIME = int(PARAMETERS["MaximumConcurrency"])
TOLERANCE = 0.15
_BACKOFF = 1.0
"""Seconds that MiniStack's poller rests after an invocation that ended in an error."""
_SEEDS = 20
_MINISTACK = Limits(
    first_pollers=AT_A_TIME, more_pollers=0, account=10**6, puts=10**9, gets=10**9, idle=10**6
)
_LOOK = 0.05


@dataclass(frozen=True)
class Taken:
    """What invocations take there, in seconds: by class, and the first after a kill more."""

    by_class: Mapping[str, float]
    cold: float


def measured(stack: Stack, bodies: Mapping[str, bytes], counts: Mapping[str, int]) -> Taken:
    """Measure, with nothing else going on. `counts` says how many of each class; also of `repeated`.

    Repeated are events of the first class, whose products are there by then.
    """
    first = next(iter(bodies))
    _drained(stack, lambda: _upload(stack, "warm-up", bodies[first], 2 * AT_A_TIME))
    by_class = {}
    for name, body in bodies.items():
        seconds = _drained(stack, lambda n=name, b=body: _upload(stack, n, b, counts[n]))  # type: ignore[misc]
        by_class[name] = AT_A_TIME * seconds / counts[name]
    again = _drained(stack, lambda: _repeat(stack, first, counts["repeated"]))
    by_class["repeated"] = AT_A_TIME * again / counts["repeated"]
    return Taken(by_class, _cold(stack, bodies[first]) - by_class[first])


def predicted(
    taken: Taken, shares: Mapping[str, int], arrivals: list[float], pause: float
) -> float:
    """Seconds after which none is left, the median of some seeds."""
    works = tuple(
        Invocation(name, "", "", 0, 1, taken.by_class[name], 0.0, 0, 0, 0, 0, 0, 0.0)
        for name in shares
    )
    setup = Setup(
        works, tuple(shares.values()), concurrency=AT_A_TIME,
        cold_seconds=taken.cold + _BACKOFF, kill_pause=pause,
        visibility=float(PARAMETERS["VisibilityTimeout"]),
    )  # fmt: skip
    return median(simulate(arrivals, setup, _MINISTACK, seed).seconds for seed in range(_SEEDS))


def _drained(stack: Stack, fill: Callable[[], None]) -> float:
    """Fill the queue while nobody takes from it; returns the seconds that it takes to empty it."""
    with stack.paused():
        fill()
        while stack.depth("UploadedQueue") == 0:
            time.sleep(_LOOK)
    started = time.monotonic()
    while stack.depth("UploadedQueue"):
        time.sleep(_LOOK)
    return time.monotonic() - started


def _upload(stack: Stack, name: str, body: bytes, count: int) -> None:
    for number in range(count):
        stack.upload(f"measured/{name}-{number}_uncal.fits".replace(" ", "-"), body)


def _repeat(stack: Stack, name: str, count: int) -> None:
    for number in range(count):
        stack.repeat_event(f"measured/{name}-{number}_uncal.fits".replace(" ", "-"))


def _cold(stack: Stack, body: bytes) -> float:
    """Seconds of the first invocations after all containers were killed."""

    def fill() -> None:
        _upload(stack, "cold", body, AT_A_TIME)
        for worker in stack.workers():
            worker.kill()

    return _drained(stack, fill)
