"""How exposures arrive: when each message is in the queue, in seconds."""

import random
from collections.abc import Iterator

__all__ = ["PER_DAY", "at_once", "downlink", "steady"]

PER_DAY = 500
"""Exposures of 92 MB that the observatory takes: 46 GB, four fifths of what two contacts a day
bring down, each at least 28.6 GB (JWST User Documentation, "JWST Solid State Recorder")."""
_CONTACTS = 2
_SENT_PER_SECOND = 2500.0
"""Requests that `infra.campaign.submit` sends, where each call takes 25 ms: 50 batches of ten,
eight at a time, and then it is written down how far that has come."""


def steady(number: int, chance: random.Random, per_day: float = PER_DAY) -> Iterator[float]:
    """One after another at random, so many a day."""
    time = 0.0
    for _ in range(number):
        time += chance.expovariate(per_day / 86_400)
        yield time


def downlink(number: int = PER_DAY // _CONTACTS) -> Iterator[float]:
    """All that a contact has brought down, in the archive at the same moment."""
    yield from (0.0 for _ in range(number))


def at_once(number: int, per_second: float = _SENT_PER_SECOND) -> Iterator[float]:
    """As many as are asked for, as fast as they can be sent: a backfill, a reprocessing."""
    yield from (n / per_second for n in range(number))
