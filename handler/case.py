"""An exposure that is being processed, and what is known of it so far."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core import __version__
from handler.announcements import Record, Status
from handler.invocation import Invocation
from handler.observability import logger, report
from handler.outcomes import Outcomes, identity
from handler.reference import References
from handler.requests import ExposureRequest
from handler.s3.blocks import Blocks
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore, StoredObject
from handler.settings import OnExisting, Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["Case", "Services"]

_NOWHERE = S3Location("", "")


@dataclass
class Services:
    """What the function works with.

    Attributes
    ----------
    s3 : boto3 client
        S3.
    references : `~handler.reference.References`
        The CRDS mirror; caches what it has read.
    blocks : `~handler.s3.blocks.Blocks`
        Blocks of repeated planes; remembers which have been checked.
    outcomes : `~handler.outcomes.Outcomes`
        How exposures ended, and the bus that it is announced on.
    """

    s3: "S3Client"
    references: References
    blocks: Blocks
    outcomes: Outcomes


@dataclass
class Case:
    """An exposure that is being processed.

    Attributes
    ----------
    request : `~handler.requests.ExposureRequest`
        What was asked for.
    settings, services : `~handler.settings.Settings` and `Services`
        The function's environment, and what to work with.
    invocation : `~handler.invocation.Invocation`
        The invocation that is going on.
    record : `~handler.announcements.Record`
        What goes into the processing event.
    store : `~handler.s3.objects.ObjectStore`
        S3; counts the bytes that pass through the function.
    source : `~handler.s3.objects.StoredObject` or None
        The exposure, once it was found.
    target : `~handler.s3.locations.S3Location`
        Where the product goes.
    made : dict of str to str
        What the product is made from.
    is_known : bool
        Whether the result was announced before.
    """

    request: ExposureRequest
    settings: Settings
    services: Services
    invocation: Invocation
    record: Record = field(init=False)
    store: ObjectStore = field(init=False)
    source: StoredObject | None = None
    target: S3Location = _NOWHERE
    made: dict[str, str] = field(default_factory=lambda: {"software-version": __version__})
    is_known: bool = False
    _started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.store = ObjectStore(self.services.s3)
        self.record = Record(self.settings.mirror, self.invocation.request_id)
        self.record.request_is(self.request)
        logger.append_keys(exposure=str(self.request.source), mask=None, context=None)

    @property
    def on_existing(self) -> OnExisting:
        """What to do when the product is there."""
        return self.request.on_existing or self.settings.on_existing

    @property
    def identity(self) -> str:
        """What stands for the exposure among the outcomes."""
        if self.source is None:
            return identity(self.request.source, self.request.etag, self.target)
        return identity(self.source.location, self.source.etag, self.target)

    def source_is(self, source: StoredObject) -> None:
        """Note which object the exposure is."""
        self.source = source
        self.record.input_is(source)
        logger.append_keys(exposure=str(source.location))

    def detail(self, status: Status, reason: str | None, error: str | None) -> dict[str, Any]:
        """Return the processing event's detail."""
        usage = {
            "durationSeconds": round(time.perf_counter() - self._started, 3),
            "bytesReceived": self.store.received,
            "bytesSent": self.store.sent,
        }
        return self.record.detail(status, reason, error, usage)

    def announce(
        self, status: Status, reason: str | None = None, error: str | None = None
    ) -> dict[str, Any]:
        """Announce how it ended, once; log and measure what was announced."""
        anew = self.request.anew or self.on_existing is OnExisting.REPLACE
        outcomes, detail = self.services.outcomes, self.detail(status, reason, error)
        if self.is_known:
            said = outcomes.skip(detail, self.invocation)
        else:
            said = outcomes.announce(self.identity, detail, self.made, self.invocation, anew)
        report(said)
        return said
