"""Errors of AWS, and the class that tells the caller what to do."""

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from core.errors import InputRejected, TransientFailure
from handler.s3.errors import failures_of


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "as asked"}}, "GetObject")


@pytest.mark.parametrize("code", ["404", "NoSuchKey", "403", "AccessDenied", "InvalidObjectState", "InvalidBucketName", "400", "MethodNotAllowed", "301"])  # fmt: skip
def test_what_cannot_be_read_is_what_the_caller_names(code: str) -> None:
    with pytest.raises(InputRejected, match="s3://b/k: reading it: "), failures_of("s3://b/k: reading it", InputRejected):  # fmt: skip
        raise error(code)


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchBucket", "InvalidRequest"])
def test_a_fault_of_the_deployment_surfaces_as_itself(code: str) -> None:
    with pytest.raises(ClientError), failures_of("s3://b/k: writing it"):
        raise error(code)


@pytest.mark.parametrize(
    "raised",
    [
        *(error(code) for code in ("SlowDown", "503", "InternalError", "RequestTimeout", "412", "ExpiredToken")),
        exceptions.ReadTimeoutError(endpoint_url="x"),
        exceptions.EndpointConnectionError(endpoint_url="x"),
        exceptions.ConnectionClosedError(endpoint_url="x"),
        exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
    ids=lambda raised: str(raised)[:40],
)  # fmt: skip
def test_what_a_retry_may_help_is_transient(raised: Exception) -> None:
    with pytest.raises(TransientFailure, match="s3://b/k"), failures_of("s3://b/k", InputRejected):
        raise raised


def test_a_parameter_that_boto3_refuses_is_the_requests_fault() -> None:
    refused = exceptions.ParamValidationError(report="Invalid bucket name")
    with pytest.raises(InputRejected, match="Invalid bucket name"), failures_of("x", InputRejected):
        raise refused
