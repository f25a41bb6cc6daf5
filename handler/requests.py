"""Every way in becomes one `ExposureRequest` per exposure.

What arrives                                       what it looks like
an S3 notification                                 {"Records": [{"eventSource": "aws:s3", ...}]}
an EventBridge event                               {"source": "aws.s3", "detail-type": ..., ...}
a direct request (Step Functions, CLI, sam local)  {"bucket": ..., "key": ..., ...}

The body of each message of an SQS batch is one of the first two, as JSON. S3 notifications encode
keys as forms do (a blank is ``+``); EventBridge and direct requests carry them as they are. The
message that S3 sends to test a notification asks for nothing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_plus

from core.errors import InputRejected
from core.product import NO_MASK, product_name
from handler.locations import S3Location
from handler.settings import OnExisting

__all__ = ["ExposureRequest", "requests_in", "requests_in_body"]

Event = Mapping[str, Any]

_CONTEXT = re.compile(r"latest|jwst_\d+\.pmap")
_INPUT_SUFFIX = "_uncal.fits"


@dataclass(frozen=True)
class ExposureRequest:
    """One exposure to process, and what the caller wants done differently.

    Attributes
    ----------
    source : `~handler.locations.S3Location`
        The exposure, with the version that the event names.
    context : str or None
        CRDS context; None for the function's own.
    mask : `~handler.locations.S3Location`, ``"N/A"`` or None
        A mask to use instead of the rules' choice; N/A for none at all.
    user_dq : `~handler.locations.S3Location` or None
        User-supplied DQ image.
    on_existing : `~handler.settings.OnExisting` or None
        What to do when the product is there; None for the function's own.
    output_key : str or None
        Key of the product; None for the usual one.
    """

    source: S3Location
    context: str | None = None
    mask: S3Location | str | None = None
    user_dq: S3Location | None = None
    on_existing: OnExisting | None = None
    output_key: str | None = None

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
        )

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
        key = unquote_plus(entity["object"]["key"])
        version = entity["object"].get("versionId")
        return ExposureRequest(S3Location(entity["bucket"]["name"], key, version))
    except (KeyError, TypeError, AttributeError) as exc:
        raise InputRejected(f"S3 notification: {exc!r} where an object was expected") from exc


def _from_eventbridge(event: Event) -> ExposureRequest:
    try:
        detail = event["detail"]
        entity = detail["object"]
        return ExposureRequest(
            S3Location(detail["bucket"]["name"], entity["key"], entity.get("version-id"))
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise InputRejected(f"EventBridge event: {exc!r} where an object was expected") from exc


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
