"""Every way in becomes one `ExposureRequest` per exposure.

What arrives                                       what it looks like
an S3 notification                                 {"Records": [{"eventSource": "aws:s3", ...}]}
an EventBridge event                               {"source": "aws.s3", "detail-type": ..., ...}
a direct request (Step Functions, CLI, sam local)  {"bucket": ..., "key": ..., ...}
a processing event of ours that says Failed        {"source": "jwst.dq_init", "detail": ...}

The body of each message of an SQS batch is one of these, as JSON. S3 notifications encode keys as
forms do (a blank is ``+``); EventBridge and direct requests carry them as they are. A failure that
comes back (an operator has sent it from the queue of rejected input) asks for the same once more.
The message that S3 sends to test a notification asks for nothing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_plus

from core.errors import InputRejected
from core.product import NO_MASK, product_name
from handler.s3.locations import S3Location
from handler.settings import OnExisting

__all__ = ["SOURCE", "ExposureRequest", "requests_in", "requests_in_body"]

SOURCE = "jwst.dq_init"
"""Of the processing events."""

Event = Mapping[str, Any]

_CONTEXT = re.compile(r"latest|jwst_\d+\.pmap")
_INPUT_SUFFIX = "_uncal.fits"


@dataclass(frozen=True)
class ExposureRequest:
    """One exposure to process, and what the caller wants done differently.

    Attributes
    ----------
    source : `~handler.s3.locations.S3Location`
        The exposure, with the version that the event names.
    context : str or None
        CRDS context; None for the function's own.
    mask : `~handler.s3.locations.S3Location`, ``"N/A"`` or None
        A mask to use instead of the rules' choice; N/A for none at all.
    user_dq : `~handler.s3.locations.S3Location` or None
        User-supplied DQ image.
    on_existing : `~handler.settings.OnExisting` or None
        What to do when the product is there; None for the function's own.
    output_key : str or None
        Key of the product; None for the usual one.
    announce_failure : bool
        Whether a failure that a retry may help is announced; a caller that retries, and announces
        the last failure itself, says no.
    etag : str or None
        Entity tag of the object that the event speaks of.
    anew : bool
        Whether the result is announced even if it was announced before.
    """

    source: S3Location
    context: str | None = None
    mask: S3Location | str | None = None
    user_dq: S3Location | None = None
    on_existing: OnExisting | None = None
    output_key: str | None = None
    announce_failure: bool = True
    etag: str | None = None
    anew: bool = False

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
            raise InputRejected(
                f"request: unknown fields {sorted(unknown)}, expected some of {list(_FIELDS)}"
            )
        context = _text(event, "context")
        if context is not None and not _CONTEXT.fullmatch(context):
            raise InputRejected(f"request: context is {context!r}, expected latest or jwst_N.pmap")
        return cls(
            source=S3Location(
                _required(event, "bucket"), _required(event, "key"), _text(event, "versionId")
            ),
            context=context,
            mask=NO_MASK if event.get("mask") == NO_MASK else _location(event, "mask"),
            user_dq=_location(event, "userSuppliedDq"),
            on_existing=_on_existing(event),
            output_key=_text(event, "outputKey"),
            announce_failure=_flag(event, "announceFailure"),
        )

    def to_direct(self) -> dict[str, str]:
        """Return the direct request that asks for the same; what was not said is left out."""
        fields = {
            "bucket": self.source.bucket,
            "key": self.source.key,
            "versionId": self.source.version_id,
            "context": self.context,
            "mask": None if self.mask is None else str(self.mask),
            "userSuppliedDq": None if self.user_dq is None else str(self.user_dq),
            "onExisting": None if self.on_existing is None else self.on_existing.value,
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
            If the product would set the function off again, or lie where its input lies.
        """
        name = product_name(self.source.key.rpartition("/")[2])
        target = S3Location(bucket, self.output_key or f"{prefix}{name}")
        if target.key.endswith(_INPUT_SUFFIX) or target == replace(self.source, version_id=None):
            raise InputRejected(
                f"{self.source}: its product would be {target}, which is an input's key"
            )
        return target


