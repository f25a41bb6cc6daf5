"""The processing event: what the world is told of every exposure. Its schema is kept in infra/.

Everything that goes into the event is gathered in one `Record` while the exposure is processed, so
that a failure is announced with as much as was known by then.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core import __version__
from core.errors import TransientFailure
from core.exposure import Exposure
from core.flags import count_by_mnemonic
from handler.reference import Reference
from handler.requests import SOURCE, ExposureRequest
from handler.s3.errors import failures_of
from handler.s3.locations import S3Location
from handler.s3.objects import StoredObject

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient

__all__ = ["SCHEMA_VERSION", "Record", "Status", "announce", "skipped"]

SCHEMA_VERSION = "1.1"
_LONGEST_REASON = 2048


class Status(StrEnum):
    """How it ended."""

    COMPLETE = "Complete"
    SKIPPED = "Skipped"
    FAILED = "Failed"


@dataclass
class Record:
    """What is known of an exposure so far; becomes the event's detail.

    Attributes
    ----------
    mirror : `~handler.s3.locations.S3Location`
        The CRDS mirror in use.
    request_id : str
        AWS's identifier of the invocation.
    """

    mirror: S3Location
    request_id: str
    _parts: dict[str, Any] = field(default_factory=dict)

    def request_is(self, request: ExposureRequest) -> None:
        """Note what was asked for, and of which object."""
        self._parts["request"] = request.to_direct()
        self.input_is(request.source)

    def input_is(self, found: StoredObject | S3Location) -> None:
        """Note the input: where it lies, or the object found there."""
        self._parts["input"] = _object_part(found)

    def output_is(self, found: StoredObject) -> None:
        """Note the product."""
        self._parts["output"] = _object_part(found)

    def exposure_is(self, exposure: Exposure) -> None:
        """Note what the exposure's headers say."""
        self._parts["exposure"] = {
            "instrument": exposure.keyword("INSTRUME"),
            "detector": exposure.keyword("DETECTOR"),
            "exposureType": exposure.keyword("EXP_TYPE"),
            "subarray": exposure.keyword("SUBARRAY"),
            "kind": exposure.kind.value,
            "shape": list(exposure.shape),
        }

    def reference_is(self, reference: Reference) -> None:
        """Note which mask applies."""
        self._parts["reference"] = {
            "mask": reference.label,
            "sha1": reference.sha1 or None,
            "context": reference.context,
            "mirror": str(self.mirror),
        }

    def flags_are(self, dq: NDArray[np.uint32]) -> None:
        """Count the flags of the data-quality image."""
        counts = count_by_mnemonic(dq)
        bad = counts.get("DO_NOT_USE", 0)
        self._parts["flags"] = {
            "pixels": dq.size,
            "byMnemonic": counts,
            "doNotUse": bad,
            "doNotUseFraction": bad / dq.size,
        }

    def detail(
        self, status: Status, reason: str | None, error: str | None, usage: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the event's detail.

        Parameters
        ----------
        status : `Status`
            How it ended.
        reason : str or None
            Why it was skipped, or failed.
        error : str or None
            Class of the exception, if it failed.
        usage : dict
            Duration in seconds and bytes moved.
        """
        known = ("request", "input", "output", "exposure", "reference", "flags")
        return {
            "schemaVersion": SCHEMA_VERSION,
            "id": uuid.uuid4().hex,
            "status": status.value,
            "reason": reason[:_LONGEST_REASON] if reason else None,
            "error": error,
            **{part: self._parts.get(part) for part in known},
            "function": {"version": __version__, "requestId": self.request_id, **usage},
        }


def skipped(detail: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is announced where the result, `detail`, was announced `before`."""
    request = before["function"]["requestId"]
    reason = f"was announced as {before['status']} by request {request}"
    status = Status.SKIPPED.value
    return {**detail, "id": uuid.uuid4().hex, "status": status, "reason": reason, "error": None}


def announce(client: "EventBridgeClient", bus: str, detail: dict[str, Any]) -> None:
    """Put a processing event on the bus.

    Parameters
    ----------
    client : boto3 EventBridge client
        How to reach it.
    bus : str
        Name or ARN of the bus.
    detail : dict
        As `Record.detail` returns it.

    Raises
    ------
    TransientFailure
        If EventBridge does not take it.
    """
    entry = {
        "EventBusName": bus,
        "Source": SOURCE,
        "DetailType": f"DQ Initialization {detail['status']}",
        "Detail": json.dumps(detail),
    }
    with failures_of(f"{bus}: announcing the result", TransientFailure):
        answer = client.put_events(Entries=[entry])  # type: ignore[list-item]
    if answer["FailedEntryCount"]:
        failed = answer["Entries"][0]
        raise TransientFailure(
            f"{bus}: the event was not taken: {failed['ErrorCode']} {failed['ErrorMessage']}"
        )


def _object_part(found: StoredObject | S3Location) -> dict[str, Any]:
    location = found.location if isinstance(found, StoredObject) else found
    return {
        "bucket": location.bucket,
        "key": location.key,
        "versionId": location.version_id,
        "etag": found.etag if isinstance(found, StoredObject) else None,
        "bytes": found.size if isinstance(found, StoredObject) else None,
    }
