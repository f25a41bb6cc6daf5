"""Prices of AWS, and the cost of one invocation as ``make cost`` measured it."""

import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

DATE = "2026-11-25"
"""Date on which the prices were read from AWS's price list."""


@dataclass(frozen=True)
class Prices:
    """Prices of AWS in us-east-1 on `DATE`, in USD for one unit of what a field names."""

    put: float = 0.005 / 1000  # S3: PUT, COPY, POST, LIST
    get: float = 0.0004 / 1000  # S3: GET, HEAD and the other reads
    gigabyte_second: float = 0.0000133334  # Lambda on arm64
    invocation: float = 0.20 / 1e6
    message: float = 0.40 / 1e6  # a request to SQS
    event: float = 1.00 / 1e6  # a custom event of EventBridge
    logged_gigabyte: float = 0.50  # ingested by CloudWatch Logs
    trace: float = 5.00 / 1e6  # recorded by X-Ray
    metric: float = 0.30  # CloudWatch, a month
    alarm: float = 0.10  # a month
    dashboard: float = 3.00  # a month
    stored_gigabyte: float = 0.023  # S3 Standard, a month, the first 50 TB
    sent_gigabyte: float = 0.09  # from AWS to the internet, the first 10 TB a month


PRICES = Prices()

_LAMBDA_LINES = 330
"""Bytes of the lines that Lambda logs for an invocation: START, END, REPORT."""
_MESSAGES = 4
"""SQS requests for an exposure: send, receive, change visibility, delete."""
_COUNTS = ("puts", "gets", "events", "logged", "event_bytes", "stored")
_FILE = Path(__file__).parent / "measured.json"


@dataclass(frozen=True)
class Invocation:
    """The resources that one invocation of a warm function uses, measured or estimated."""

    exposure: str  # class of exposure, such as "92 MB"
    product: str  # native or float32 (the pixels of assembled products), or virtual
    # Forward (an upload), repeated (the event of a processed upload again) or reprocessed (a
    # rebuild).
    way: str
    size: int  # bytes of the exposure
    memory: int  # MB of the function
    seconds: float
    cpu: float  # seconds of CPU time
    puts: int  # PUT-class requests to S3
    gets: int  # GET and HEAD requests to S3
    events: int  # sent to EventBridge
    logged: int  # bytes of the function's own log lines
    event_bytes: int  # of the processing event, which is logged, too
    stored: int  # bytes of the product that was written; 0 if none was
    peak_mib: float

    @property
    def all_logged(self) -> int:
        """Bytes that CloudWatch Logs ingests for the invocation, with Lambda's own lines."""
        return self.logged + self.event_bytes + _LAMBDA_LINES

    def parts(self) -> dict[str, float]:
        """Return the cost of the invocation in USD by service, without storage."""
        gigabyte_seconds = self.seconds * self.memory / 1024
        # S3's event of an upload costs as much as a custom one: aws.amazon.com/eventbridge/pricing
        events = self.events + (self.way != "reprocessed")
        return {
            "S3 PUT": self.puts * PRICES.put,
            "S3 GET": self.gets * PRICES.get,
            "Lambda": gigabyte_seconds * PRICES.gigabyte_second + PRICES.invocation,
            "SQS": _MESSAGES * PRICES.message,
            "EventBridge": events * PRICES.event,
            "Logs": self.all_logged / 1e9 * PRICES.logged_gigabyte,
        }

    def usd(self) -> float:
        """Return the cost of the invocation in USD, without storage."""
        return sum(self.parts().values())

    def usd_a_month(self) -> float:
        """Return the cost of keeping the product for a month, in USD."""
        return self.stored / 1e9 * PRICES.stored_gigabyte


@dataclass(frozen=True)
class Measured:
    """The content of measured.json: all measured invocations."""

    date: str
    cold_seconds: float  # by which the first invocation of a container takes longer
    invocations: tuple[Invocation, ...]  # one of every class, product and way
    others: tuple[Invocation, ...]  # forward, with other memory than the template's

    def one(self, exposure: str, product: str = "native", way: str = "forward") -> Invocation:
        """Return the one of `invocations` with these values; `StopIteration` without one."""
        key = (exposure, product, way)
        return next(i for i in self.invocations if (i.exposure, i.product, i.way) == key)

    def of_size(self, size: int, product: str = "native") -> Invocation:
        """Estimate the invocation for an upload of `size` bytes, between measured sizes.

        Above the largest measured size it is extrapolated; below the smallest, it has the values of
        the smallest. `product` is native, float32 or virtual.
        """
        found = (i for i in self.invocations if (i.product, i.way) == (product, "forward"))
        pairs = list(pairwise(sorted(found, key=lambda one: one.size)))
        below, above = next((pair for pair in pairs if size <= pair[1].size), pairs[-1])
        share = max((size - below.size) / (above.size - below.size), 0.0)
        values: dict[str, Any] = {}
        for name in ("seconds", "cpu", "peak_mib", *_COUNTS):
            low, high = getattr(below, name), getattr(above, name)
            value = low + share * (high - low)
            values[name] = round(value) if name in _COUNTS else value
        return replace(below, exposure=f"{size / 1e6:.3g} MB", size=size, **values)

    def write(self) -> None:
        """Write the measurements to measured.json."""
        _FILE.write_text(json.dumps(asdict(self), indent=1) + "\n")


@cache
def measured() -> Measured:
    """Return the measurements in measured.json."""
    found: dict[str, Any] = json.loads(_FILE.read_text())
    for name in ("invocations", "others"):
        found[name] = tuple(Invocation(**row) for row in found[name])
    return Measured(**found)
