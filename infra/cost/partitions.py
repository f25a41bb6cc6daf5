"""How many requests a bucket takes: S3 counts them by partition, and divides what is too busy."""

from dataclasses import dataclass

__all__ = ["Partitions"]


@dataclass(slots=True)
class Partitions:
    """The partitions of a bucket, over which keys are spread evenly.

    Attributes
    ----------
    rate : int
        Requests that one takes in a second.
    split_after : float
        Seconds with refused requests after which there are twice as many.
    count : int
        How many there are.
    """

    rate: int
    split_after: float
    count: int = 1
    _second: int = -1
    _taken: int = 0
    _has_refused: bool = False
    _refused_seconds: int = 0

    def refused(self, now: float, requests: int) -> int:
        """Ask for some at once; returns how many are answered with SlowDown."""
        if int(now) != self._second:
            self._begin(int(now))
        taken = min(requests, self.rate * self.count - self._taken)
        self._taken += taken
        self._has_refused |= taken < requests
        return requests - taken

    def _begin(self, second: int) -> None:
        self._refused_seconds += self._has_refused
        if self._refused_seconds >= self.split_after:
            self.count, self._refused_seconds = self.count * 2, 0
        self._second, self._taken, self._has_refused = second, 0, False
