"""AWS errors, and the class that each is raised as."""

import re

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from core.errors import InputRejected, TransientFailure
from handler.s3.errors import is_conflict, is_denied, translate_errors


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "on purpose"}}, "GetObject")


@pytest.mark.parametrize("code", ["404", "NoSuchKey", "InvalidObjectState", "InvalidBucketName", "KeyTooLongError", "400", "InvalidRequest", "MethodNotAllowed", "301"])  # fmt: skip
def test_unreadable_object_raises_the_callers_class(code: str) -> None:
    with pytest.raises(InputRejected, match="s3://b/k: reading it: "), translate_errors("s3://b/k: reading it", InputRejected):  # fmt: skip
        raise error(code)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("PreconditionFailed", True), ("NoSuchKey", True), ("NoSuchBucket", False)],
)
def test_write_that_finds_no_bucket_is_not_a_conflict(code: str, expected: bool) -> None:
    assert is_conflict(error(code)) == expected


@pytest.mark.parametrize("code", ["NoSuchBucket", "InvalidRequest"])
def test_error_of_the_deployment_is_raised_as_itself(code: str) -> None:
    with pytest.raises(ClientError), translate_errors("s3://b/k: writing it"):
        raise error(code)


@pytest.mark.parametrize(
    "raised",
    [
        *(error(code) for code in ("SlowDown", "InternalError", "RequestTimeout", "412", "ExpiredToken", "BadDigest")),
        ClientError({"Error": {"Code": "InternalException"}, "ResponseMetadata": {"HTTPStatusCode": 500}}, "PutEvents"),  # type: ignore[typeddict-item]
        exceptions.ReadTimeoutError(endpoint_url="x"),
        exceptions.EndpointConnectionError(endpoint_url="x"),
        exceptions.ConnectionClosedError(endpoint_url="x"),
        exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
    ids=lambda raised: str(raised)[:40],
)  # fmt: skip
def test_error_that_a_retry_may_solve_is_transient(raised: Exception) -> None:
    with (
        pytest.raises(TransientFailure, match="s3://b/k"),
        translate_errors("s3://b/k", InputRejected),
    ):
        raise raised


def test_name_that_boto3_refuses_raises_the_callers_class() -> None:
    refused = exceptions.ParamValidationError(report="Invalid bucket name")
    with (
        pytest.raises(InputRejected, match="Invalid bucket name"),
        translate_errors("x", InputRejected),
    ):
        raise refused


@pytest.mark.parametrize(
    "raised",
    [
        exceptions.NoCredentialsError(),
        exceptions.UnauthorizedSSOTokenError(),
        exceptions.CredentialRetrievalError(provider="x", error_msg="y"),
    ],
    ids=lambda raised: type(raised).__name__,
)
def test_missing_credentials_are_raised_as_themselves(raised: Exception) -> None:
    with pytest.raises(type(raised)), translate_errors("s3://b/k", InputRejected):
        raise raised


DENIAL = (
    "User: arn:aws-cn:sts::123456789012:assumed-role/dq-init/fn is not authorized to perform: "
    "{action} on resource: {resource} because no identity-based policy allows the action"
)


@pytest.mark.parametrize(
    ("action", "resource"),
    [("s3:GetObject", '"arn:aws-cn:s3:::b/k"'), ("kms:Decrypt", "arn:aws-cn:kms:cn-north-1:1:key/k")],
)  # fmt: skip
@pytest.mark.parametrize("unavailable", [InputRejected, None])
def test_denial_names_action_resource_and_role(
    action: str, resource: str, unavailable: type[Exception] | None
) -> None:
    message = DENIAL.format(action=action, resource=resource)
    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "GetObject")
    with (
        pytest.raises(TransientFailure) as caught,
        translate_errors("s3://b/k: reading", unavailable),
    ):
        raise denied
    text = str(caught.value)
    role = "arn:aws-cn:sts::123456789012:assumed-role/dq-init/fn"
    assert text.startswith(f"s3://b/k: reading: {action} on ")
    assert f"{resource.strip(chr(34))} is denied to {role} (" in text
    assert is_denied(caught.value)


@pytest.mark.parametrize(
    ("variable", "caller"),
    [
        ("AWS_LAMBDA_FUNCTION_NAME", "the role of the Lambda function x"),
        ("AWS_ROLE_ARN", "x"),
        ("AWS_PROFILE", "the credentials of profile x"),
    ],
)
def test_silent_denial_names_the_environments_role(
    variable: str, caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response to HeadObject has no body."""
    monkeypatch.setenv(variable, "x")
    denied = ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")
    expected = f"s3://b/k: s3:GetObject is denied to {caller} (HeadObject: 403 Forbidden)"
    with (
        pytest.raises(TransientFailure, match=re.escape(expected)) as caught,
        translate_errors("s3://b/k", InputRejected),
    ):
        raise denied
    assert "without s3:ListBucket, S3 answers 403 for a missing object" in str(caught.value)


def test_denied_copy_names_what_the_source_needs() -> None:
    denied = ClientError({"Error": {"Code": "AccessDenied"}}, "UploadPartCopy")
    with pytest.raises(TransientFailure) as caught, translate_errors("s3://b/k"):
        raise denied
    for part in ("s3:GetObject (or s3:PutObject on the product)", "REQUESTER_PAYS_BUCKETS"):
        assert part in str(caught.value)


@pytest.mark.parametrize("code", ["KMS.DisabledException", "KMS.NotFoundException"])
def test_kms_key_that_refuses_is_retried(code: str) -> None:
    with pytest.raises(TransientFailure, match=f"KMS refuses the key .*{code}"), translate_errors("s3://b/k", InputRejected):  # fmt: skip
        raise error(code)
