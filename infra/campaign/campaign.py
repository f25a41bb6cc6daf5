"""What is kept of a campaign, below a prefix of the product bucket, so that it can be gone on with.

requests.jsonl   what is asked for, a direct request in each line; when it was written, it began
submitted        how many of them are in the queue
result.json      how it ended
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from handler.s3.errors import is_missing
from handler.s3.locations import S3Location

__all__ = ["Campaign", "Manifest"]

_REQUESTS, _SUBMITTED, _RESULT = "requests.jsonl", "submitted", "result.json"

_TICK = 1.1
"""S3 tells times in whole seconds: what is written later than this has a later time."""


@dataclass(frozen=True)
class Manifest:
    """What is asked for.

    Attributes
    ----------
    lines : tuple of str
        Direct requests, as JSON.
    began : `datetime.datetime`
        When it was written, by S3's clock. What is done for it has a later time.
    """

    lines: tuple[str, ...]
    began: datetime


@dataclass(frozen=True)
class Campaign:
    """A campaign, at rest or on its way.

    Attributes
    ----------
    s3 : boto3 S3 client
        How to reach it.
    place : `~handler.s3.locations.S3Location`
        The prefix below which it is kept.
    """

    s3: Any
    place: S3Location

    def begin(self, requests: Iterable[dict[str, Any]]) -> Manifest:
        """Write down what is asked for; what an earlier campaign left there is forgotten."""
        for name in (_RESULT, _SUBMITTED):
            self.s3.delete_object(**self.place.below(name).address)
        text = "".join(f"{json.dumps(request)}\n" for request in requests)
        self._write(_REQUESTS, text)
        time.sleep(_TICK)
        manifest = self._manifest()
        assert manifest is not None
        return manifest

    def unfinished(self) -> Manifest | None:
        """Return what was asked for, if it began and has not ended."""
        return None if self.has_ended else self._manifest()

    @property
    def has_ended(self) -> bool:
        """Whether it was followed to its end, or needs no following."""
        return self._read(_RESULT) is not None

    @property
    def submitted(self) -> int:
        """How many requests are in the queue at least."""
        found = self._read(_SUBMITTED)
        return int(found[0]) if found else 0

    def note_submitted(self, number: int) -> None:
        """Write down how many requests are in the queue."""
        self._write(_SUBMITTED, str(number))

    def end(self, result: dict[str, Any]) -> None:
        """Write down how it ended."""
        self._write(_RESULT, json.dumps(result, indent=2))

    def _manifest(self) -> Manifest | None:
        found = self._read(_REQUESTS)
        return found and Manifest(tuple(found[0].splitlines()), found[1])

    def _read(self, name: str) -> tuple[str, datetime] | None:
        try:
            answer = self.s3.get_object(**self.place.below(name).address)
        except ClientError as exc:
            if is_missing(exc):
                return None
            raise
        return answer["Body"].read().decode(), answer["LastModified"]

    def _write(self, name: str, text: str) -> None:
        self.s3.put_object(**self.place.below(name).address, Body=text.encode())
