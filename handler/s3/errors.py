"""The error class that each AWS error is raised as.

AWS error                                       raised as
throttling, timeout, broken connection          TransientFailure
failed precondition (412)                       TransientFailure
denied action, refused KMS key                  TransientFailure that names action, object and role
missing or archived object, invalid name        the class that the caller names
no usable credentials, anything else            itself: the deployment or this code is wrong
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions
from botocore.exceptions import ClientError

from core.errors import TransientFailure

NO_BUCKET = "NoSuchBucket"
_MISSING = frozenset({"404", "NoSuchKey", NO_BUCKET, "NoSuchVersion", "NotFound"})
_ARCHIVED = ("InvalidObjectState", "ObjectNotInActiveTierError")
# Errors of reads that no retry solves.
_REFUSED = {
    **dict.fromkeys(("400", "InvalidArgument", "InvalidRequest"), "S3 rejects the request"),
    **dict.fromkeys(("405", "MethodNotAllowed"), "is a delete marker"),
    **dict.fromkeys(("301", "PermanentRedirect"), "is in another region"),
    "InvalidBucketName": "is not a valid bucket name",
    **dict.fromkeys(_ARCHIVED, "is archived; restore it first"),
    "KeyTooLongError": "the key is longer than 1,024 bytes",
}
# Of S3, EventBridge and SQS.
_DENIED = frozenset({
    "403", "AccessDenied", "AccessDeniedException", "AllAccessDisabled", "Forbidden",
    "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "NotAuthorized",
    "SignatureDoesNotMatch", "UnauthorizedAccess", "UnrecognizedClientException",
})  # fmt: skip
# S3 passes on errors of KMS (disabled or deleted key, throttling) with this prefix.
_KMS = "KMS."
CONFLICTS = frozenset({"409", "412", "ConditionalRequestConflict", "PreconditionFailed"})
_TRANSIENT = frozenset({
    "429", "BadDigest", "ConditionalRequestConflict", "ExpiredToken", "ExpiredTokenException",
    "InternalError", "InternalException", "InternalFailure", "NoSuchUpload", "OperationAborted",
    "RequestLimitExceeded", "RequestTimeout", "RequestTimeTooSkewed", "ServiceUnavailable",
    "SlowDown", "ThrottledException", "Throttling", "ThrottlingException",
    "TooManyRequestsException",
})  # fmt: skip
_SERVER_ERRORS = frozenset({500, 502, 503, 504})
# botocore raises these if no complete response arrived.
NETWORK = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.FlexibleChecksumError,
    exceptions.IncompleteReadError,
)
# botocore raises these if it finds no usable credentials.
_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
)

# The IAM action that an operation needs: most responses do not name it.
_ACTIONS = {
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "UploadPartCopy": "s3:GetObject (or s3:PutObject on the product)",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "PutEvents": "events:PutEvents",
    "ChangeMessageVisibility": "sqs:ChangeMessageVisibility",
}
_HINTS = dict.fromkeys(
    ("HeadObject", "GetObject", "UploadPartCopy"),
    " (s3:GetObjectVersion, if a version is named; without s3:ListBucket, S3 answers 403 for a "
    "missing object, too; a Requester Pays bucket must be listed in REQUESTER_PAYS_BUCKETS)",
)
# "User: ARN is not authorized to perform: ACTION on resource: ARN because ...":
# docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
_ACTION = re.compile(r"not authorized to perform:? ([a-z0-9-]+:\w+)")
_CALLER = re.compile(r"\bUser: (arn:\S+)")
_RESOURCE = re.compile(r"on resource:? \"?(arn:[^\s\"]+)")


def error_code(error: ClientError) -> str:
    """Return the error code of an AWS response, ``unknown`` if it has none."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def is_missing(error: ClientError) -> bool:
    """Say whether an AWS error means that the object or its bucket does not exist."""
    return error_code(error) in _MISSING


def is_archived(error: BaseException | None) -> bool:
    """Say whether an AWS error means that the object is archived."""
    return isinstance(error, ClientError) and error_code(error) in _ARCHIVED


def is_transient(error: Exception) -> bool:
    """Say whether an AWS error is temporary: throttling, a server error or a lost connection."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in _SERVER_ERRORS or error_code(error) in _TRANSIENT
    return isinstance(error, NETWORK)


def is_conflict(error: ClientError) -> bool:
    """Say whether a conditional write failed because its object was written or deleted."""
    # S3 answers NoSuchKey to If-Match on a deleted key:
    # docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    code = error_code(error)
    return code in CONFLICTS or (code in _MISSING and code != NO_BUCKET)


def is_denied(error: BaseException | None) -> bool:
    """Say whether an AWS error means denied access, bad credentials or an error of KMS.

    A `TransientFailure` is judged by the error that it wraps; None is not denied.
    """
    if isinstance(error, ClientError):
        return error_code(error) in _DENIED or error_code(error).startswith(_KMS)
    return isinstance(error, TransientFailure) and is_denied(error.__cause__)


def describe_denial(error: ClientError) -> str:
    """Return a message about a denied call: IAM action, identity, response and advice."""
    operation, code = error.operation_name, error_code(error)
    message = str(error.response.get("Error", {}).get("Message", ""))
    caller = _caller(message)
    if code.startswith(_KMS):
        return f"KMS refuses the key of the object to {caller} ({operation}: {code} {message})"
    action, resource = _ACTION.search(message), _RESOURCE.search(message)
    name = action[1] if action else _ACTIONS.get(operation, operation)
    on = f" on {resource[1].rstrip('.,')}" if resource else ""
    response = f"{operation}: {code} {message}".rstrip()
    hint = _HINTS.get(operation, "")
    return f"{name}{on} is denied to {caller} ({response}); allow it in the role's policy{hint}"


def _caller(message: str) -> str:
    if caller := _CALLER.search(message):
        return caller[1]
    if role := os.environ.get("AWS_ROLE_ARN"):
        return role
    if function := os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
        return f"the role of the Lambda function {function}"
    return f"the credentials of profile {os.environ.get('AWS_PROFILE', 'default')}"


@contextmanager
def translate_errors(task: str, unavailable: type[Exception] | None = None) -> Iterator[None]:
    """Raise an AWS error as `TransientFailure` if it is temporary, a denial or a conflict.

    `unavailable` replaces errors of a missing, archived or misnamed object, unless it is None. All
    others are raised as they are. `task` (``<object>: <action>``) begins the message.
    """
    try:
        yield
    except ClientError as exc:
        code = error_code(exc)
        if is_transient(exc):
            raise TransientFailure(f"{task}: {exc}; retry") from exc
        if is_denied(exc):  # retried until an operator has allowed it: never the exposure's fault
            raise TransientFailure(f"{task}: {describe_denial(exc)}") from exc
        if code in CONFLICTS:
            text = f"{task}: the object was replaced meanwhile ({code}); retry"
            raise TransientFailure(text) from exc
        if unavailable is None:
            raise
        if code in _MISSING:
            kind = "bucket" if code == NO_BUCKET else "object"
            raise unavailable(f"{task}: no such {kind} ({code})") from exc
        if code in _REFUSED:
            raise unavailable(f"{task}: {_REFUSED[code]} ({exc})") from exc
        raise
    except NETWORK as exc:
        raise TransientFailure(f"{task}: {exc}; retry") from exc
    except exceptions.BotoCoreError as exc:  # boto3 rejects a name before it sends the request
        if unavailable is None or isinstance(exc, _CREDENTIALS):
            raise
        raise unavailable(f"{task}: {' '.join(str(exc).split())}") from exc
