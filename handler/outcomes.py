"""How every exposure ended, kept in S3, so that it is announced once however often it is tried.

A function may be killed at any moment, and events come twice. So a result is first claimed (an
object that only one invocation can create), then announced, and then noted as announced. Whoever
comes upon the note has nothing to announce. Whoever comes upon a claim alone waits until the
invocation that made it has certainly ended, and then looks into the log of all processing events
whether that announcement was sent: it is the only witness of what was done just before a kill.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from handler.announcements import Status, announce, skipped
from handler.invocation import Invocation
from handler.s3.errors import code_of, failures_of
from handler.s3.locations import S3Location
from handler.s3.objects import address

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_logs.client import CloudWatchLogsClient
    from mypy_boto3_s3.client import S3Client

__all__ = ["Outcome", "Outcomes", "identity"]

_TAKEN = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
_NOWHERE = S3Location("", "")
_PAUSES = (0.1, 0.3, 1.0)
"""Seconds to wait for an invocation that is announcing the same result: it takes a moment only."""
_CLAIMED = 60
"""Seconds that a result is claimed for: what announces it gives up sooner (see handler.app)."""
_CLOCKS_DIFFER = 300  # seconds; of this machine and of the log


@dataclass(frozen=True)
class Outcome:
    """How an exposure ended.

    Attributes
    ----------
    detail : dict
        The processing event's detail.
    made : dict of str to str
        What the product was made from; as much as was known.
    claimed_at, ends_at : float
        When an invocation claimed it, and when it has announced it, or been ended, or given up;
        in seconds since 1970.
    announced : bool
        Whether the announcement is known to be sent.
    etag : str
        Of the object in S3; empty before it is there.
    """

    detail: dict[str, Any]
    made: Mapping[str, str]
    claimed_at: float
    ends_at: float
    announced: bool = False
    etag: str = ""

    def is_same(self, other: "Outcome") -> bool:
        """Whether both say the same of the exposure."""
        return bool(self.detail["id"] == other.detail["id"])

    def to_json(self) -> bytes:
        """Return the object's content."""
        fields = ("detail", "made", "claimed_at", "ends_at", "announced")
        return json.dumps({name: getattr(self, name) for name in fields}).encode()


