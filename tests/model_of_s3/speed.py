"""The speed of S3."""

import math
import threading
import time
from dataclasses import dataclass, field

__all__ = ["AS_MEASURED", "Speed"]


@dataclass
class Speed:
    """The speed of the server; unlimited by default.

    Attributes
    ----------
    latency : float
        Seconds that every request takes.
    copy_rate : float
        Bytes a second of one copy request, which is silent until it is done: s3fs-fuse PR 940 (4 GB
        in 72 s), sftpgo 898, aws-sdk-go-v2 712 (1 GB in 15 s).
    shared_rate : float
        Bytes a second of all uploads and reads together: Lambda's network, 60 to 75 MB/s.
    """

    latency: float = 0.0
    copy_rate: float = math.inf
    shared_rate: float = math.inf
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Wait for the time of any request."""
        time.sleep(self.latency)

    def copy(self, length: int) -> None:
        """Wait for the time of a copy."""
        time.sleep(length / self.copy_rate)

    def move(self, length: int) -> None:
        """Wait for the transfer of bytes, after all earlier transfers."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + length / self.shared_rate
            wait = self._free_at - now
        time.sleep(wait)


AS_MEASURED = {"latency": 0.025, "copy_rate": 60e6, "shared_rate": 70e6}
