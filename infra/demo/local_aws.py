"""A local AWS for the demo and the tests: the server of moto, on a free port.

The function reaches it over HTTP, as it reaches AWS. S3 notifies a queue of every upload; a rule
on the event bus sends the processing events to another queue.
"""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
from moto.server import ThreadedMotoServer

RAW, PRODUCTS, MIRROR = "raw-exposures", "products", "crds-mirror"
_REGION, _ACCOUNT = "us-east-1", "123456789012"
_NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class LocalContext:
    """A substitute for Lambda's context object, with attributes that the function reads."""

    aws_request_id: str
    function_name: str = "dq-init"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = f"arn:aws:lambda:{_REGION}:{_ACCOUNT}:function:dq-init"
    deadline: float = field(default_factory=lambda: time.time() + 900)

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until `deadline`, the timeout; after it, negative."""
        return int((self.deadline - time.time()) * 1000)


@dataclass
class LocalAws:
    """A local AWS: its endpoint URL, and the queue URLs of uploads and processing events."""

    endpoint: str
    uploads: str = ""
    announcements: str = ""  # URL of the queue of processing events; empty until the queues exist

    def client(self, service: str) -> Any:
        """Return a boto3 client of a service, such as s3, of this AWS."""
        return boto3.client(service, endpoint_url=self.endpoint, region_name=_REGION)  # type: ignore[call-overload]

    def receive(self, queue: str) -> list[dict[str, Any]]:
        """Delete all messages of the queue with the URL `queue`, and return them."""
        messages = []
        sqs = self.client("sqs")
        while batch := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            messages += batch
        return messages


@contextmanager
def local_aws() -> Iterator[LocalAws]:
    """Run a local AWS with buckets and queues during a `with` block; boto3 connects to it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    aws = LocalAws(f"http://{host}:{port}")
    try:
        with isolated_environment(aws.endpoint):
            _create_resources(aws)
            yield aws
    finally:
        server.stop()


@contextmanager
def isolated_environment(endpoint: str = _NOWHERE) -> Iterator[None]:
    """Set AWS_* for a local AWS, and remove CRDS_*, in os.environ during a `with` block.

    boto3 then connects to `endpoint`, where by default no server listens. The end of the block
    restores all of os.environ.
    """
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CRDS_"))}
    settings.update(
        AWS_ACCESS_KEY_ID="local",
        AWS_SECRET_ACCESS_KEY="local",  # noqa: S106
        AWS_SESSION_TOKEN="",
        AWS_DEFAULT_REGION=_REGION,
        AWS_EC2_METADATA_DISABLED="true",
        AWS_ENDPOINT_URL=endpoint,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        NO_PROXY="127.0.0.1,localhost",
        no_proxy="127.0.0.1,localhost",
    )
    with patch.dict(os.environ, settings, clear=True):
        yield


def copy_cache(
    cache: Path, s3: Any, bucket: str, prefix: str = "", instruments: Iterable[str] = ("*",)
) -> None:
    """Copy mappings for MASK, masks and server_config of a CRDS cache to a bucket.

    Keys begin with `prefix`, which is empty or ends in a slash. `instruments` (lower case)
    restricts only the masks. server_config must exist; other missing files are not noticed.
    """
    rules = [
        path
        for path in sorted(cache.glob("mappings/jwst/*"))
        if path.suffix in {".pmap", ".imap"} or "_mask_" in path.name
    ]
    masks = [
        path
        for instrument in instruments
        for path in cache.glob(f"references/jwst/**/jwst_{instrument}_mask_*.fits")
    ]
    # The configuration comes last: readers never see one whose files are missing.
    for path in (*rules, *masks, cache / "config" / "jwst" / "server_config"):
        s3.upload_file(str(path), bucket, f"{prefix}{path.relative_to(cache).as_posix()}")


def _create_resources(aws: LocalAws) -> None:
    s3, sqs, events = aws.client("s3"), aws.client("sqs"), aws.client("events")
    for bucket in (RAW, PRODUCTS, MIRROR):
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    arn = f"arn:aws:sqs:{_REGION}:{_ACCOUNT}"
    aws.uploads = sqs.create_queue(QueueName="uploads")["QueueUrl"]
    aws.announcements = sqs.create_queue(QueueName="announcements")["QueueUrl"]
    notification = {
        "QueueArn": f"{arn}:uploads",
        # moto sends two notifications of a multipart upload, this one and CompleteMultipartUpload.
        "Events": ["s3:ObjectCreated:Put"],
        "Filter": {"Key": {"FilterRules": [{"Name": "suffix", "Value": "_uncal.fits"}]}},
    }
    s3.put_bucket_notification_configuration(
        Bucket=RAW, NotificationConfiguration={"QueueConfigurations": [notification]}
    )
    events.put_rule(Name="announcements", EventPattern=json.dumps({"source": ["jwst.dq_init"]}))
    targets = [{"Id": "queue", "Arn": f"{arn}:announcements"}]
    events.put_targets(Rule="announcements", Targets=targets)
