"""How far it goes: exposures, a queue, Lambda and S3, event by event.

What is reckoned with: the poller that scales up, the account's concurrency, containers that start
and end, S3's rate of requests per partition and its SlowDown answers, the client's attempts, the
message's attempts. An invocation takes what ``make cost`` measured on the model of S3. Everything
random comes from one seed.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from infra.cost.invocation import Invocation
from infra.cost.limits import AWS, Limits
from infra.cost.partitions import Partitions
from infra.cost.prices import PRICES

__all__ = ["Outcome", "Setup", "simulate"]

_TICK = 0.2
"""Seconds between two looks whether the poller may take more: it gains one meanwhile."""
_LEAD = 0.3
"""Part of an invocation after which its parts are asked for: the rest is waiting for them."""
_READ_BUCKETS = 2
"""Reads go to the raw bucket and to the products', about as many to each."""
_LONGEST_RETRY = 900.0
_LONGEST_BACKOFF = 20.0


@dataclass(frozen=True)
class Setup:
    """What an operator may set, and what is processed.

    Attributes
    ----------
    works : tuple of `~infra.cost.invocation.Invocation`
        What an exposure may take; each is one of these, as often as `shares` have it.
    shares : tuple of float
        How often each comes.
    concurrency : int
        MaximumConcurrency, or BackfillConcurrency.
    cold_seconds : float
        What the first invocation of a container takes more.
    warm : int
        Containers that there are already.
    retry_delay : float
        Seconds before a message whose first attempt failed comes back.
    receives : int
        Attempts of a message.
    kills : tuple of float
        When some container is killed, at work or not.
    visibility : float
        Seconds after which the message of a killed invocation comes back: the function has set it,
        to a minute after the invocation would end (handler.batches).
    """

    works: tuple[Invocation, ...]
    shares: tuple[float, ...] = (1.0,)
    concurrency: int = 20
    cold_seconds: float = 0.0
    warm: int = 0
    retry_delay: float = 30.0
    receives: int = 5
    kills: tuple[float, ...] = ()
    visibility: float = 960.0


@dataclass
class Outcome:
    """What became of it.

    Attributes
    ----------
    exposures, complete, failed : int
        How many arrived; how many were processed; how many have no attempt left.
    seconds : float
        From the first that arrived until none was left.
    oldest : float
        The longest that a message waited for its first attempt, in seconds.
    invocations, cold_starts, most_at_once : int
        Of the function.
    slow_downs : int
        Requests that S3 did not take, and that were tried again.
    throttles : int
        Invocations that Lambda did not take, and that were tried again.
    kills : int
        Containers that were killed, at work or not.
    usd : float
        What all of it costs, without storage.
    """

    exposures: int = 0
    complete: int = 0
    failed: int = 0
    seconds: float = 0.0
    oldest: float = 0.0
    invocations: int = 0
    cold_starts: int = 0
    most_at_once: int = 0
    slow_downs: int = 0
    throttles: int = 0
    kills: int = 0
    usd: float = 0.0


def simulate(
    arrivals: Iterable[float], setup: Setup, limits: Limits = AWS, seed: int = 0
) -> Outcome:
    """Let exposures arrive and be processed until none is left.

    Parameters
    ----------
    arrivals : iterable of float
        Seconds at which they arrive, in order (`infra.cost.arrivals`).
    setup : `Setup`
        What is processed, and how it is set.
    limits : `~infra.cost.limits.Limits`
        AWS's.
    seed : int
        Of everything random.

    Returns
    -------
    `Outcome`
        What became of them.

    Raises
    ------
    ValueError
        If nothing could ever begin.
    """
    if setup.concurrency < 1 or limits.account - limits.others < 1:
        raise ValueError(f"concurrency {setup.concurrency} of an account with {limits}")
    run = _Run(setup, limits, random.Random(seed))  # noqa: S311
    run.until_none_is_left(iter(arrivals))
    return run.outcome


