"""What is called of AWS, as the permissions that it takes."""

from collections.abc import Iterator
from typing import Any

import botocore.client
import pytest
from botocore.exceptions import ClientError

from tests.infra.template import ARNS

_AS_THEY_ARE = {"AbortMultipartUpload", "DeleteObject"}
"""Operations on an object whose permission has their name."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Records the permission that every call to AWS needs, whoever makes it."""
    found: set[tuple[str, str]] = set()
    original = botocore.client.BaseClient._make_api_call

    def recorded(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        found.update(needed(operation, parameters))
        try:
            return original(client, operation, parameters)
        except ClientError as exc:
            if exc.response["Error"]["Code"] in {"404", "NoSuchKey"} and "Key" in parameters:
                found.add(("s3:ListBucket", f"arn:aws:s3:::{parameters['Bucket']}"))
            raise

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", recorded)
    return found


def needed(operation: str, parameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The permissions of one call."""
    if operation == "ListObjectsV2":
        yield "s3:ListBucket", f"arn:aws:s3:::{parameters['Bucket']}"
    if "Key" in parameters:
        version = "Version" if "VersionId" in parameters else ""
        action = {"HeadObject": f"GetObject{version}", "GetObject": f"GetObject{version}"}.get(
            operation, operation if operation in _AS_THEY_ARE else "PutObject"
        )
        yield f"s3:{action}", f"arn:aws:s3:::{parameters['Bucket']}/{parameters['Key']}"
    if operation == "UploadPartCopy":
        source = parameters["CopySource"]
        version = "Version" if "VersionId" in source else ""
        yield f"s3:GetObject{version}", f"arn:aws:s3:::{source['Bucket']}/{source['Key']}"
    if operation in {"SendMessageBatch", "SendMessage"}:
        yield "sqs:SendMessage", ARNS.format("sqs", parameters["QueueUrl"].rpartition("/")[2])
    if operation == "GetQueueAttributes":
        yield (
            "sqs:GetQueueAttributes",
            ARNS.format("sqs", parameters["QueueUrl"].rpartition("/")[2]),
        )
    if operation == "Publish":
        yield "sns:Publish", parameters["TopicArn"]
    if operation == "PutEvents":
        yield "events:PutEvents", ARNS.format("events", "event-bus/default")
    if operation == "ChangeMessageVisibility":
        yield (
            "sqs:ChangeMessageVisibility",
            ARNS.format("sqs", parameters["QueueUrl"].rpartition("/")[2]),
        )
