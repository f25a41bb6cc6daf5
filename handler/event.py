"""The processing event, published for every exposure, and the bus.

Its JSON Schema is in infra/contracts. The fields of the event's detail have these names, in camel
case.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from core.errors import TransientFailure
from handler.s3.errors import translate_errors

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient

SOURCE = "jwst.dq_init"
SCHEMA_VERSION = "2.1"
_LONGEST_REASON = 2048
_DIGITS = 32  # of an id


class Status(StrEnum):
    """The status of the result of an exposure."""

    COMPLETE = "Complete"
    SKIPPED = "Skipped"
    FAILED = "Failed"


@dataclass(frozen=True)
class ObjectSummary:
    """An S3 object in the processing event: the exposure or its product."""

    bucket: str
    key: str
    version_id: str | None = None  # None: the bucket has no versions, or it was not read
    etag: str | None = None  # with quotes; None: it was not read
    last_modified: str | None = None  # ISO 8601, UTC; None if there is a version, or not read
    bytes: int | None = None  # size
    form: str | None = None  # of a product: assembled or virtual

    @property
    def state(self) -> list[str | None]:
        """Bucket, key and version ID; without a version ID, bucket, key, ETag and time."""
        unversioned = [self.etag, self.last_modified]
        return [self.bucket, self.key, *([self.version_id] if self.version_id else unversioned)]


@dataclass(frozen=True)
class ExposureSummary:
    """INSTRUME, DETECTOR, EXP_TYPE and SUBARRAY of an exposure, its kind, and the shape of SCI.

    `warning` is set if the file has no ASDF extension.
    """

    instrument: str | None
    detector: str | None
    exposure_type: str | None
    subarray: str | None
    kind: str
    shape: tuple[int, ...]
    warning: str | None = None


@dataclass(frozen=True)
class ReferenceSummary:
    """The mask that applies and its context; `mask` and `sha1` are None if no mask applies.

    `warning` says that the mask is of another detector, or that `jwst` would choose another one; it
    is always None for a product that is kept.
    """

    mask: str | None
    sha1: str | None
    context: str
    mirror: str
    warning: str | None = None


@dataclass(frozen=True)
class MnemonicCount:
    """The number of pixels that have one flag, and how many of these also have DO_NOT_USE."""

    pixels: int
    do_not_use: int


@dataclass(frozen=True)
class FlagSummary:
    """The number of pixels in PIXELDQ or DQ of a product: all, by flag, and with DO_NOT_USE."""

    pixels: int
    by_mnemonic: Mapping[str, MnemonicCount]
    do_not_use: int
    do_not_use_fraction: float


@dataclass(frozen=True)
class Usage:
    """Software version and AWS request ID; seconds and S3 bytes that one request took."""

    version: str
    request_id: str
    duration_seconds: float = 0.0
    bytes_received: int = 0
    bytes_sent: int = 0


@dataclass(frozen=True)
class Findings:
    """Everything known about an exposure; parts that a failed or skipped request lacks are None.

    `request` is the direct request that repeats the one of this result.
    """

    request: Mapping[str, str] | None = None
    input: ObjectSummary | None = None
    output: ObjectSummary | None = None
    exposure: ExposureSummary | None = None
    reference: ReferenceSummary | None = None
    flags: FlagSummary | None = None


@dataclass(frozen=True)
class ProcessingEvent:
    """The result of one request for an exposure, as it is published."""

    status: Status
    reason: str | None  # of Skipped or Failed
    error: str | None  # class of the exception, if Failed
    cause: str  # ID of the SQS message, execution or invocation
    findings: Findings
    function: Usage

    @property
    def id(self) -> str:
        """The id of the result: the same whenever the result is published again.

        It is a digest: for Complete, of the product's `state`; for Failed, of the input's bucket
        and key, the class of error and the cause; for Skipped, of the input's bucket, key and
        version ID, the product's `state` and the cause.
        """
        source, product = self.findings.input, self.findings.output
        state = product.state if product else None
        named = [source.bucket, source.key, source.version_id] if source else None
        identity = {
            Status.COMPLETE: [state],
            Status.FAILED: [named[:2] if named else None, self.error, self.cause],
            Status.SKIPPED: [named, state, self.cause],
        }
        text = json.dumps([self.status.value, identity[self.status]])
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

    def to_detail(self) -> dict[str, Any]:
        """Return the detail of the EventBridge event, ready for JSON."""
        # EventBridge rejects lone surrogates, which names from outside may contain.
        reason = self.reason and self.reason.encode(errors="backslashreplace").decode()
        return {
            "schemaVersion": SCHEMA_VERSION,
            "id": self.id,
            "status": self.status.value,
            "reason": reason and reason[:_LONGEST_REASON],
            "error": self.error,
            "cause": self.cause,
            **asdict(self.findings, dict_factory=_camel_keys),
            "function": asdict(self.function, dict_factory=_camel_keys),
        }

    @classmethod
    def from_detail(cls, detail: Mapping[str, Any]) -> "ProcessingEvent":
        """Return the result in the detail of an event; fields of a newer release are ignored."""
        exposure = _read(ExposureSummary, detail["exposure"])
        flags: Any = _read(FlagSummary, detail["flags"])
        if flags is not None:
            counts = flags.by_mnemonic.items()
            counts = {name: _read(MnemonicCount, count) for name, count in counts}
            flags = replace(flags, by_mnemonic=counts)
        findings = Findings(
            request=detail["request"],
            input=_read(ObjectSummary, detail["input"]),
            output=_read(ObjectSummary, detail["output"]),
            exposure=exposure and replace(exposure, shape=tuple(exposure.shape)),
            reference=_read(ReferenceSummary, detail["reference"]),
            flags=flags,
        )
        return cls(
            status=Status(detail["status"]),
            reason=detail["reason"],
            error=detail["error"],
            cause=detail["cause"],
            findings=findings,
            function=_read(Usage, detail["function"]),
        )


@dataclass(frozen=True)
class Bus:
    """An EventBridge bus, by name or ARN."""

    name: str
    client: "EventBridgeClient"

    def send(self, event: ProcessingEvent) -> None:
        """Put a processing event on the bus, or raise `TransientFailure` if it is rejected."""
        self.put(SOURCE, f"DQ Initialization {event.status}", event.to_detail())

    def put(self, source: str, kind: str, detail: Mapping[str, Any]) -> None:
        """Put an event on the bus, or raise `TransientFailure` if AWS does not take it."""
        entry = {
            "EventBusName": self.name,
            "Source": source,
            "DetailType": kind,
            "Detail": json.dumps(detail),
        }
        with translate_errors(f"event bus {self.name}: publishing {kind!r}"):
            answer = self.client.put_events(Entries=[entry])  # type: ignore[list-item]
        # PutEvents answers 200 also for entries that it rejects:
        # docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
        if answer["FailedEntryCount"]:
            failed = answer["Entries"][0]
            raise TransientFailure(
                f"event bus {self.name}: rejected the event {kind!r} ({failed['ErrorCode']}: "
                f"{failed['ErrorMessage']}), expected it to be accepted; retry"
            )


def _read(part: Any, data: Any) -> Any:
    """Convert a JSON object of the detail to the dataclass `part`; None if it is null."""
    if data is None:
        return None
    names = {field.name: _camel(field.name) for field in fields(part)}
    return part(**{name: data[key] for name, key in names.items() if key in data})


def _camel_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {_camel(name): list(v) if isinstance(v, tuple) else v for name, v in items}


def _camel(name: str) -> str:
    words = name.title().replace("_", "")
    return words[0].lower() + words[1:]
