"""What exposures of known size will cost, before anything is done."""

from collections.abc import Iterable

from handler.s3.parts import Figures
from infra.cost.prices import PRICES, Prices

__all__ = ["exposure_usd", "exposures_usd"]

_COPIED_FROM = 10_000_000
"""Bytes of an exposure of which S3 copies a part by itself."""
_UPLOADED = 22_000_000
"""Bytes of a larger exposure's product that are sent: planes, and what is too short to copy."""
_BYTES_PER_SECOND = 70e6
_LEAST_SECONDS = 0.25
"""Some ten requests of 25 ms, one after another: the model of S3 of tests/model_of_s3."""
_GETS = 7
_MESSAGES = 3
_LOGGED = 4300
"""Bytes that an exposure has logged, its event included."""


def exposure_usd(size: int, memory: int = 1769, prices: Prices = PRICES) -> float:
    """Estimate what one exposure costs, by the requests and seconds that its size takes.

    Parameters
    ----------
    size : int
        Bytes of the exposure.
    memory : int
        MB of the function.
    prices : `~infra.cost.prices.Prices`
        What AWS charges.

    Returns
    -------
    float
        USD, without storage.
    """
    copies = 0
    sent, waited = 2.0 * size, 0.0
    if size >= _COPIED_FROM:
        part = Figures().copied_part(size)
        copies, sent, waited = -(-size // part), float(_UPLOADED), part / Figures().copy_rate
    seconds = _LEAST_SECONDS + sent / _BYTES_PER_SECOND + waited
    uploads = 5 if copies else 0  # three parts, creation, completion
    return (
        (2 + copies + uploads) * prices.put
        + _GETS * prices.get
        + seconds * memory / 1024 * prices.gigabyte_second
        + prices.invocation
        + _MESSAGES * prices.message
        + prices.event
        + _LOGGED / 1e9 * prices.logged_gigabyte
    )


def exposures_usd(sizes: Iterable[int], memory: int = 1769) -> float:
    """Estimate what many cost. Parameters are those of `exposure_usd`."""
    return sum(exposure_usd(size, memory) for size in sizes)
