"""Read every kind of event as `ExposureRequest`, one per exposure.

event                                              form
S3 notification                                    {"Records": [{"eventSource": "aws:s3", ...}]}
EventBridge event                                  {"source": "aws.s3", "detail-type": ..., ...}
direct request (Step Functions, CLI, sam local)    {"bucket": ..., "key": ..., ...}
processing event of this function                  {"source": "jwst.dq_init", "detail": ...}

The body of an SQS message is one of these, as JSON. A processing event that says Failed is a retry
of its request; any other one could not be delivered by EventBridge, and is published again.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum, auto
from typing import Any
from urllib.parse import unquote_plus

from core.errors import InputRejected
from core.product import NO_MASK, Form, product_name
from handler.event import SOURCE, ProcessingEvent, Status
from handler.s3.objects import S3Location

Event = Mapping[str, Any]

_CONTEXT = re.compile(r"latest|build|jwst-(latest|operational|build)|jwst_\d+\.pmap")
_INPUT_SUFFIX = "_uncal.fits"
_LONGEST_TEXT = 1024  # bytes; S3's limit for keys, applied to every field


class OnExisting(StrEnum):
    """Field onExisting of a request: what to do if an object exists at the product's key."""

    SKIP = "skip"  # keep an up-to-date or pinned product, rebuild an outdated one; so do uploads
    REPLACE = "replace"  # rebuild, unless the same cause built the product
    ERROR = "error"  # reject the request, unless the same cause built the product


class Mode(IntEnum):
    """Mode of an attempt: decides which failures are published, and whether it may build.

    Of the modes of a message's queue and of its request, the one that is listed later here applies.
    """

    ONCE = auto()  # the caller does not retry: every failure is published
    RETRIED = auto()  # the caller retries: a failure is published only if no retry can help
    REPORT = auto()  # the attempts are over: the result is published, nothing is built


@dataclass(frozen=True)
class Attempt:
    """One attempt to process a request: cause, invocation and mode."""

    cause: str  # ID of the SQS message, execution or invocation; the same in every attempt
    request_id: str  # AWS request ID of the invocation
    mode: Mode = Mode.ONCE


