"""Faults that S3 may show at any request."""

import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["REFUSALS", "Fault", "Kind", "Rate"]


class Kind(StrEnum):
    """The kind of a fault.

    Amazon S3 API Reference, "Error responses"; User Guide, "How to prevent object overwrites with
    conditional writes" (409 and 412) and the API's note that a copy or a completion that fails
    after it has begun is an error in an answer of status 200. What is cut or lost: botocore 3043,
    s3fs-fuse PR 940.
    """

    SLOW_DOWN = "503 SlowDown"
    INTERNAL = "500 InternalError"
    CONFLICT = "409 ConditionalRequestConflict"
    PRECONDITION = "412 PreconditionFailed"
    ERROR_IN_200 = "an error in an answer of status 200"
    CUT = "the connection is cut before the work"
    LOST = "the answer is lost after the work"
    BROKEN = "the answer breaks off"


REFUSALS = {
    Kind.SLOW_DOWN: (503, "SlowDown"),
    Kind.INTERNAL: (500, "InternalError"),
    Kind.CONFLICT: (409, "ConditionalRequestConflict"),
    Kind.PRECONDITION: (412, "PreconditionFailed"),
    Kind.ERROR_IN_200: (200, "InternalError"),
}
"""Status and error code of the faults that are answered without doing the request."""


@dataclass
class Fault:
    """A fault, its operation and its number of occurrences.

    Attributes
    ----------
    operation : str
        As S3's API calls it.
    kind : `Kind`
        What happens.
    times : float
        How often; infinity for always.
    """

    operation: str
    kind: Kind
    times: float
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def befalls(self, operation: str) -> bool:
        """Return whether a request has the fault, and count it."""
        with self._lock:
            if operation != self.operation or self.times < 1:
                return False
            self.times -= 1
            return True


@dataclass
class Rate:
    """A request rate above which S3 answers SlowDown (3,500 PUT-class requests per second for a prefix)."""

    most: float
    _taken: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def is_exceeded(self) -> bool:
        """Count a request; return whether it exceeds the rate."""
        with self._lock:
            now = time.monotonic()
            self._taken = [then for then in self._taken if now - then < 1]
            if len(self._taken) >= self.most:
                return True
            self._taken.append(now)
            return False
