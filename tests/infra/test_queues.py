"""The operator's commands for queues, run as an operator runs them."""

import json
import subprocess
import sys
from typing import Any

from infra.demo.local_aws import LocalAws
from infra.queues.messages import redrive
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
    command = [sys.executable, "-m", "infra", "queues", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout


def test_messages_are_shown_and_moved(aws: LocalAws) -> None:
    sqs = aws.client("sqs")
    source, target = (sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("source", "target"))
    odd = [
        {"detail": {"object": "x"}},
        {"detail": {"bucket": "b"}},
        {"detail": {"input": {"bucket": "b"}}},
    ]
    bodies = [json.dumps(FAILED), json.dumps(CREATED), "{broken", *map(json.dumps, odd)]
    for body in bodies:
        sqs.send_message(QueueUrl=source, MessageBody=body)
    said = run("show", source)
    assert "6 messages" in said
    for part in ("s3://raw/a b_uncal.fits", "InputRejected", "not FITS", "s3://raw/c", "s3://?/?"):
        assert part in said
    sqs.purge_queue(QueueUrl=source)
    for body in bodies:
        sqs.send_message(QueueUrl=source, MessageBody=body)
    assert "6 messages moved" in run("redrive", source, "--to", target)
    assert {message["Body"] for message in aws.receive(target)} == set(bodies)
    assert aws.receive(source) == []


def test_redriving_ends_while_what_was_moved_comes_back(aws: LocalAws) -> None:
    """60 messages were once moved and announced 408 times in 45 s."""
    sqs = aws.client("sqs")
    failed, uploads = (sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("f", "u"))
    for number in range(15):
        sqs.send_message(QueueUrl=failed, MessageBody=str(number))
    sent: list[str] = []

    def fail_at_once(params: dict[str, Any], **_: Any) -> None:
        """The function is at work, and every exposure fails again."""
        if params["QueueUrl"] == uploads:
            sent.append(params["MessageBody"])
            sqs.send_message(QueueUrl=failed, MessageBody=f"again {params['MessageBody']}")

    operator = aws.client("sqs")
    operator.meta.events.register("before-parameter-build.sqs.SendMessage", fail_at_once)
    assert redrive(operator, failed, uploads) == 15
    assert sorted(sent, key=int) == [str(number) for number in range(15)]
    left = {message["Body"] for message in aws.receive(failed)}
    assert left == {f"again {number}" for number in range(15)}, "they are there, and not hidden"
