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
        "request": {"bucket": "raw", "key": "a b_uncal.fits"},
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
    said = run("show", "--queue", source)
    assert "6 messages" in said
    for part in ("s3://raw/a b_uncal.fits", "InputRejected", "not FITS", "s3://raw/c", "s3://?/?"):
        assert part in said
    assert "6 messages" in run("show", "--queue", source), "what was shown is not hidden"
    assert "6 messages moved" in run("redrive", "--queue", source, "--to", target)
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


def failures(aws: LocalAws, name: str) -> str:
    """A queue of three failures; one of them asks for nothing."""
    sqs = aws.client("sqs")
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    for key, error in (("jw01_uncal.fits", "InputRejected"), ("jw02_uncal.fits", "NoSuchBucket")):
        request = {"bucket": "raw", "key": key}
        detail = {"input": request, "request": request, "error": error, "reason": f"of {key}"}
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(FAILED | {"detail": detail}))
    unread = FAILED | {"detail": {"error": "InputRejected", "reason": "no event", "request": None}}
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(unread))
    return queue


def test_failures_are_chosen_by_error_key_age_and_identifier(aws: LocalAws) -> None:
    queue = failures(aws, "chosen")
    target = aws.client("sqs").create_queue(QueueName="chosen-target")["QueueUrl"]
    shown = json.loads(run("show", "--queue", queue, "--json", "--error", "InputRejected"))
    assert {message["reason"] for message in shown} == {"of jw01_uncal.fits", "no event"}
    assert json.loads(run("show", "--queue", queue, "--json", "--older-than", "3600")) == []
    words = ("redrive", "--queue", queue, "--to", target, "--key", "jw02*")
    assert "jw02_uncal.fits" in run(*words, "--dry-run")
    assert "1 messages moved; 2 wait there now" in run(*words)
    (one,) = (message for message in shown if message["reason"] == "no event")
    said = run("discard", "--queue", queue, "--id", one["identifier"], "--yes")
    assert "1 messages discarded" in said
    left = [json.loads(message["Body"])["detail"]["reason"] for message in aws.receive(queue)]
    assert left == ["of jw01_uncal.fits"]


def test_what_asks_for_nothing_is_not_tried_again(aws: LocalAws) -> None:
    """It came back for ever, wrapped in itself."""
    queue = failures(aws, "nothing")
    target = aws.client("sqs").create_queue(QueueName="nothing-target")["QueueUrl"]
    assert "2 messages moved; 1 wait there now" in run("redrive", "--queue", queue, "--to", target)


def test_an_upload_that_waits_has_no_reason_to_have_failed(aws: LocalAws) -> None:
    queue = aws.client("sqs").create_queue(QueueName="waiting")["QueueUrl"]
    event = {**CREATED, "detail": {**CREATED["detail"], "reason": "PutObject"}}
    aws.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(event))
    (shown,) = json.loads(run("show", "--queue", queue, "--json"))
    assert (shown["error"], shown["reason"]) == ("", "")


def test_nothing_is_discarded_unasked(aws: LocalAws) -> None:
    queue = failures(aws, "asked")
    command = [sys.executable, "-m", "infra", "queues", "discard", "--queue", queue]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stderr) == (1, "nothing was discarded\n")
    assert len(aws.receive(queue)) == 3


def test_a_mistake_is_told_in_one_line(aws: LocalAws) -> None:
    for words in (["show", "--stack", "none"], ["show", "--queue", f"{aws.endpoint}/1/none"]):
        command = [sys.executable, "-m", "infra", "queues", *words]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
