"""What exposures of known size will cost and take, before anything is done."""

from collections.abc import Iterable
from functools import lru_cache

from infra.cost.invocation import DEFAULT_MEMORY, Invocation, measured

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


def exposures_seconds(sizes: Iterable[int], concurrency: int, encoding: str = "native") -> float:
    """Estimate how long many take, so many of them at the same time and S3 not too slow for it.

    Parameters
    ----------
    sizes : iterable of int
        Bytes of the exposures.
    concurrency : int
        How many are processed at the same time.
    encoding : str
        Of the science pixels, ``native`` or ``float32``.

    Returns
    -------
    float
        Seconds; `infra.cost.simulation` knows of more that slows them.
    """
    return sum(_taken(size, encoding).seconds for size in sizes) / concurrency


@lru_cache(maxsize=100_000)
def _taken(size: int, encoding: str) -> Invocation:
    return measured().of_size(size, encoding)
