"""The processing event: what the world is told of every exposure.

Its JSON Schema is kept in infra/contracts. This is the contract and nothing else: it imports
nothing of the function. The names of the fields are those of the event's detail, in Python's style.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

__all__ = [
    "SCHEMA_VERSION",
    "SOURCE",
    "ExposureSummary",
    "Findings",
    "FlagSummary",
    "MnemonicCount",
    "ObjectSummary",
    "ProcessingEvent",
    "ReferenceSummary",
    "Status",
    "Usage",
]

SOURCE = "jwst.dq_init"
SCHEMA_VERSION = "2.1"
_LONGEST_REASON = 2048
_DIGITS = 32

Part = TypeVar("Part")


class Status(StrEnum):
    """How it ended."""

    COMPLETE = "Complete"
    SKIPPED = "Skipped"
    FAILED = "Failed"


@dataclass(frozen=True)
class ObjectSummary:
    """An object in S3: as it was asked for, or as it was found.

    Attributes
    ----------
    bucket, key : str
        Where it lies.
    version_id, etag : str or None
        Its version, where the bucket has versions, and its entity tag, in quotes.
    last_modified : str or None
        Where there is no version: ISO 8601, UTC.
    bytes : int or None
        Its size.
    """

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    bytes: int | None = None

    @property
    def state(self) -> list[str | None]:
        """What tells this state of the object from every other that lies, lay or will lie there."""
        unversioned = [self.etag, self.last_modified]
        return [self.bucket, self.key, *([self.version_id] if self.version_id else unversioned)]


@dataclass(frozen=True)
class ExposureSummary:
    """What the exposure's headers say: INSTRUME, DETECTOR, EXP_TYPE, SUBARRAY, and SCI's shape.

    `warning` says what is unusual about the file: it has no ASDF extension.
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
    """Which mask applies, and by which rules; `mask` and `sha1` are None where none does.

    `warning` says what speaks against a mask that the request names.
    """

    mask: str | None
    sha1: str | None
    context: str
    mirror: str
    warning: str | None = None


@dataclass(frozen=True)
class MnemonicCount:
    """Pixels that carry a flag, and how many of them are DO_NOT_USE."""

    pixels: int
    do_not_use: int


@dataclass(frozen=True)
class FlagSummary:
    """The flags of PIXELDQ or DQ.

    Attributes
    ----------
    pixels : int
        All pixels of the array.
    by_mnemonic : mapping of str to `MnemonicCount`
        The flags that occur.
    do_not_use, do_not_use_fraction : int and float
        Pixels that are DO_NOT_USE, and their share.
    """

    pixels: int
    by_mnemonic: Mapping[str, MnemonicCount]
    do_not_use: int
    do_not_use_fraction: float


@dataclass(frozen=True)
class Usage:
    """The invocation: software version, AWS's request id, seconds, bytes moved in and out."""

    version: str
    request_id: str
    duration_seconds: float = 0.0
    bytes_received: int = 0
    bytes_sent: int = 0


@dataclass(frozen=True)
class Findings:
    """What is known of an exposure so far; None where nothing is.

    Attributes
    ----------
    request : mapping of str to str, or None
        The direct request that asks for the same.
    input, output : `ObjectSummary` or None
        The exposure and the product.
    exposure, reference, flags
        What was read, chosen and made.
    """

    request: Mapping[str, str] | None = None
    input: ObjectSummary | None = None
    output: ObjectSummary | None = None
    exposure: ExposureSummary | None = None
    reference: ReferenceSummary | None = None
    flags: FlagSummary | None = None


@dataclass(frozen=True)
class ProcessingEvent:
    """How one exposure ended.

    Attributes
    ----------
    status : `Status`
        How it ended.
    reason : str or None
        Why it was skipped, or failed.
    error : str or None
        Class of the exception, if it failed.
    cause : str
        Who asked: an SQS message, an execution, or an invocation.
    findings : `Findings`
        What is known.
    function : `Usage`
        The invocation.
    """

    status: Status
    reason: str | None
    error: str | None
    cause: str
    findings: Findings
    function: Usage

    @property
    def id(self) -> str:
        """Stands for the result: the same however often it is reached, and never another's.

        Complete speaks of a state of the product; Failed of an input, a class of error and a
        cause; Skipped of an input, a state of the product and a cause.
        """
        source, product = self.findings.input, self.findings.output
        state = product.state if product else None
        asked = [source.bucket, source.key, source.version_id] if source else None
        identity = {
            Status.COMPLETE: [state],
            Status.FAILED: [asked[:2] if asked else None, self.error, self.cause],
            Status.SKIPPED: [asked, state, self.cause],
        }
        text = json.dumps([self.status.value, identity[self.status]])
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

    def to_detail(self) -> dict[str, Any]:
        """Return the event's detail, ready for JSON."""
        return {
            "schemaVersion": SCHEMA_VERSION,
            "id": self.id,
            "status": self.status.value,
            "reason": self.reason and _text(self.reason)[:_LONGEST_REASON],
            "error": self.error,
            "cause": self.cause,
            **_plain(self.findings),
            "function": _plain(self.function),
        }

    @classmethod
    def from_detail(cls, detail: Mapping[str, Any]) -> "ProcessingEvent":
        """Read an event's detail; fields of a newer release are ignored.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is none.
        """
        flags = _read(FlagSummary, detail["flags"])
        exposure = _read(ExposureSummary, detail["exposure"])
        return cls(
            status=Status(detail["status"]),
            reason=detail["reason"],
            error=detail["error"],
            cause=detail["cause"],
            findings=Findings(
                request=detail["request"],
                input=_read(ObjectSummary, detail["input"]),
                output=_read(ObjectSummary, detail["output"]),
                exposure=exposure and replace(exposure, shape=tuple(exposure.shape)),
                reference=_read(ReferenceSummary, detail["reference"]),
                flags=flags and replace(flags, by_mnemonic=_counts(flags.by_mnemonic)),
            ),
            function=Usage(**_fields(Usage, detail["function"])),
        )


def _text(reason: str) -> str:
    """Escape lone surrogates: EventBridge refuses them, and they may come in names from outside."""
    return reason.encode(errors="backslashreplace").decode()


def _counts(by_mnemonic: Mapping[str, Any]) -> dict[str, MnemonicCount]:
    return {name: MnemonicCount(**_fields(MnemonicCount, n)) for name, n in by_mnemonic.items()}


def _plain(value: Any) -> Any:
    """A value as JSON has it, with the event's own names."""
    if is_dataclass(value):
        return {_camel(field.name): _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _read(part: type[Part], data: Mapping[str, Any] | None) -> Part | None:
    return None if data is None else part(**_fields(part, data))


def _fields(part: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name: _camel(field.name) for field in fields(part)}
    return {name: data[key] for name, key in names.items() if key in data}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
