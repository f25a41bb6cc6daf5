"""Every way in becomes one `ExposureRequest` per exposure.

What arrives                                       what it looks like
an S3 notification                                 {"Records": [{"eventSource": "aws:s3", ...}]}
an EventBridge event                               {"source": "aws.s3", "detail-type": ..., ...}
a direct request (Step Functions, CLI, sam local)  {"bucket": ..., "key": ..., ...}
a processing event of ours                         {"source": "jwst.dq_init", "detail": ...}

The body of each message of an SQS batch is one of these, as JSON. S3 notifications encode keys as
forms do (a blank is ``+``); EventBridge and direct requests carry them as they are. A failure that
comes back (an operator has sent it from the queue of failures) asks for the same once more; any
other result is one that EventBridge could not deliver, and is published again. The message that S3
sends to test a notification asks for nothing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_plus

from core.errors import InputRejected
from core.product import NO_MASK, product_name
from handler.event import SOURCE, ProcessingEvent, Status
from handler.s3.objects import S3Location

__all__ = [
    "Attempt",
    "ExposureRequest",
    "OnExisting",
    "decode",
    "read_request",
    "split",
    "undelivered",
]

Event = Mapping[str, Any]

_CONTEXT = re.compile(r"latest|build|jwst-(latest|operational|build)|jwst_\d+\.pmap")
_INPUT_SUFFIX = "_uncal.fits"
_LONGEST_TEXT = 1024
"""Bytes of any text of a request; S3's own limit for keys."""


class OnExisting(StrEnum):
    """What a direct request wants done where the product's key is taken. Events always skip."""

    SKIP = "skip"
    REPLACE = "replace"
    ERROR = "error"


@dataclass(frozen=True)
class Attempt:
    """Who asks, and whether somebody tries again after a failure that a retry may help.

    Attributes
    ----------
    cause : str
        The SQS message, the execution or the invocation that asks: the same in every attempt.
    request_id : str
        AWS's identifier of the invocation.
    is_retried : bool
        Whether a failure that a retry may help is noted, not announced.
    """

    cause: str
    request_id: str
    is_retried: bool = False


