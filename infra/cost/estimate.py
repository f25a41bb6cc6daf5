"""Estimates of the cost and duration of many exposures, from their sizes and AWS's limits."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from infra.cost.prices import PRICES, measured

PER_DAY = 500
"""Exposures of 92 MB that JWST takes: 46 GB, four fifths of two contacts of at least 28.6 GB a day
(JWST User Documentation, "JWST Solid State Recorder")."""


@dataclass(frozen=True)
class Limits:
    """Quotas of AWS: how fast exposures are processed, how long SQS keeps messages."""

    # Messages in work when a queue fills, and how many more a second: "Configuring scaling
    # behavior for SQS event source mappings", AWS Lambda Developer Guide (5, then 300 a minute).
    first_pollers: int = 5
    more_pollers: float = 300 / 60
    # Concurrent executions of an account in a region: "Lambda quotas".
    account: int = 1000
    # PUT-class requests a second of one partition: "Best practices design patterns: optimizing
    # Amazon S3 performance", Amazon S3 User Guide.
    puts: int = 3500
    # Seconds until S3 has doubled that for a busy bucket. AWS says "gradually",
    # errorreference.com/errors/aws/SlowDown 15 to 30 minutes.
    split_after: float = 20 * 60
    # Seconds until SQS deletes a message: its longest retention, which the template sets.
    kept: float = 14 * 86_400


AWS = Limits()
DROPPED = "SQS deletes messages after 14 days: submit the exposures in several parts."
"""Warning for a number of exposures that takes longer than SQS keeps messages."""

_LONG_POLLS = 5 * 3 * 60 * 24 * 30.4
"""Requests a month to an empty queue: five pollers, each of which waits for 20 seconds."""


@dataclass(frozen=True)
class Monthly:
    """Numbers of resources in a stack with a monthly fee (tests compare them with the template)."""

    metrics: int = 10
    alarms: int = 12
    dashboards: int = 1
    polled_queues: int = 3  # queues that invoke the function

    def parts(self) -> dict[str, float]:
        """Return USD a month by kind of resource."""
        return {
            "metrics": self.metrics * PRICES.metric,
            "alarms": self.alarms * PRICES.alarm,
            "dashboard": self.dashboards * PRICES.dashboard,
            "polling of empty queues": self.polled_queues * _LONG_POLLS * PRICES.message,
        }


MONTHLY = Monthly()


def exposure_usd(size: int, product: str = "native") -> float:
    """Estimate the cost in USD of processing an upload of `size` bytes, without storage."""
    return measured().of_size(size, product).usd()


def exposures_usd(sizes: Iterable[int], product: str = "native") -> float:
    """Estimate the cost in USD of processing uploads of these sizes (bytes), without storage."""
    # A million exposures have few different sizes.
    return sum(count * exposure_usd(size, product) for size, count in Counter(sizes).items())


def exposures_seconds(
    sizes: Iterable[int], concurrency: int, product: str = "native", limits: Limits = AWS
) -> float:
    """Estimate the seconds until exposures that are submitted together are all processed.

    `sizes` are in bytes; without any, 0. At most `concurrency`, or `limits.account` if less, run at
    a time, and S3 limits PUT-class requests. `product` is native, float32 or virtual.
    """
    counts = Counter(sizes)
    number = counts.total()
    if not number:
        return 0.0
    estimates = [(measured().of_size(size, product), count) for size, count in counts.items()]
    seconds = sum(one.seconds * count for one, count in estimates) / number
    puts = sum(one.puts * count for one, count in estimates) / number
    most = min(concurrency, limits.account)
    return last_begins(number, seconds, puts, most, limits) + seconds + measured().cold_seconds


def last_begins(number: int, seconds: float, puts: float, most: int, limits: Limits) -> float:
    """Estimate the seconds until the last of `number` exposures begins, `most` at a time.

    Each takes `seconds` and `puts` PUT-class requests. `limits` may allow fewer than `most`.
    """
    time, left = 0.0, float(number)
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
            step = inf  # both limits are constant from here on
        if left <= rate * step:
            return time + left / rate
        time, left = time + step, left - rate * step
