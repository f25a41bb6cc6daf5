"""Which of the three classes of failure an error of AWS belongs to."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions
from botocore.exceptions import ClientError

from core.errors import TransientFailure

__all__ = ["code_of", "failures_of"]

_MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound"})
_TRANSIENT = frozenset(
    {
        "429",
        "500",
        "502",
        "503",
        "504",
        "ConditionalRequestConflict",
        "InternalError",
        "InternalFailure",
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeTooSkewed",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_NETWORK = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.FlexibleChecksumError,
    exceptions.IncompleteReadError,
)


def code_of(error: ClientError) -> str:
    """Return the error code that the service gave."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


@contextmanager
def failures_of(what: str, missing: type[Exception]) -> Iterator[None]:
    """Turn what AWS raises into the class that tells the caller what to do.

    Parameters
    ----------
    what : str
        What was being done to which object, for the message.
    missing : type
        What it means if the object is not there.

    Raises
    ------
    TransientFailure
        For throttling, time-outs, connections that break and objects that change meanwhile.
    Exception
        `missing`, if there is no such object. Whatever else AWS says (access denied, a malformed
        request) is a fault of the deployment or of ours, and surfaces as itself.
    """
    try:
        yield
    except ClientError as exc:
        code = code_of(exc)
        if code in _MISSING:
            raise missing(f"{what}: there is no such object ({code})") from exc
        if code in _TRANSIENT:
            raise TransientFailure(f"{what}: {exc}") from exc
        if code in {"412", "PreconditionFailed"}:
            raise TransientFailure(f"{what}: the object was replaced meanwhile ({code})") from exc
        raise
    except _NETWORK as exc:
        raise TransientFailure(f"{what}: {exc}") from exc