@dataclass(frozen=True)
class ExposureRequest:
    """One exposure to process, and the options of a direct request."""

    source: S3Location  # with the version that the event or request names
    context: str | None = None  # None: the function's own
    # Used instead of the rules; "N/A": no mask; None: by the rules.
    mask: S3Location | str | None = None
    user_dq: S3Location | None = None
    on_existing: OnExisting = OnExisting.SKIP
    output_key: str | None = None  # key of the product; None: the default key
    form: Form | None = None  # None: that of `output_key`, else the function's own
    etag: str | None = None  # in the event, without quotes
    size: int | None = None  # in the event, in bytes
    # Whether S3 sent it: the version then identifies an upload, and is not the one to read.
    is_event: bool = False
    cause: str | None = None  # named by a direct request
    mode: Mode = Mode.ONCE

    @classmethod
    def from_direct(cls, event: Event) -> "ExposureRequest":
        """Return the request in a JSON object, or raise `InputRejected` if a field is invalid."""
        if unknown := set(event) - set(_FIELDS):
            names = ", ".join(sorted(repr(str(name)[:80]) for name in unknown)[:5])
            raise InputRejected(f"request: unknown fields {names}, expected {', '.join(_FIELDS)}")
        source = _object(event)
        context, on_existing = _text(event, "context"), _text(event, "onExisting") or "skip"
        if context is not None and not _CONTEXT.fullmatch(context):
            raise InputRejected(
                f"request: context is {context!r}, expected latest, build or jwst_N.pmap"
            )
        no_mask = event.get("mask") == NO_MASK
        mask = NO_MASK if no_mask else _location(event, "mask")
        if not str(mask).isascii():  # FITS headers are ASCII
            raise InputRejected(f"request: mask is {str(mask)!r}, expected ASCII: R_MASK holds it")
        if on_existing not in tuple(OnExisting):
            raise InputRejected(
                f"request: onExisting is {on_existing!r}, expected one of {', '.join(OnExisting)}"
            )
        form, output_key = _text(event, "form"), _text(event, "outputKey")
        if form is not None and form not in tuple(Form):
            raise InputRejected(f"request: form is {form!r}, expected one of {', '.join(Form)}")
        if form and output_key and form != Form.of_key(output_key):
            raise InputRejected(
                f"request: outputKey is {output_key!r} and form is {form}, expected a key that "
                "ends in _virtual.fits for a virtual product, and only for one"
            )
        mode = Mode.RETRIED if _flag(event, "retried") else Mode.ONCE
        return cls(
            source=source,
            context=context,
            mask=mask,
            user_dq=_location(event, "userSuppliedDq"),
            on_existing=OnExisting(on_existing),
            form=Form(form) if form else None,
            output_key=output_key,
            cause=_text(event, "cause"),
            mode=Mode.REPORT if _flag(event, "reportOnly") else mode,
        )

    @property
    def location(self) -> S3Location:
        """The exposure to read: with a version ID only if a direct request names one."""
        return S3Location(self.source.bucket, self.source.key) if self.is_event else self.source

    @property
    def pins(self) -> bool:
        """Whether the request names a mask or user DQ, and so pins its product.

        The mask "N/A" counts, too.
        """
        return self.mask is not None or self.user_dq is not None

    def is_for(self, version_id: str | None, etag: str) -> bool:
        """Say whether the exposure with this version ID and ETag is the one requested.

        A version ID or ETag that the event or the direct request does not name counts as equal.
        """
        # S3 names the version of an object "null" that was written before its bucket had versions.
        is_same_version = self.source.version_id in {None, version_id or "null"}
        return is_same_version and self.etag in {None, etag.strip('"')}

    def to_direct(self) -> dict[str, str]:
        """Return a direct request that repeats this one, without cause and mode."""
        fields = {
            "bucket": self.source.bucket,
            "key": self.source.key,
            "versionId": self.location.version_id,
            "context": self.context,
            "mask": None if self.mask is None else str(self.mask),
            "userSuppliedDq": None if self.user_dq is None else str(self.user_dq),
            "onExisting": None if self.on_existing is OnExisting.SKIP else self.on_existing.value,
            "form": self.form and self.form.value,
            "outputKey": self.output_key,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def target(self, bucket: str, prefix: str, form: Form = Form.ASSEMBLED) -> S3Location:
        """Return the product's location in `bucket`, or raise `InputRejected` for its key.

        The key must be below `prefix`, have at most 1024 bytes, and not end in _uncal.fits or be
        the exposure's. `form` applies if the request names neither a form nor an output key.
        """
        default = default_key(self.source.key, prefix, self.form or form)
        target = S3Location(bucket, self.output_key or default)
        if not target.key.startswith(prefix) or target.key == prefix:
            raise InputRejected(
                f"{self.source}: outputKey is {target.key!r}, expected a key below {prefix!r}"
            )
        # An upload to such a key would invoke the function again.
        is_source = target == S3Location(self.source.bucket, self.source.key)
        if target.key.endswith(_INPUT_SUFFIX) or is_source:
            raise InputRejected(
                f"{self.source}: product would be {target}, expected a key that does not end in "
                f"{_INPUT_SUFFIX}, and is not the exposure's; name another outputKey"
            )
        if (size := len(target.key.encode())) > _LONGEST_TEXT:
            raise InputRejected(
                f"{self.source}: its product's key would have {size} bytes, expected at most "
                f"{_LONGEST_TEXT}; name a shorter outputKey"
            )
        return target


def default_key(exposure_key: str, prefix: str, form: Form) -> str:
    """Return the key of an exposure's product if its request names none."""
    folder, slash, name = exposure_key.rpartition("/")
    suffix = "dq_init_virtual" if form is Form.VIRTUAL else "dq_init"
    return f"{prefix}{folder}{slash}{product_name(name, suffix)}"


_FIELDS = (
    "bucket", "key", "versionId", "context", "mask", "userSuppliedDq", "onExisting", "outputKey",
    "form", "cause", "retried", "reportOnly",
)  # fmt: skip


def decode(body: str) -> object:
    """Return the JSON value in the body of an SQS message, or raise `InputRejected`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InputRejected(f"SQS message: its body is not JSON, expected so: {exc}") from exc


def split(event: object) -> list[object]:
    """Split an event into parts of at most one exposure each, for `read_request`.

    Test messages of S3, and S3 events of other changes than a new object, have no parts. Anything
    but an S3 notification is one part, even if invalid.
    """
    if not isinstance(event, dict):
        return [event]
    if event.get("Event") == "s3:TestEvent":
        return []
    records = event.get("Records")
    if isinstance(records, list):
        return [{"Records": [record]} for record in records if not _is_other_event(record)]
    if event.get("source") == "aws.s3" and event.get("detail-type") != "Object Created":
        return []
    return [event]


def _is_other_event(record: object) -> bool:
    """Say whether a record of an S3 notification names another event than ObjectCreated."""
    return (
        isinstance(record, dict)
        and "eventName" in record
        and not str(record["eventName"]).startswith("ObjectCreated:")
    )


def undelivered(event: object) -> ProcessingEvent | None:
    """Return the result in a Complete or Skipped processing event, to publish again; else None.

    Raises `InputRejected` if the detail of such an event is invalid.
    """
    if not isinstance(event, dict) or event.get("source") != SOURCE:
        return None
    try:
        if event["detail"]["status"] == Status.FAILED:
            return None
        return ProcessingEvent.from_detail(event["detail"])
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InputRejected(
            f"processing event: invalid detail ({exc}), expected its schema; discard the message"
        ) from exc


def read_request(event: object) -> ExposureRequest:
    """Return the request in one part that `split` returned, or raise `InputRejected`."""
    if not isinstance(event, dict):
        raise InputRejected("event: is not a JSON object, expected one with a bucket and a key")
    if "Records" in event or event.get("source") == "aws.s3":
        return _from_s3(event)
    if event.get("source") == SOURCE:
        return _from_failure(event)
    return ExposureRequest.from_direct(event)


def _from_s3(event: Event) -> ExposureRequest:
    is_notification = "Records" in event
    kind = "S3 notification" if is_notification else "EventBridge event"
    try:
        part = event["Records"][0]["s3"] if is_notification else event["detail"]
        bucket, key, created = part["bucket"]["name"], part["object"]["key"], part["object"]
        # Notifications encode keys like forms; EventBridge does not encode them:
        # docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
        fields = {
            "bucket": bucket,
            "key": unquote_plus(key) if is_notification else key,
            "versionId": created.get("versionId" if is_notification else "version-id"),
            "etag": created.get("eTag" if is_notification else "etag"),
        }
    except (KeyError, IndexError, TypeError, AttributeError) as exc:
        raise InputRejected(
            f"{kind}: lacks bucket.name or object.key ({exc}), expected both; correct the sender"
        ) from exc
    etag, size = _text(fields, "etag"), created.get("size")
    return ExposureRequest(
        _object(fields),
        etag=etag and etag.strip('"'),
        size=size if isinstance(size, int) else None,
        is_event=True,
    )


def _from_failure(event: Event) -> ExposureRequest:
    detail = event.get("detail")
    failed = isinstance(detail, dict) and detail.get("status") == Status.FAILED
    request = detail.get("request") if isinstance(detail, dict) and failed else None
    if not isinstance(request, dict):
        found = str(detail.get("status"))[:80] if isinstance(detail, dict) else "no detail"
        raise InputRejected(
            f"processing event: {found} names no failed request, expected a Failed event that "
            "names its request; discard the message"
        )
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
        raise InputRejected(f"request: {field} is not UTF-8 text: {exc}") from exc
    if size > _LONGEST_TEXT:
        raise InputRejected(
            f"request: {field} has {size} bytes ({value[:80]!r}...), expected at most "
            f"{_LONGEST_TEXT}"
        )
    return value


def _object(event: Event) -> S3Location:
    bucket, key = _text(event, "bucket"), _text(event, "key")
    if bucket is None or key is None:
        raise InputRejected(f"request: {'key' if bucket else 'bucket'} is missing, expected text")
    return S3Location(bucket, key, _text(event, "versionId"))


def _flag(event: Event, field: str) -> bool:
    value = event.get(field, False)
    if isinstance(value, bool):
        return value
    raise InputRejected(f"request: {field} is {str(value)[:80]!r}, expected true or false")


def _location(event: Event, field: str) -> S3Location | None:
    value = _text(event, field)
    try:
        return None if value is None else S3Location.parse(value)
    except ValueError as exc:
        raise InputRejected(f"request: {field}: {exc}") from exc