_FIELDS = (
    "bucket",
    "key",
    "versionId",
    "context",
    "mask",
    "userSuppliedDq",
    "onExisting",
    "outputKey",
    "announceFailure",
)


def requests_in(event: Event) -> list[ExposureRequest]:
    """Read an event that is one of the three kinds; SQS batches are read message by message.

    Parameters
    ----------
    event : mapping
        The event, decoded from JSON.

    Returns
    -------
    list of `ExposureRequest`
        None for a test message or an event that speaks of no new object.

    Raises
    ------
    InputRejected
        If it is none of the kinds, or a field that it needs is missing.
    """
    if event.get("Event") == "s3:TestEvent":
        return []
    if "Records" in event:
        return [
            _from_notification(record)
            for record in event["Records"]
            if str(record.get("eventName", "")).startswith("ObjectCreated:")
        ]
    if event.get("source") == "aws.s3":
        return [_from_eventbridge(event)] if event.get("detail-type") == "Object Created" else []
    if event.get("source") == SOURCE:
        return [_from_failure(event)]
    return [ExposureRequest.from_direct(event)]


def requests_in_body(body: str) -> list[ExposureRequest]:
    """Read the body of an SQS message.

    Raises
    ------
    InputRejected
        If it is not JSON, or not an event.
    """
    try:
        event = json.loads(body)
    except ValueError as exc:
        raise InputRejected(f"message body is not JSON: {exc}") from exc
    if not isinstance(event, dict):
        raise InputRejected(f"message body is {type(event).__name__}, expected an event")
    return requests_in(event)


def _from_notification(record: Event) -> ExposureRequest:
    try:
        entity = record["s3"]
        found = entity["object"]
        key = unquote_plus(found["key"])
        source = S3Location(entity["bucket"]["name"], key, found.get("versionId"))
        return ExposureRequest(source, etag=found.get("eTag"))
    except (KeyError, TypeError, AttributeError) as exc:
        raise InputRejected(f"S3 notification: {exc!r} where an object was expected") from exc


def _from_eventbridge(event: Event) -> ExposureRequest:
    try:
        detail = event["detail"]
        found = detail["object"]
        source = S3Location(detail["bucket"]["name"], found["key"], found.get("version-id"))
        return ExposureRequest(source, etag=found.get("etag"))
    except (KeyError, TypeError, AttributeError) as exc:
        raise InputRejected(f"EventBridge event: {exc!r} where an object was expected") from exc


def _from_failure(event: Event) -> ExposureRequest:
    detail = event.get("detail")
    failed = isinstance(detail, dict) and detail.get("status") == "Failed"
    request = detail.get("request") if isinstance(detail, dict) and failed else None
    if not isinstance(request, dict):
        raise InputRejected("processing event: expected one that says Failed and names a request")
    return replace(ExposureRequest.from_direct(request), anew=True)


def _text(event: Event, field: str) -> str | None:
    value = event.get(field)
    if value is None or (isinstance(value, str) and value):
        return value
    raise InputRejected(f"request: {field} is {value!r}, expected text")


def _required(event: Event, field: str) -> str:
    value = _text(event, field)
    if value is None:
        raise InputRejected(f"request: {field} is missing")
    return value


def _flag(event: Event, field: str) -> bool:
    value = event.get(field, True)
    if isinstance(value, bool):
        return value
    raise InputRejected(f"request: {field} is {value!r}, expected true or false")


def _location(event: Event, field: str) -> S3Location | None:
    value = _text(event, field)
    try:
        return None if value is None else S3Location.parse(value)
    except ValueError as exc:
        raise InputRejected(f"request: {field}: {exc}") from exc


def _on_existing(event: Event) -> OnExisting | None:
    value = _text(event, "onExisting")
    try:
        return None if value is None else OnExisting(value)
    except ValueError as exc:
        raise InputRejected(
            f"request: onExisting is {value!r}, expected one of {', '.join(OnExisting)}"
        ) from exc
