"""The function's environment, checked once."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from core.product import Encoding
from handler.s3.locations import S3Location

__all__ = ["LATEST", "OnExisting", "Settings"]

LATEST = "latest"

Choice = TypeVar("Choice", bound=StrEnum)


class OnExisting(StrEnum):
    """What to do when a product made from the same input and mask is there."""

    SKIP = "skip"
    REPLACE = "replace"
    ERROR = "error"


@dataclass(frozen=True)
class Settings:
    """What the environment says; the README has the table of it.

    Attributes
    ----------
    output_bucket, output_prefix : str
        Where products go.
    mirror : `~handler.s3.locations.S3Location`
        The CRDS mirror; its key is the prefix, without a slash at the end.
    context : str
        ``latest`` or the name of a context.
    event_bus : str
        EventBridge bus for processing events.
    encoding : `~core.product.Encoding`
        How science pixels are written.
    on_existing : `OnExisting`
        What to do when the product is there.
    blocks : `~handler.s3.locations.S3Location` or None
        Where repeated planes may be kept; None to keep none.
    outcomes : `~handler.s3.locations.S3Location` or None
        Where it is kept how exposures ended; None to keep nothing.
    event_log : str or None
        CloudWatch log group that holds every processing event.
    queue : str or None
        Address of the SQS queue whose batches come in.
    attempts : int
        How often a message of it is attempted.
    retry_delay : int
        Seconds before a message whose first attempt failed is delivered again.
    """

    output_bucket: str
    output_prefix: str
    mirror: S3Location
    context: str
    event_bus: str
    encoding: Encoding
    on_existing: OnExisting
    blocks: S3Location | None = None
    outcomes: S3Location | None = None
    event_log: str | None = None
    queue: str | None = None
    attempts: int = 5
    retry_delay: int = 30

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read and check the environment.

        Parameters
        ----------
        environment : mapping of str to str
            `os.environ`, or what a test puts in its place.

        Raises
        ------
        ValueError
            If a variable is missing or makes no sense; the message names it.
        """
        return cls(
            output_bucket=_required(environment, "OUTPUT_BUCKET"),
            output_prefix=environment.get("OUTPUT_PREFIX", "dq_init/"),
            mirror=_mirror(_required(environment, "CRDS_MIRROR")),
            context=environment.get("CRDS_CONTEXT") or LATEST,
            event_bus=environment.get("EVENT_BUS") or "default",
            encoding=_choice(environment, "SCIENCE_ENCODING", Encoding, Encoding.NATIVE),
            blocks=_place(environment, "DQ_BLOCK_URI"),
            outcomes=_place(environment, "OUTCOME_URI"),
            event_log=environment.get("EVENT_LOG") or None,
            queue=environment.get("UPLOADED_QUEUE") or None,
            attempts=_count(environment, "MAX_ATTEMPTS", 5),
            retry_delay=_count(environment, "RETRY_DELAY", 30),
            on_existing=_choice(environment, "ON_EXISTING", OnExisting, OnExisting.SKIP),
        )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise ValueError(f"the environment variable {name} is not set")
    return value


def _mirror(uri: str) -> S3Location:
    if uri != uri.lower():
        # The crds package turns the addresses it is given to lower case before it reads them.
        raise ValueError(f"CRDS_MIRROR={uri!r}: the prefix must be in lower case")
    try:
        return S3Location.parse_prefix(uri)
    except ValueError as exc:
        raise ValueError(f"CRDS_MIRROR={uri!r}: {exc}") from exc


def _place(environment: Mapping[str, str], name: str) -> S3Location | None:
    uri = environment.get(name, "")
    try:
        return S3Location.parse_prefix(uri) if uri else None
    except ValueError as exc:
        raise ValueError(f"{name}={uri!r}: {exc}") from exc


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{name}={value!r}: expected a number from 1")
    return int(value)


def _choice(
    environment: Mapping[str, str], name: str, choices: type[Choice], default: Choice
) -> Choice:
    value = environment.get(name) or default.value
    try:
        return choices(value)
    except ValueError as exc:
        expected = ", ".join(choices)
        raise ValueError(f"{name}={value!r}: expected one of {expected}") from exc
