"""What exposures of known size will cost and take, before anything is done."""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from math import inf

from infra.cost.invocation import DEFAULT_MEMORY, Invocation, measured
from infra.cost.limits import AWS, Limits

__all__ = ["exposure_usd", "exposures_seconds", "exposures_usd"]


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
    limits : `~infra.cost.limits.Limits`
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
