"""What an invocation takes of everything that is paid for, and what that comes to."""

import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = [
    "DATE",
    "DEFAULT_MEMORY",
    "PRICES",
    "Invocation",
    "Measured",
    "Prices",
    "measured",
]

DATE = "2026-11-25"
_MILLION = 1e6


@dataclass(frozen=True)
class Prices:
    """USD for one of each.

    Attributes
    ----------
    put, get : float
        A PUT-class (PUT, COPY, POST, LIST) and a GET-class request of S3.
    gigabyte_second, invocation : float
        Of Lambda on arm64.
    message : float
        A request to SQS.
    event : float
        A custom event of EventBridge.
    logged_gigabyte : float
        Taken in by CloudWatch Logs.
    trace : float
        Recorded by X-Ray.
    metric, alarm, dashboard : float
        Of CloudWatch, for a month.
    """

    put: float = 0.005 / 1000
    get: float = 0.0004 / 1000
    gigabyte_second: float = 0.0000133334
    invocation: float = 0.20 / _MILLION
    message: float = 0.40 / _MILLION
    event: float = 1.00 / _MILLION
    logged_gigabyte: float = 0.50
    trace: float = 5.00 / _MILLION
    metric: float = 0.30
    alarm: float = 0.10
    dashboard: float = 3.00


PRICES = Prices()

DEFAULT_MEMORY = 512
"""MB that the template gives the function (a test compares them)."""
_LAMBDA_LINES = 330
"""Bytes that Lambda itself logs of an invocation: START, END, REPORT."""
_MESSAGES = 4
"""SQS requests of an exposure that arrives: sent, received, hidden, deleted."""
_COUNTED = ("puts", "gets", "events", "logged", "event_bytes")
_OF_AN_UPLOAD = 1
"""Events of EventBridge: S3 tells it of an upload, which is paid for like one of one's own."""
_FILE = Path(__file__).parent / "measured.json"


@dataclass(frozen=True)
class Invocation:
    """What one warm invocation took, as ``make cost`` measured it.

    Attributes
    ----------
    exposure, encoding, way : str
        What it was: the class of exposure; native or float32; forward, repeated or reprocessed.
    size : int
        Bytes of the exposure.
    memory : int
        MB of the function.
    seconds, cpu : float
        How long it took, and how much of that the CPU worked.
    puts, gets : int
        Requests to S3, PUT-class and GET-class.
    events : int
        Sent to EventBridge.
    logged : int
        Bytes of the function's own log lines.
    event_bytes : int
        Bytes of the processing event, which is logged, too.
    peak_mib : float
        Memory of the process.
    """

    exposure: str
    encoding: str
    way: str
    size: int
    memory: int
    seconds: float
    cpu: float
    puts: int
    gets: int
    events: int
    logged: int
    event_bytes: int
    peak_mib: float

    @property
    def all_logged(self) -> int:
        """Bytes that CloudWatch Logs takes in: Lambda's own lines are among them."""
        return self.logged + self.event_bytes + _LAMBDA_LINES

    def parts(self, prices: Prices = PRICES) -> dict[str, float]:
        """USD, by what is paid for."""
        held = self.seconds * self.memory / 1024
        events = self.events + (0 if self.way == "reprocessed" else _OF_AN_UPLOAD)
        return {
            "S3 PUT": self.puts * prices.put,
            "S3 GET": self.gets * prices.get,
            "Lambda": held * prices.gigabyte_second + prices.invocation,
            "SQS": _MESSAGES * prices.message,
            "EventBridge": events * prices.event,
            "Logs": self.all_logged / 1e9 * prices.logged_gigabyte,
        }

    def usd(self, prices: Prices = PRICES) -> float:
        """USD in all, without storage."""
        return sum(self.parts(prices).values())

    def with_memory(self, memory: int) -> "Invocation":
        """What it would take with more memory: the same time, for it waits (docs/cost.md)."""
        return replace(self, memory=memory)


@dataclass(frozen=True)
class Measured:
    """What ``make cost`` measured.

    Attributes
    ----------
    date : str
        When.
    cold_seconds : float
        What a container's first invocation takes more than those that follow.
    invocations : tuple of `Invocation`
        One of every class, encoding and way.
    others : tuple of `Invocation`
        Forward, with other memories than the template's.
    """

    date: str
    cold_seconds: float
    invocations: tuple[Invocation, ...]
    others: tuple[Invocation, ...]

    def one(self, exposure: str, encoding: str = "native", way: str = "forward") -> Invocation:
        """Return one of them."""
        wanted = (exposure, encoding, way)
        return next(i for i in self.invocations if (i.exposure, i.encoding, i.way) == wanted)

    def of_size(self, size: int, encoding: str = "native", way: str = "forward") -> Invocation:
        """Return what an exposure of so many bytes takes: between the two nearest, or beyond."""
        found = (i for i in self.invocations if (i.encoding, i.way) == (encoding, way))
        known = sorted(found, key=lambda invocation: invocation.size)
        pairs = list(pairwise(known))
        below, above = next((pair for pair in pairs if size <= pair[1].size), pairs[-1])
        share = max((size - below.size) / (above.size - below.size), 0.0)

        def between(name: str) -> float:
            low, high = getattr(below, name), getattr(above, name)
            return float(low + share * (high - low))

        values: dict[str, Any] = {name: between(name) for name in ("seconds", "cpu", "peak_mib")}
        values |= {name: round(between(name)) for name in _COUNTED}
        return replace(below, exposure=f"{size / 1e6:.3g} MB", size=size, **values)

    def write(self, path: Path = _FILE) -> None:
        """Keep it beside this file."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


@cache
def measured() -> Measured:
    """Return what was measured last; cached, for it is a file of the package."""
    found: dict[str, Any] = json.loads(_FILE.read_text())
    for name in ("invocations", "others"):
        found[name] = tuple(Invocation(**row) for row in found[name])
    return Measured(**found)