@dataclass(slots=True, eq=False)
class _Message:
    """An exposure that waits or is in work."""

    work: Invocation
    arrived: float
    attempts: int = 0


@dataclass(slots=True, eq=False)
class _Attempt:
    """An invocation at work; one that was killed goes on in no event."""

    message: _Message
    begun: float
    cold: float
    is_alive: bool = True
    refused: int = 0
    """Requests that S3 has not taken yet."""
    tries: int = 0
    """How often they were asked for."""


_Happening = tuple[float, int, Callable[..., None], _Attempt | None]
"""When, after what else of that time, what, and in which attempt, if in one."""


@dataclass
class _Run:
    setup: Setup
    limits: Limits
    chance: random.Random
    outcome: Outcome = field(default_factory=Outcome)
    now: float = 0.0

    def __post_init__(self) -> None:
        """Start with one partition of each bucket."""
        self._puts = Partitions(self.limits.puts, self.limits.split_after)
        self._gets = Partitions(self.limits.gets * _READ_BUCKETS, self.limits.split_after)
        self._waiting: deque[_Message] = deque()
        self._at_work: dict[_Attempt, None] = {}
        # Since when each container has nothing to do.
        self._idle: deque[float] = deque([0.0] * self.setup.warm)
        self._happenings: list[_Happening] = []
        self._number = 0
        self._active_since: float | None = None
        self._looks_again = False
        works, memory = self.setup.works, self.setup.works[0].memory
        self._second_usd = memory / 1024 * PRICES.gigabyte_second
        self._usd = {work: work.usd() - work.seconds * self._second_usd for work in works}

    def until_none_is_left(self, arrivals: Iterator[float]) -> None:
        """Have everything happen, in order."""
        following = first = next(arrivals, None)
        for time in self.setup.kills:
            self._later(time, self._kill)
        while following is not None or self._is_something_left():
            if following is not None and not (
                self._happenings and self._happenings[0][0] < following
            ):
                self.now = following
                self._arrive()
                following = next(arrivals, None)
            else:
                self.now, _, happening, attempt = heapq.heappop(self._happenings)
                if attempt is None:
                    happening()
                elif attempt.is_alive:
                    happening(attempt)
        self.outcome.seconds -= first or 0.0

    def _is_something_left(self) -> bool:
        return self.outcome.complete + self.outcome.failed < self.outcome.exposures

    def _later(
        self, seconds: float, happening: Callable[..., None], attempt: _Attempt | None = None
    ) -> None:
        self._number += 1
        heapq.heappush(self._happenings, (self.now + seconds, self._number, happening, attempt))

    # The queue, and Lambda's poller

    def _arrive(self) -> None:
        works, shares = self.setup.works, self.setup.shares
        work = works[0] if len(works) == 1 else self.chance.choices(works, shares)[0]
        self.outcome.exposures += 1
        self._waiting.append(_Message(work, self.now))
        self._take()

    def _take(self) -> None:
        """Begin with as many messages as the poller and the account allow."""
        if self._active_since is None:
            self._active_since = self.now
        allowed = self._allowed(self.now - self._active_since)
        room = self.limits.account - self.limits.others
        while self._waiting and len(self._at_work) < min(allowed, room):
            self._begin(self._waiting.popleft())
        if self._waiting:
            self._look_again(allowed, room)
        elif not self._at_work:
            self._active_since = None

    def _allowed(self, active: float) -> int:
        limits = self.limits
        grown = limits.first_pollers + int(limits.more_pollers * active)
        return min(grown, self.setup.concurrency, limits.most_pollers)

    def _look_again(self, allowed: int, room: int) -> None:
        """See to it that what waits is looked at when more may be taken."""
        if self._looks_again:
            return
        if allowed > room:
            self.outcome.throttles += min(len(self._waiting), allowed - room)
            self._looks_again = True
            self._later(self.limits.throttled_wait, self._looked_again)
        elif allowed < min(self.setup.concurrency, self.limits.most_pollers):
            self._looks_again = True
            self._later(_TICK, self._looked_again)

    def _looked_again(self) -> None:
        self._looks_again = False
        self._take()

    def _comes_back(self, message: _Message) -> None:
        self._waiting.append(message)
        self._take()

    # The function

    def _begin(self, message: _Message) -> None:
        outcome = self.outcome
        if not message.attempts:
            outcome.oldest = max(outcome.oldest, self.now - message.arrived)
        message.attempts += 1
        outcome.invocations += 1
        attempt = _Attempt(message, self.now, self._container())
        self._at_work[attempt] = None
        outcome.most_at_once = max(outcome.most_at_once, len(self._at_work))
        self._read(attempt)

    def _container(self) -> float:
        """Take one that is idle, or start one; returns the seconds that takes."""
        while self._idle and self._idle[0] < self.now - self.limits.idle:
            self._idle.popleft()
        if self._idle:
            self._idle.pop()
            return 0.0
        self.outcome.cold_starts += 1
        return self.setup.cold_seconds

    def _read(self, attempt: _Attempt) -> None:
        work = attempt.message.work
        if self._is_taken(self._gets, work.gets, attempt, self._read):
            self._later(attempt.cold + _LEAD * work.seconds, self._write, attempt)

    def _write(self, attempt: _Attempt) -> None:
        work = attempt.message.work
        if self._is_taken(self._puts, work.puts, attempt, self._write):
            self._later((1 - _LEAD) * work.seconds, self._complete, attempt)

    def _is_taken(
        self,
        partitions: Partitions,
        requests: int,
        attempt: _Attempt,
        again: Callable[[_Attempt], None],
    ) -> bool:
        """Ask S3; what it does not take is asked for again after a while, some times."""
        attempt.refused = partitions.refused(self.now, attempt.refused or requests)
        if not attempt.refused:
            attempt.tries = 0
            return True
        self.outcome.slow_downs += attempt.refused
        attempt.tries += 1
        if attempt.tries >= self.limits.attempts:
            self._fail(attempt)
        else:
            longest = min(2.0 ** (attempt.tries - 1), _LONGEST_BACKOFF)
            self._later(self.chance.uniform(0, longest), again, attempt)
        return False

    def _complete(self, attempt: _Attempt) -> None:
        self.outcome.complete += 1
        self.outcome.usd += self._usd[attempt.message.work]
        self._end(attempt)

    def _fail(self, attempt: _Attempt) -> None:
        delay = self.setup.retry_delay * 2.0 ** (attempt.message.attempts - 1)
        self._try_again_or_give_up(attempt, min(delay, _LONGEST_RETRY))
        self._end(attempt)

    def _end(self, attempt: _Attempt) -> None:
        """Give the container back."""
        self._idle.append(self.now)
        self._leave(attempt)

    def _leave(self, attempt: _Attempt) -> None:
        del self._at_work[attempt]
        self.outcome.usd += (self.now - attempt.begun) * self._second_usd
        self.outcome.seconds = self.now
        self._take()

    def _try_again_or_give_up(self, attempt: _Attempt, seconds: float) -> None:
        message = attempt.message
        self.outcome.usd += PRICES.invocation + 2 * PRICES.message
        if message.attempts >= self.setup.receives:
            self.outcome.failed += 1
        else:
            self._later(seconds, partial(self._comes_back, message))

    # Kills

    def _kill(self) -> None:
        alive: list[_Attempt | float] = [*self._at_work, *self._idle]
        if not alive:
            return
        chosen = self.chance.choice(alive)
        self.outcome.kills += 1
        if isinstance(chosen, _Attempt):
            chosen.is_alive = False
            hidden = chosen.begun + self.setup.visibility - self.now
            self._try_again_or_give_up(chosen, hidden)
            self._leave(chosen)
        else:
            self._idle.remove(chosen)
