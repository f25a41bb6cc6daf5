"""An embedded AWS for the demo and the tests: moto's server, on a port of this machine.

The function's own code reaches it over HTTP as it would reach AWS; S3 notifies a queue of every
upload, and a rule on the event bus keeps the processing events in another.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

__all__ = [
    "MIRROR",
    "PRODUCTS",
    "RAW",
    "LocalAws",
    "LocalContext",
    "isolated_environment",
    "local_aws",
]

RAW, PRODUCTS, MIRROR = "raw-exposures", "products", "crds-mirror"
_REGION = "us-east-1"
_NOWHERE = "http://127.0.0.1:9"
_OF_ITS_OWNER = ("AWS_", "CRDS_")
"""What a shell may say of its owner's AWS and CRDS: profiles, endpoints, contexts."""


@dataclass(frozen=True)
class LocalContext:
    """What Lambda tells a function of an invocation."""

    aws_request_id: str
    function_name: str = "dq-init"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = f"arn:aws:lambda:{_REGION}:123456789012:function:dq-init"
    deadline: float = field(default_factory=lambda: time.time() + 900)

    def get_remaining_time_in_millis(self) -> int:
        """Say how long the invocation may still last."""
        return int((self.deadline - time.time()) * 1000)


@dataclass
class LocalAws:
    """A running AWS with the buckets, queues and rules that the function needs.

    Attributes
    ----------
    endpoint : str
        Its address.
    uploads, announcements : str
        Addresses of the queue of S3 notifications and of the queue of processing events.
    """

    endpoint: str
    uploads: str = ""
    announcements: str = ""

    def client(self, service: str) -> Any:
        """Return a boto3 client of this AWS."""
        return boto3.client(service, endpoint_url=self.endpoint, region_name=_REGION)  # type: ignore[call-overload]

    def receive(self, queue: str) -> list[dict[str, Any]]:
        """Take the messages that wait in a queue."""
        messages = []
        sqs = self.client("sqs")
        while batch := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            messages += batch
        return messages


@contextmanager
def local_aws() -> Iterator[LocalAws]:
    """Start an embedded AWS, point the environment at it, and stop it at the end."""
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
    """Hide what the shell says of its owner's AWS and CRDS; give it back at the end.

    Parameters
    ----------
    endpoint : str
        Where AWS is meanwhile: by default where nothing answers.
    """
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(_OF_ITS_OWNER)]:
        del os.environ[name]
    os.environ.update(_environment(endpoint))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _environment(endpoint: str) -> dict[str, str]:
    """What makes boto3, here and inside `crds`, talk to that AWS and to nothing else."""
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_SESSION_TOKEN": "",
        "AWS_DEFAULT_REGION": _REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def _create_resources(aws: LocalAws) -> None:
    """Make the buckets, the queues, the notification and the rule."""
    s3, events = aws.client("s3"), aws.client("events")
    for bucket in (RAW, PRODUCTS, MIRROR):
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    aws.uploads, uploads_arn = _queue(aws, "uploads")
    aws.announcements, announcements_arn = _queue(aws, "announcements")
    suffix = {"Key": {"FilterRules": [{"Name": "suffix", "Value": "_uncal.fits"}]}}
    # moto tells of a multipart upload twice, as its completion and as a Put: listen to one of them.
    notification = {"QueueArn": uploads_arn, "Events": ["s3:ObjectCreated:Put"], "Filter": suffix}
    s3.put_bucket_notification_configuration(
        Bucket=RAW, NotificationConfiguration={"QueueConfigurations": [notification]}
    )
    events.put_rule(Name="announcements", EventPattern=json.dumps({"source": ["jwst.dq_init"]}))
    targets = [{"Id": "queue", "Arn": announcements_arn}]
    events.put_targets(Rule="announcements", Targets=targets)


def _queue(aws: LocalAws, name: str) -> tuple[str, str]:
    """Make a queue; return its address and its ARN."""
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, answer["Attributes"]["QueueArn"]
