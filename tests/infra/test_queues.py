"""The operator's commands for queues, run as an operator runs them."""

import json
import subprocess
import sys

from infra.demo.local_aws import LocalAws
from tests.conftest import PROJECT

FAILED = {
    "source": "jwst.dq_init",
    "detail-type": "DQ Initialization Failed",
    "detail": {
        "input": {"bucket": "raw", "key": "a b_uncal.fits"},
        "error": "InputRejected",
        "reason": "not FITS",
    },
}
CREATED = {"source": "aws.s3", "detail": {"bucket": {"name": "raw"}, "object": {"key": "c"}}}


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "infra.queues", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout


def test_messages_are_shown_and_moved(aws: LocalAws) -> None:
    sqs = aws.client("sqs")
    source, target = (sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("source", "target"))
    bodies = [json.dumps(FAILED), json.dumps(CREATED), "{broken"]
    for body in bodies:
        sqs.send_message(QueueUrl=source, MessageBody=body)
    said = run("show", source)
    assert "3 messages" in said
    for part in ("s3://raw/a b_uncal.fits", "InputRejected", "not FITS", "s3://raw/c", "s3://?/?"):
        assert part in said
    sqs.purge_queue(QueueUrl=source)
    for body in bodies:
        sqs.send_message(QueueUrl=source, MessageBody=body)
    assert "3 messages moved" in run("redrive", source, "--to", target)
    assert {message["Body"] for message in aws.receive(target)} == set(bodies)
    assert aws.receive(source) == []
