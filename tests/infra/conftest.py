"""What is called of AWS, as the permissions that it takes."""

from collections.abc import Iterator
from typing import Any

import botocore.client
import pytest
from botocore.exceptions import ClientError

from tests.infra.template import ARNS

_ACTIONS = {
    "ListObjectsV2": "s3:ListBucket",
    **dict.fromkeys(("HeadObject", "GetObject"), "s3:GetObject"),
    **dict.fromkeys(
        (
            *("PutObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy"),
            "CompleteMultipartUpload",
        ),
        "s3:PutObject",
    ),
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "SendMessage": "sqs:SendMessage",
    "SendMessageBatch": "sqs:SendMessage",
    "GetQueueAttributes": "sqs:GetQueueAttributes",
    "ChangeMessageVisibility": "sqs:ChangeMessageVisibility",
    "Publish": "sns:Publish",
    "PutEvents": "events:PutEvents",
}
"""The IAM action that each operation needs."""


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
    action = _ACTIONS.get(operation)
    if action is None:  # an error raised here might be handled as one of AWS
        yield f"{operation}, which is not in _ACTIONS", "*"
    elif "QueueUrl" in parameters:
        yield action, ARNS.format("sqs", parameters["QueueUrl"].rpartition("/")[2])
    elif "TopicArn" in parameters:
        yield action, parameters["TopicArn"]
    elif operation == "PutEvents":
        yield action, ARNS.format("events", "event-bus/default")
    elif "Key" in parameters:
        version = "Version" if "VersionId" in parameters else ""
        yield f"{action}{version}", f"arn:aws:s3:::{parameters['Bucket']}/{parameters['Key']}"
    else:
        yield action, f"arn:aws:s3:::{parameters['Bucket']}"
    if operation == "UploadPartCopy":
        source = parameters["CopySource"]
        version = "Version" if "VersionId" in source else ""
        yield f"s3:GetObject{version}", f"arn:aws:s3:::{source['Bucket']}/{source['Key']}"
