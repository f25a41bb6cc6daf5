"""Which of the three classes of failure an error of AWS belongs to.

what AWS answers                                what it means
throttling, timeouts, broken connections        TransientFailure
the object is not as it was (412)               TransientFailure
an action is denied, a KMS key refuses          TransientFailure that names action, object and role
no such object, archived, not a valid name      the class that the caller names
anything else                                   a fault of the deployment, or of ours: as it is

A denied action is a matter of configuration, never of the exposure: it is retried until an operator
has allowed it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions
from botocore.exceptions import ClientError

from core.errors import TransientFailure

__all__ = [
    "CONFLICTS",
    "NETWORK",
    "code_of",
    "denial_of",
    "failures_of",
    "is_conflict",
    "is_denied",
    "is_missing",
    "is_transient",
]

_MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound"})
_REFUSED = {
    **dict.fromkeys(("400", "InvalidArgument"), "S3 calls the request malformed"),
    **dict.fromkeys(("405", "MethodNotAllowed"), "is a delete marker"),
    **dict.fromkeys(("301", "PermanentRedirect"), "lies in another region"),
    "InvalidBucketName": "is no bucket's name",
    "InvalidObjectState": "is archived; restore it first",
    "KeyTooLongError": "is no key",
}
"""Reads that no retry makes good, and what to say of them."""
_DENIED = frozenset({
    "403", "AccessDenied", "AccessDeniedException", "AllAccessDisabled", "Forbidden",
    "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "NotAuthorized",
    "SignatureDoesNotMatch", "UnauthorizedAccess", "UnrecognizedClientException",
})  # fmt: skip
"""Codes of S3, EventBridge and SQS for callers that may not do what they ask for."""
_KMS = "KMS."
"""How S3's codes begin that pass on an answer of KMS: a disabled key, a deleted one, throttling."""
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

_ACTIONS = {
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "UploadPartCopy": "s3:GetObject (or s3:PutObject on the product)",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "PutEvents": "events:PutEvents",
    "ChangeMessageVisibility": "sqs:ChangeMessageVisibility",
}
"""The IAM action that an operation needs; AWS names it in few of its answers."""
# "User: ARN is not authorized to perform: ACTION on resource: ARN because ...":
# docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
_PERFORM = re.compile(r"not authorized to perform:? ([a-z0-9-]+:\w+)")
_CALLER = re.compile(r"\bUser: (arn:\S+)")
_RESOURCE = re.compile(r"on resource:? \"?(arn:[^\s\"]+)")


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


def is_denied(error: BaseException | None) -> bool:
    """Say whether an error, or the one that it was raised from, is a denied permission."""
    if isinstance(error, ClientError):
        return code_of(error) in _DENIED or code_of(error).startswith(_KMS)
    return isinstance(error, TransientFailure) and is_denied(error.__cause__)


def denial_of(error: ClientError) -> str:
    """Describe a denied call: the action, the role, and how to allow it."""
    operation, code = error.operation_name, code_of(error)
    said = str(error.response.get("Error", {}).get("Message", ""))
    if code.startswith(_KMS):
        return f"KMS refuses the key of the object to {_caller(said)} ({operation}: {code} {said})"
    named, resource = _PERFORM.search(said), _RESOURCE.search(said)
    action = named[1] if named else _ACTIONS.get(operation, operation)
    on = f" on {resource[1].rstrip('.,')}" if resource else ""
    text = f"{action}{on} is denied to {_caller(said)} ({operation}: {code} {said}"
    return f"{text.rstrip()}); allow it in the role's policy{_HINTS.get(operation, '')}"


_HINTS = dict.fromkeys(
    ("HeadObject", "GetObject", "UploadPartCopy"),
    " (s3:GetObjectVersion, if a version is named; without s3:ListBucket, S3 answers 403 for a "
    "missing object, too; a Requester Pays bucket must be listed in REQUESTER_PAYS_BUCKETS)",
)


def _caller(said: str) -> str:
    """Name the role: as AWS does in its answer, or else as the environment does."""
    caller = _CALLER.search(said)
    if caller:
        return caller[1]
    if role := os.environ.get("AWS_ROLE_ARN"):
        return role
    if function := os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
        return f"the role of the Lambda function {function}"
    return f"the credentials of profile {os.environ.get('AWS_PROFILE', 'default')}"


def is_conflict(error: ClientError) -> bool:
    """Say whether a conditional PUT was refused, because its object was replaced or deleted.

    S3 answers NoSuchKey to If-Match on a deleted key:
    docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    """
    code = code_of(error)
    return code in CONFLICTS or (is_missing(error) and code != "NoSuchBucket")


@contextmanager
def failures_of(what: str, unavailable: type[Exception] | None = None) -> Iterator[None]:
    """Turn what AWS raises into the class that tells the caller what to do.

    Parameters
    ----------
    what : str
        The object and what was being done to it, for the message.
    unavailable : type or None
        What it means if the object is not there, or cannot have that name; None where that is a
        fault of the deployment, or of ours, and surfaces as itself.

    Raises
    ------
    TransientFailure
        For throttling, timeouts, broken connections, objects that change meanwhile and denied
        permissions.
    Exception
        `unavailable`.
    """
    try:
        yield
    except ClientError as exc:
        code = code_of(exc)
        if is_transient(exc):
            raise TransientFailure(f"{what}: {exc}") from exc
        if is_denied(exc):
            raise TransientFailure(f"{what}: {denial_of(exc)}") from exc
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