@dataclass
class Outcomes:
    """The outcomes below a prefix, and the bus that they are announced on.

    Attributes
    ----------
    place : `~handler.s3.locations.S3Location` or None
        Where they are kept; None to keep none: then every result is announced as it comes.
    event_log : str or None
        CloudWatch log group that holds every processing event; None if there is none.
    bus : str
        EventBridge bus.
    s3, events : boto3 clients
        How to reach S3 and EventBridge.
    logs : callable
        Makes the client of CloudWatch Logs, which is hardly ever needed.
    clock : callable
        Seconds since 1970.
    """

    place: S3Location | None
    event_log: str | None
    bus: str
    s3: "S3Client"
    events: "EventBridgeClient"
    logs: "Callable[[], CloudWatchLogsClient]"
    clock: Callable[[], float] = field(default=time.time)

    def recorded(self, exposure: str) -> Outcome | None:
        """Return how an exposure ended, as far as it is known.

        Parameters
        ----------
        exposure : str
            As `identity` returns it.

        Raises
        ------
        TransientFailure
            If S3 cannot be reached.
        """
        if self.place is None:
            return None
        location = self._location(exposure)
        try:
            with failures_of(f"{location}: reading it", FileNotFoundError):
                answer = self.s3.get_object(**address(location))
                content = json.loads(answer["Body"].read())
        except FileNotFoundError:
            return None
        return Outcome(**content, etag=answer["ETag"])

    def announce(
        self,
        exposure: str,
        detail: dict[str, Any],
        made: Mapping[str, str],
        invocation: Invocation,
        anew: bool = False,
    ) -> dict[str, Any]:
        """Announce how an exposure ended, unless that is known already.

        Parameters
        ----------
        exposure : str
            As `identity` returns it.
        detail : dict
            The processing event's detail.
        made : mapping of str to str
            What the product was made from.
        invocation : `~handler.invocation.Invocation`
            The invocation that is going on.
        anew : bool
            Whether it was asked for expressly, and is announced even if it was before.

        Returns
        -------
        dict
            The detail that was announced: ``Skipped``, if the result was known.

        Raises
        ------
        TransientFailure
            If another invocation is announcing it, or AWS cannot be reached.
        """
        if self.place is None or detail["status"] == Status.SKIPPED:
            return self._send(detail)
        detail = detail | {"id": _announcement(exposure, detail, made, invocation, anew)}
        now = self.clock()
        claim = Outcome(detail, dict(made), now, min(invocation.ends_at, now + _CLAIMED))
        etag = self._put(exposure, claim, {"IfNoneMatch": "*"})
        if etag is None:
            found = self._settled(exposure)
            if found is not None and found.is_same(claim) and self._was_sent(exposure, found):
                return self.skip(skipped(detail, found.detail), invocation)
            condition = {"IfMatch": found.etag} if found else {"IfNoneMatch": "*"}
            etag = self._put(exposure, claim, condition)
        if etag is None:
            raise TransientFailure(f"{self._location(exposure)}: is being written by another")
        return self._send_claimed(exposure, claim, etag)

    def skip(self, detail: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
        """Announce that the result was known; not to a message that is delivered again.

        Parameters and what is returned are those of `announce`.
        """
        return detail if invocation.is_repeated else self._send(detail)

    def _settled(self, exposure: str) -> Outcome | None:
        """The outcome that is there, unless an invocation that may be alive is announcing it."""
        found = self.recorded(exposure)
        for pause in _PAUSES:
            if not self._is_open(found):
                break
            time.sleep(pause)
            found = self.recorded(exposure)
        if found is not None and self._is_open(found):
            request = found.detail["function"]["requestId"]
            raise TransientFailure(
                f"{self._location(exposure)}: request {request} is announcing the result, or has "
                f"been ended; expected to find its announcement"
            )
        return found

    def _is_open(self, found: Outcome | None) -> bool:
        """Whether an invocation may be at work between claiming a result and announcing it."""
        return found is not None and not found.announced and self.clock() < found.ends_at

    def _was_sent(self, exposure: str, found: Outcome) -> bool:
        """Whether an outcome was announced; noted, if only the log of events knows."""
        if found.announced:
            return True
        if not self._is_in_log(found):
            return False
        self._note(exposure, found, found.etag)
        return True

    def _is_in_log(self, found: Outcome) -> bool:
        if self.event_log is None:
            return False
        with failures_of(f"{self.event_log}: searching it", TransientFailure):
            pages = (
                self.logs()
                .get_paginator("filter_log_events")
                .paginate(
                    logGroupName=self.event_log,
                    startTime=int((found.claimed_at - _CLOCKS_DIFFER) * 1000),
                    filterPattern=f'"{found.detail["id"]}"',
                )
            )
            return any(page["events"] for page in pages)

    def _send_claimed(self, exposure: str, claim: Outcome, etag: str) -> dict[str, Any]:
        """Announce what this invocation has claimed; give the claim back if that fails."""
        try:
            self._send(claim.detail)
        except BaseException:
            self._put(exposure, replace(claim, ends_at=0.0), {"IfMatch": etag})
            raise
        self._note(exposure, claim, etag)
        return claim.detail

    def _note(self, exposure: str, outcome: Outcome, etag: str) -> None:
        """Note that it was announced. If another has written meanwhile, its word stands."""
        self._put(exposure, replace(outcome, announced=True), {"IfMatch": etag})

    def _send(self, detail: dict[str, Any]) -> dict[str, Any]:
        announce(self.events, self.bus, detail)
        return detail

    def _put(self, exposure: str, outcome: Outcome, condition: Mapping[str, Any]) -> str | None:
        """Write an outcome; None if the place is not as the condition says."""
        location = self._location(exposure)
        with failures_of(f"{location}: writing it", TransientFailure):
            try:
                answer = self.s3.put_object(
                    **address(location),
                    Body=outcome.to_json(),
                    ContentType="application/json",
                    ChecksumAlgorithm="CRC32",
                    **condition,
                )
            except ClientError as exc:
                if code_of(exc) in _TAKEN:
                    return None
                raise
        return answer["ETag"]

    def _location(self, exposure: str) -> S3Location:
        return (self.place or _NOWHERE).below(f"{exposure}.json")


def identity(source: S3Location, etag: str | None, target: S3Location) -> str:
    """Return what stands for an exposure among the outcomes: a digest, for keys are untrusted.

    Parameters
    ----------
    source : `~handler.s3.locations.S3Location`
        The exposure, with its version if it has one.
    etag : str or None
        Its entity tag, which stands for the version where there is none.
    target : `~handler.s3.locations.S3Location`
        Where its product goes.
    """
    version = source.version_id or (etag or "").strip('"')
    parts = [source.bucket, source.key, version, target.bucket, target.key]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _announcement(
    exposure: str,
    detail: Mapping[str, Any],
    made: Mapping[str, str],
    invocation: Invocation,
    anew: bool,
) -> str:
    """What stands for an announcement: the same however often the result is reached."""
    once = invocation.request_id if anew else ""
    made = {name: value for name, value in made.items() if name != "crds-context"}
    parts = [exposure, detail["status"], detail["error"], sorted(made.items()), once]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
