"""Which of the three classes of failure an error of AWS belongs to.

what AWS says                                   what it means
throttling, time-outs, broken connections       TransientFailure
the object is not as it was (412)               TransientFailure
not there, not to be read, archived, no name    the class that the caller names
anything else                                   a fault of the deployment, or of ours: as it is
"""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions
from botocore.exceptions import ClientError

from core.errors import TransientFailure

__all__ = ["CONFLICTS", "NETWORK", "code_of", "failures_of", "is_missing", "is_transient"]

_MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound"})
_REFUSED = {
    **dict.fromkeys(("400", "InvalidArgument"), "S3 calls the request malformed"),
    **dict.fromkeys(
        ("403", "AccessDenied", "AllAccessDisabled"),
        "is not there, or may not be read (S3 tells only who may list the bucket)",
    ),
    **dict.fromkeys(("405", "MethodNotAllowed"), "is a delete marker"),
    **dict.fromkeys(("301", "PermanentRedirect"), "lies in another region"),
    "InvalidBucketName": "is no bucket's name",
    "InvalidObjectState": "is archived; restore it first",
    "KeyTooLongError": "is no key",
}
"""Reads that no retry makes good, and what to say of them."""
CONFLICTS = frozenset({"409", "412", "ConditionalRequestConflict", "PreconditionFailed"})
"""The object is not as the condition of the request says."""
_TRANSIENT = frozenset({
    "429", "500", "502", "503", "504", "ConditionalRequestConflict", "ExpiredToken",
    "InternalError", "InternalFailure", "NoSuchUpload", "OperationAborted", "RequestLimitExceeded",
    "RequestTimeout", "RequestTimeTooSkewed", "ServiceUnavailable", "SlowDown",
    "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequestsException",
})  # fmt: skip
NETWORK = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.FlexibleChecksumError,
    exceptions.IncompleteReadError,
)
"""What botocore raises where no whole answer came."""


def code_of(error: ClientError) -> str:
    """Return the error code that the service gave."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def is_missing(error: ClientError) -> bool:
    """Say whether there is no such object."""
    return code_of(error) in _MISSING


def is_transient(error: Exception) -> bool:
    """Say whether the same call may succeed later."""
    return isinstance(error, NETWORK) or (
        isinstance(error, ClientError) and code_of(error) in _TRANSIENT
    )


@contextmanager
def failures_of(what: str, unavailable: type[Exception] | None = None) -> Iterator[None]:
    """Turn what AWS raises into the class that tells the caller what to do.

    Parameters
    ----------
    what : str
        What was being done to which object, for the message.
    unavailable : type or None
        What it means if the object is not there, may not be read, or cannot have that name; None
        where that is a fault of the deployment, or of ours, and surfaces as itself.

    Raises
    ------
    TransientFailure
        For throttling, time-outs, connections that break and objects that change meanwhile.
    Exception
        `unavailable`.
    """
    try:
        yield
    except ClientError as exc:
        code = code_of(exc)
        if is_transient(exc):
            raise TransientFailure(f"{what}: {exc}") from exc
        if code in CONFLICTS:
            raise TransientFailure(f"{what}: the object was replaced meanwhile ({code})") from exc
        if unavailable is None:
            raise
        if code in _MISSING:
            raise unavailable(f"{what}: there is no such object ({code})") from exc
        if code in _REFUSED:
            raise unavailable(f"{what}: {_REFUSED[code]} ({exc})") from exc
        raise
    except NETWORK as exc:
        raise TransientFailure(f"{what}: {exc}") from exc
    except exceptions.BotoCoreError as exc:
        if unavailable is None:
            raise
        raise unavailable(f"{what}: {' '.join(str(exc).split())}") from exc
