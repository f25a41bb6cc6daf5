"""What exposures of known size will cost and take, before anything is done."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import inf

from infra.cost.prices import DEFAULT_MEMORY, PRICES, Invocation, Prices, measured

__all__ = [
    "AWS",
    "DROPPED",
    "MONTHLY",
    "PER_DAY",
    "Limits",
    "Monthly",
    "exposure_usd",
    "exposures_seconds",
    "exposures_usd",
]

PER_DAY = 500
"""Exposures of 92 MB that the observatory takes: 46 GB, four fifths of what two contacts a day
bring down, each at least 28.6 GB (JWST User Documentation, "JWST Solid State Recorder")."""


@dataclass(frozen=True)
class Limits:
    """The rates that AWS allows.

    Attributes
    ----------
    first_pollers : int
        Messages that Lambda's poller has in work as soon as a queue is not empty.
    more_pollers : float
        By how many more a second, while messages wait ("Configuring scaling behavior for SQS
        event source mappings", AWS Lambda Developer Guide: five at first, 300 more a minute).
    account : int
        Invocations at the same time in an account's region, all functions together ("Lambda
        quotas"; 1,000 unless more was asked for).
    puts : int
        PUT-class requests a second that S3 takes of one partition of a bucket ("Best practices
        design patterns: optimizing Amazon S3 performance", Amazon S3 User Guide).
    split_after : float
        Seconds after which S3 has doubled that for a busy bucket: 15 to 30 minutes according to
        errorreference.com/errors/aws/SlowDown; AWS says "gradually".
    kept : float
        Seconds after which SQS drops a message: the longest retention, as the template sets it.
    """

    first_pollers: int = 5
    more_pollers: float = 300 / 60
    account: int = 1000
    puts: int = 3500
    split_after: float = 20 * 60
    kept: float = 14 * 86_400


AWS = Limits()
DROPPED = "SQS drops what waits for 14 days: send them in parts."
"""What to say of exposures whose last would wait for longer than that."""

_LONG_POLLS = 5 * 3 * 60 * 24 * 30.4
"""Of a queue that is empty: five pollers, each asking for 20 seconds ("Configuring scaling behavior
for SQS event source mappings", AWS Lambda Developer Guide)."""


@dataclass(frozen=True)
class Monthly:
    """How many there are in a stack (tests compare them with the template and with the code).

    Attributes
    ----------
    metrics, alarms, dashboards, polled_queues : int
        Of CloudWatch, and queues that drive the function.
    """

    metrics: int = 10
    alarms: int = 11
    dashboards: int = 1
    polled_queues: int = 3

    def parts(self, prices: Prices = PRICES) -> dict[str, float]:
        """USD a month, by what is paid for."""
        return {
            "metrics": self.metrics * prices.metric,
            "alarms": self.alarms * prices.alarm,
            "dashboard": self.dashboards * prices.dashboard,
            "polling of empty queues": self.polled_queues * _LONG_POLLS * prices.message,
        }


MONTHLY = Monthly()


@lru_cache(maxsize=100_000)  # exposures come by the million, and in few sizes
def exposure_usd(size: int, memory: int = DEFAULT_MEMORY, encoding: str = "native") -> float:
    """Estimate what one exposure costs: between the two nearest sizes that were measured.

    Parameters
    ----------
    size : int
        Bytes of the exposure.
    memory : int
        MB of the function.
    encoding : str
        Of the science pixels, ``native`` or ``float32``.

    Returns
    -------
    float
        USD, without storage.
    """
    return _taken(size, encoding).with_memory(memory).usd()


def exposures_usd(
    sizes: Iterable[int], memory: int = DEFAULT_MEMORY, encoding: str = "native"
) -> float:
    """Estimate what many cost. Parameters are those of `exposure_usd`."""
    return sum(exposure_usd(size, memory, encoding) for size in sizes)


def exposures_seconds(
    sizes: Iterable[int], concurrency: int, encoding: str = "native", limits: Limits = AWS
) -> float:
    """Estimate how long many take that wait in a queue together.

    The slower of two limits decides at every moment: the function's concurrency, which Lambda's
    poller raises step by step, and the PUT requests that the bucket takes, which S3 doubles in
    steps of 20 minutes. A container's first invocation takes longer; that is added once.

    Parameters
    ----------
    sizes : iterable of int
        Bytes of the exposures.
    concurrency : int
        How many are processed at the same time.
    encoding : str
        Of the science pixels, ``native`` or ``float32``.
    limits : `~infra.cost.estimate.Limits`
        The limits of AWS.

    Returns
    -------
    float
        Seconds until the last one is complete.
    """
    counts = Counter(sizes)  # exposures come by the million, and in few sizes
    number = counts.total()
    if not number:
        return 0.0
    taken = [(_taken(size, encoding), count) for size, count in counts.items()]
    seconds = sum(one.seconds * count for one, count in taken) / number
    puts = sum(one.puts * count for one, count in taken) / number
    most, time, left = min(concurrency, limits.account), 0.0, float(number)
    while True:
        pollers = min(most, limits.first_pollers + limits.more_pollers * time)
        doublings = time // limits.split_after
        function, s3 = pollers / seconds, limits.puts * 2.0**doublings / puts
        rate: float = min(function, s3)
        if pollers < most:
            step = 1.0
        elif s3 < function:
            step = (doublings + 1) * limits.split_after - time
        else:
            step = inf  # nothing changes any more
        if left <= rate * step:
            return time + left / rate + seconds + measured().cold_seconds
        time, left = time + step, left - rate * step


@lru_cache(maxsize=100_000)
def _taken(size: int, encoding: str) -> Invocation:
    return measured().of_size(size, encoding)