@dataclass(frozen=True)
class ExposureRequest:
    """One exposure to process, and what the caller wants done differently.

    Attributes
    ----------
    source : `~handler.s3.objects.S3Location`
        The exposure, with the version that the event or request names.
    context : str or None
        CRDS context; None for the function's own.
    mask : `~handler.s3.objects.S3Location`, ``"N/A"`` or None
        A mask to use instead of the rules' choice; N/A for none at all.
    user_dq : `~handler.s3.objects.S3Location` or None
        User-supplied DQ image.
    on_existing : `OnExisting`
        What to do where the product's key is taken.
    output_key : str or None
        Key of the product; None for the usual one.
    etag : str or None
        Entity tag of the object that the event speaks of, without quotes.
    is_event : bool
        Whether it speaks of the object as it was when it was created; a direct request names the
        version that it wants read.
    cause : str or None
        What a direct request says of who asks.
    is_retried : bool
        Whether the caller of a direct request tries again.
    is_report_only : bool
        Whether nothing is to be made any more, only looked for.
    """

    source: S3Location
    context: str | None = None
    mask: S3Location | str | None = None
    user_dq: S3Location | None = None
    on_existing: OnExisting = OnExisting.SKIP
    output_key: str | None = None
    etag: str | None = None
    is_event: bool = False
    cause: str | None = None
    is_retried: bool = False
    is_report_only: bool = False

    @classmethod
    def from_direct(cls, event: Event) -> "ExposureRequest":
        """Read a direct request.

        Raises
        ------
        InputRejected
            If a field is unknown, missing or makes no sense.
        """
        unknown = set(event) - set(_FIELDS)
        if unknown:
            names = sorted(str(name)[:_LONGEST_TEXT] for name in unknown)[:5]
            raise InputRejected(f"request: unknown fields {names}, expected some of {_FIELDS}")
        return cls(
            source=S3Location(
                _required(event, "bucket"), _required(event, "key"), _text(event, "versionId")
            ),
            context=_context(event),
            mask=NO_MASK if event.get("mask") == NO_MASK else _mask(event),
            user_dq=_location(event, "userSuppliedDq"),
            on_existing=_on_existing(event),
            output_key=_text(event, "outputKey"),
            cause=_text(event, "cause"),
            is_retried=_flag(event, "retried"),
            is_report_only=_flag(event, "reportOnly"),
        )

    @property
    def pins(self) -> bool:
        """Whether it names the mask or user DQ, so that only ``replace`` rebuilds its product."""
        return self.mask is not None or self.user_dq is not None

    def to_direct(self) -> dict[str, str]:
        """Return the direct request that asks for the same; what was not said is left out."""
        fields = {
            "bucket": self.source.bucket,
            "key": self.source.key,
            "versionId": None if self.is_event else self.source.version_id,
            "context": self.context,
            "mask": None if self.mask is None else str(self.mask),
            "userSuppliedDq": None if self.user_dq is None else str(self.user_dq),
            "onExisting": None if self.on_existing is OnExisting.SKIP else self.on_existing.value,
            "outputKey": self.output_key,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def target(self, bucket: str, prefix: str) -> S3Location:
        """Return where the product goes.

        Parameters
        ----------
        bucket, prefix : str
            Where products go.

        Raises
        ------
        InputRejected
            If the product would set the function off again, or lie where its input lies, or
            elsewhere than below the prefix.
        """
        folder, slash, name = self.source.key.rpartition("/")
        target = S3Location(
            bucket, self.output_key or f"{prefix}{folder}{slash}{product_name(name)}"
        )
        if not target.key.startswith(prefix) or target.key == prefix:
            raise InputRejected(
                f"{self.source}: outputKey is {target.key!r}, expected a key below {prefix!r}"
            )
        if target.key.endswith(_INPUT_SUFFIX) or target == S3Location(
            self.source.bucket, self.source.key
        ):
            raise InputRejected(
                f"{self.source}: its product would be {target}, which is an input's key"
            )
        if len(target.key.encode()) > _LONGEST_TEXT:
            raise InputRejected(
                f"{self.source}: its product's key would have {len(target.key.encode())} bytes, "
                f"expected at most {_LONGEST_TEXT}"
            )
        return target


_FIELDS = (
    "bucket", "key", "versionId", "context", "mask", "userSuppliedDq", "onExisting", "outputKey",
    "cause", "retried", "reportOnly",
)  # fmt: skip


def decode(body: str) -> object:
    """Decode the body of an SQS message.

    Raises
    ------
    InputRejected
        If it is not JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InputRejected(f"message body is not JSON: {exc}") from exc


def split(event: object) -> list[object]:
    """Divide what arrived into what asks for one exposure each.

    Parameters
    ----------
    event : object
        An event, decoded from JSON; SQS batches are read message by message.

    Returns
    -------
    list
        For `read_request`, one by one: a bad one does not stop the others. None for a test message
        or an event that speaks of no new object.
    """
    if not isinstance(event, dict):
        return [event]
    if event.get("Event") == "s3:TestEvent":
        return []
    records = event.get("Records")
    if isinstance(records, list):
        return [{"Records": [record]} for record in records if _asks(record)]
    if event.get("source") == "aws.s3" and event.get("detail-type") != "Object Created":
        return []
    return [event]


def _asks(record: object) -> bool:
    """Whether a record of a notification asks for something, or is none at all."""
    if not isinstance(record, dict) or "eventName" not in record:
        return True
    return str(record["eventName"]).startswith("ObjectCreated:")


def undelivered(event: object) -> ProcessingEvent | None:
    """Return a result of ours that EventBridge could not deliver, to be published as it was.

    None for everything else; a failure is a request, see `read_request`.

    Raises
    ------
    InputRejected
        If it is a processing event, and not readable.
    """
    if not isinstance(event, dict) or event.get("source") != SOURCE:
        return None
    try:
        if event["detail"]["status"] == Status.FAILED:
            return None
        return ProcessingEvent.from_detail(event["detail"])
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InputRejected(f"processing event: {exc!r}, expected a whole detail") from exc


def read_request(event: object) -> ExposureRequest:
    """Read one of what `split` returns.

    Raises
    ------
    InputRejected
        If it is none of the ways in, or a field that it needs is missing or makes no sense.
    """
    if not isinstance(event, dict):
        raise InputRejected(f"event is {type(event).__name__}, expected an object")
    if "Records" in event or event.get("source") == "aws.s3":
        return _created(event)
    if event.get("source") == SOURCE:
        return _from_failure(event)
    return ExposureRequest.from_direct(event)


def _created(event: Event) -> ExposureRequest:
    """Read an event that S3 sends; its fields are no more trusted than a request's."""
    is_notification = "Records" in event
    kind = "S3 notification" if is_notification else "EventBridge event"
    version, etag = ("versionId", "eTag") if is_notification else ("version-id", "etag")
    try:
        entity = event["Records"][0]["s3"] if is_notification else event["detail"]
        described = entity["object"]
        fields = {
            "bucket": entity["bucket"]["name"],
            "key": unquote_plus(described["key"]) if is_notification else described["key"],
            "versionId": described.get(version),
            "etag": described.get(etag),
        }
    except (KeyError, IndexError, TypeError, AttributeError) as exc:
        raise InputRejected(f"{kind}: {exc!r} where an object was expected") from exc
    tag = _text(fields, "etag")
    source = S3Location(
        _required(fields, "bucket"), _required(fields, "key"), _text(fields, "versionId")
    )
    return ExposureRequest(source, etag=tag and tag.strip('"'), is_event=True)


def _from_failure(event: Event) -> ExposureRequest:
    detail = event.get("detail")
    failed = isinstance(detail, dict) and detail.get("status") == "Failed"
    request = detail.get("request") if isinstance(detail, dict) and failed else None
    if not isinstance(request, dict):
        raise InputRejected("processing event: expected one that says Failed and names a request")
    return ExposureRequest.from_direct(request)


def _text(event: Event, field: str) -> str | None:
    value = event.get(field)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise InputRejected(f"request: {field} is {str(value)[:80]!r}, expected text")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as exc:
        raise InputRejected(f"request: {field} is no text: {exc}") from exc
    if size > _LONGEST_TEXT:
        raise InputRejected(
            f"request: {field} has {size} bytes ({value[:80]!r}...), expected at most "
            f"{_LONGEST_TEXT}"
        )
    return value


def _required(event: Event, field: str) -> str:
    value = _text(event, field)
    if value is None:
        raise InputRejected(f"request: {field} is missing")
    return value


def _flag(event: Event, field: str) -> bool:
    value = event.get(field, False)
    if isinstance(value, bool):
        return value
    raise InputRejected(f"request: {field} is {str(value)[:80]!r}, expected true or false")


def _context(event: Event) -> str | None:
    context = _text(event, "context")
    if context is not None and not _CONTEXT.fullmatch(context):
        raise InputRejected(
            f"request: context is {context!r}, expected latest, build or jwst_N.pmap"
        )
    return context


def _location(event: Event, field: str) -> S3Location | None:
    value = _text(event, field)
    try:
        return None if value is None else S3Location.parse(value)
    except ValueError as exc:
        raise InputRejected(f"request: {field}: {exc}") from exc


def _mask(event: Event) -> S3Location | None:
    """A mask's name goes into R_MASK, and FITS headers are ASCII."""
    mask = _location(event, "mask")
    if mask is not None and not str(mask).isascii():
        raise InputRejected(f"request: mask is {str(mask)!r}, expected ASCII: R_MASK names it")
    return mask


def _on_existing(event: Event) -> OnExisting:
    value = _text(event, "onExisting") or OnExisting.SKIP.value
    try:
        return OnExisting(value)
    except ValueError as exc:
        raise InputRejected(
            f"request: onExisting is {value!r}, expected one of {', '.join(OnExisting)}"
        ) from exc
