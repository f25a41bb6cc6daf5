"""The command `queues`, run as an operator runs it, and its messages."""

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from infra.demo.local_aws import LocalAws
from infra.operate import messages
from infra.operate.messages import Chosen, Moved, QueuedMessage, Targets, read_messages, redrive
from tests.conftest import PROJECT
from tests.infra.program import run_program
from tests.infra.stacks import stack_of_outputs

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
    done = run_program("queues", *arguments)
    assert done.exit_code == 0, done.err
    return done.out


def test_messages_are_shown_then_redriven(aws: LocalAws) -> None:
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
    assert "6 messages sent again" in run("redrive", "--queue", source, "--to", target)
    assert {message["Body"] for message in aws.receive(target)} == set(bodies)
    assert aws.receive(source) == []


@pytest.mark.slow
def test_redrive_ends_although_messages_fail_again(aws: LocalAws) -> None:
    # 60 messages were once redriven 408 times in 45 s.
    sqs = aws.client("sqs")
    failed, uploads = (sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("f", "u"))
    for number in range(15):
        sqs.send_message(QueueUrl=failed, MessageBody=str(number))
    sent: list[str] = []

    def fail_at_once(params: dict[str, Any], **_: Any) -> None:
        # The function is running, and every exposure fails again.
        if params["QueueUrl"] == uploads:
            for entry in params["Entries"]:
                sent.append(entry["MessageBody"])
                sqs.send_message(QueueUrl=failed, MessageBody=f"again {entry['MessageBody']}")

    operator = aws.client("sqs")
    operator.meta.events.register("before-parameter-build.sqs.SendMessageBatch", fail_at_once)
    targets = Targets(uploads, None, aws.client("events"))
    assert redrive(operator, failed, targets).done == 15
    assert sorted(sent, key=int) == [str(number) for number in range(15)]
    left = {message["Body"] for message in aws.receive(failed)}
    assert left == {f"again {number}" for number in range(15)}, "the new failures are visible"


def failures(aws: LocalAws, name: str) -> str:
    """Return a queue of three failures; one of them has no request."""
    sqs = aws.client("sqs")
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    for key, error in (("jw01_uncal.fits", "InputRejected"), ("jw02_uncal.fits", "NoSuchBucket")):
        request = {"bucket": "raw", "key": key}
        detail = {"input": request, "request": request, "error": error, "reason": f"of {key}"}
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(FAILED | {"detail": detail}))
    unread = FAILED | {"detail": {"error": "InputRejected", "reason": "no event", "request": None}}
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(unread))
    return queue


@pytest.mark.slow
def test_messages_are_chosen_by_error_key_age_and_id(aws: LocalAws) -> None:
    queue = failures(aws, "chosen")
    target = aws.client("sqs").create_queue(QueueName="chosen-target")["QueueUrl"]
    shown = json.loads(run("show", "--queue", queue, "--json", "--error", "InputRejected"))
    assert {message["reason"] for message in shown} == {"of jw01_uncal.fits", "no event"}
    assert json.loads(run("show", "--queue", queue, "--json", "--older-than", "3600")) == []
    words = ("redrive", "--queue", queue, "--to", target, "--key", "jw02_uncal.fits")
    assert "jw02_uncal.fits" in run(*words, "--dry-run")
    assert "1 message sent again" in run(*words)
    (one,) = (message for message in shown if message["reason"] == "no event")
    said = run("discard", "--queue", queue, "--id", one["identifier"], "--yes")
    assert "1 message discarded" in said
    left = [json.loads(message["Body"])["detail"]["reason"] for message in aws.receive(queue)]
    assert left == ["of jw01_uncal.fits"]


@pytest.mark.slow
def test_failure_without_request_is_not_redriven(aws: LocalAws) -> None:
    # Its event would fail again, and come back in a Failed event of its own.
    queue = failures(aws, "nothing")
    target = aws.client("sqs").create_queue(QueueName="nothing-target")["QueueUrl"]
    said = run("redrive", "--queue", queue, "--to", target)
    assert "2 messages sent again" in said
    assert "1 message stayed there" in said
    assert len(aws.receive(queue)) == 1


@pytest.mark.slow
def test_exposure_that_failed_thrice_is_shown_once(aws: LocalAws) -> None:
    bodies = [failed("a_uncal.fits")] * 2 + [failed("a_uncal.fits", error="TransientFailure")]
    queue = fill(aws, "thrice", [*bodies, failed("b_uncal.fits"), "{", "{"])
    for words in (["show"], ["discard", "--dry-run"]):
        said = run(*words, "--queue", queue)
        assert said.count("s3://raw/a_uncal.fits\n") == 1
        assert "  InputRejected: r\n  TransientFailure: r\n  3 messages, last sent" in said
        assert said.count("s3://?/?\n") == 2, "they may be of different exposures"
        assert "6 messages of 4 exposures" in said
    said = run("redrive", "--queue", queue, "--to", queue, "--key", "b_uncal.fits")
    assert "1 message sent again" in said
    assert "; 5 left in" in said


@pytest.mark.slow
def test_waiting_upload_has_neither_error_nor_reason(aws: LocalAws) -> None:
    queue = aws.client("sqs").create_queue(QueueName="waiting")["QueueUrl"]
    event = {**CREATED, "detail": {**CREATED["detail"], "reason": "PutObject"}}
    aws.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(event))
    (shown,) = json.loads(run("show", "--queue", queue, "--json"))
    assert (shown["error"], shown["reason"]) == ("", "")


@pytest.mark.slow
def test_discard_without_confirmation_deletes_nothing(aws: LocalAws) -> None:
    queue = failures(aws, "asked")
    done = run_program("queues", "discard", "--queue", queue)
    assert done.exit_code == 2
    assert "a terminal or --yes is needed" in done.err
    assert "s3://raw/jw01_uncal.fits" in done.out, "it is shown before the question"
    assert len(aws.receive(queue)) == 3


@pytest.mark.slow
def test_sample_before_discarding_counts_what_it_leaves_out(aws: LocalAws) -> None:
    bodies = [failed(f"{n}_uncal.fits") for n in range(11)]
    queue = fill(aws, "many", [*bodies, failed("x_uncal.fits", error="NoSuchBucket")])
    said = run_program("queues", "discard", "--queue", queue).out
    assert said.count("s3://raw/") == 10
    assert "... and 2 more exposures" in said
    assert "\n  11 InputRejected\n  1 NoSuchBucket\n" in said


def test_wrong_stack_or_queue_is_one_line(aws: LocalAws) -> None:
    for code, *words in (
        (2, "show", "--stack", "none"),
        (2, "show", "--queue", f"{aws.endpoint}/1/none"),
    ):
        done = run_program("queues", *words)
        assert done.exit_code == code
        assert len(done.err.splitlines()) == 1, done.err
        assert words[-1] in done.err


def failed(key: str, **more: Any) -> str:
    asked = {"bucket": "raw", "key": key}
    detail = {"input": asked, "request": asked, "error": "InputRejected", "reason": "r", **more}
    return json.dumps(FAILED | {"detail": detail})


def fill(aws: LocalAws, name: str, bodies: list[str], **attributes: str) -> str:
    sqs = aws.client("sqs")
    queue = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    for body in bodies:
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    return queue


def test_show_of_a_processed_queue_uses_no_delivery(aws: LocalAws) -> None:
    sqs = aws.client("sqs")
    dead = sqs.create_queue(QueueName="unfinished")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = json.dumps({"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 1})
    queue = fill(aws, "processed", [failed("a"), failed("b")], RedrivePolicy=policy)
    assert "2 waiting" in run("show", "--queue", queue)
    assert json.loads(run("show", "--queue", queue, "--json"))["waiting"] == 2
    for words in (["show", "--json"], ["discard", "--dry-run"], ["discard", "--yes"]):
        done = run_program("queues", *words, "--queue", queue)
        assert done.exit_code == (0 if words[0] == "show" else 2)
    assert len(aws.receive(queue)) == 2, "none was delivered before"
    assert aws.receive(dead) == []


@pytest.mark.slow
def test_key_with_brackets_chooses_exactly_that_key(aws: LocalAws) -> None:
    keys = ["a/[old]y_uncal.fits", "a/oy_uncal.fits", "a/ly_uncal.fits", "b/a/[old]y_uncal.fits"]
    queue = fill(aws, "brackets", [failed(key) for key in keys])
    run("discard", "--queue", queue, "--key", keys[0], "--yes")

    def left() -> list[str]:
        return sorted(message.key for message in read_messages(aws.client("sqs"), queue).chosen)

    assert left() == sorted(keys[1:])
    run("discard", "--queue", queue, "--prefix", "s3://raw/b/", "--yes")
    assert left() == sorted(keys[1:3])
    run("discard", "--queue", queue, "--pattern", "a/[l]y*", "--yes")
    assert left() == [keys[1]]


def test_empty_choice_is_refused(aws: LocalAws) -> None:
    queue = fill(aws, "emptychoice", [failed("a"), failed("b")])
    for option in ("--key", "--error", "--id", "--prefix", "--pattern"):
        done = run_program("queues", "discard", "--yes", "--queue", queue, option, "")
        assert done.exit_code == 2
    assert len(aws.receive(queue)) == 2


@pytest.mark.slow
def test_mistyped_error_names_those_that_are_there(aws: LocalAws) -> None:
    queue = fill(aws, "mistyped", [failed("a"), failed("b")])
    said = run("redrive", "--queue", queue, "--to", queue, "--error", "InputRejectd")
    assert "0 messages sent again" in said
    assert "No message matches the options; the queue holds: 2 InputRejected" in said


@pytest.mark.slow
def test_messages_that_another_reader_hides_are_an_error(aws: LocalAws) -> None:
    queue = fill(aws, "hidden", [failed("a")])
    aws.client("sqs").receive_message(QueueUrl=queue, VisibilityTimeout=60)
    for words in (["redrive", "--to", queue], ["discard", "--yes"], ["discard"]):
        done = run_program("queues", *words, "--queue", queue)
        assert done.exit_code == 1
        assert "none is visible, 0 waiting, 1 in flight" in done.err


@pytest.mark.slow
def test_message_that_comes_after_the_question_stays(aws: LocalAws) -> None:
    queue, sqs = fill(aws, "later", [failed("a")]), aws.client("sqs")
    shown = frozenset(message.identifier for message in read_messages(sqs, queue).chosen)
    sqs.send_message(QueueUrl=queue, MessageBody=failed("b"))
    assert messages.discard(sqs, queue, Chosen(identifiers=shown)).done == 1
    assert [message.key for message in read_messages(sqs, queue).chosen] == ["b"]


@pytest.mark.slow
def test_message_that_is_not_deleted_is_not_counted_as_discarded(aws: LocalAws) -> None:
    queue, sqs = fill(aws, "kept", [failed("a"), failed("b")]), aws.new_client("sqs")

    def refuse_b(parsed: Any, **_: Any) -> None:
        for done in [done for done in parsed["Successful"] if done["Id"] == shown["b"]]:
            parsed["Successful"].remove(done)
            parsed["Failed"] = [done | {"SenderFault": False, "Code": "InternalError"}]

    shown = {message.key: message.identifier for message in read_messages(sqs, queue).chosen}
    sqs.meta.events.register("after-call.sqs.DeleteMessageBatch", refuse_b)
    moved = messages.discard(sqs, queue)
    assert moved.done == 1
    assert ["not deleted from the queue" in reason for reason in moved.refused] == [True]


@pytest.mark.slow
def test_refused_messages_are_not_said_to_match_no_option(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = fill(aws, "all-refused", [failed("a")])

    def refuse(*_: Any) -> Moved:
        return Moved(refused=["s3://raw/a: InternalError"], labels=Counter(["InputRejected"]))

    monkeypatch.setattr(messages, "redrive", refuse)
    done = run_program("queues", "redrive", "--queue", queue, "--to", queue)
    assert done.exit_code == 1
    assert "s3://raw/a: InternalError" in done.err
    assert "run the same command again" in done.err
    assert "No message matches" not in done.out


def test_exposure_of_an_s3_notification_is_named() -> None:
    s3 = {"bucket": {"name": "raw"}, "object": {"key": "a+b%2Bc_uncal.fits"}}
    for records, exposure in (([{"s3": s3}], "s3://raw/a b+c_uncal.fits"), ([1], "s3://?/?")):
        message = {"MessageId": "1", "ReceiptHandle": "r", "Attributes": {"SentTimestamp": "0"}}
        body = json.dumps({"Records": records})
        assert QueuedMessage.from_message(message | {"Body": body}).exposure == exposure


@pytest.mark.slow
def test_failed_invocation_is_shown_with_its_error() -> None:
    """Lambda sends it to UndeliveredQueue of the mirror's stack."""
    failed = {"errorType": "ReferenceUnavailable", "errorMessage": "no answer"}
    body = json.dumps({"requestPayload": {}, "responsePayload": failed})
    message = {"MessageId": "1", "ReceiptHandle": "r", "Attributes": {"SentTimestamp": "0"}}
    shown = QueuedMessage.from_message(message | {"Body": body})
    assert (shown.label, shown.reason) == ("ReferenceUnavailable", "no answer")


@pytest.mark.slow
def test_undelivered_event_is_published_as_it_was(aws: LocalAws) -> None:
    events = [
        FAILED
        | {"detail-type": f"DQ Initialization {status}", "detail": {"id": n, "status": status}}
        for n, status in enumerate(("Complete", "Skipped", "Failed"))
    ]
    queue = fill(aws, "undelivered", [*map(json.dumps, events), json.dumps(CREATED)])
    uploads = fill(aws, "undelivered-uploads", [])
    aws.receive(aws.announcements)
    targets = Targets(uploads, "default", aws.client("events"), are_undelivered=True)
    assert redrive(aws.client("sqs"), queue, targets).done == 4
    published = [json.loads(message["Body"]) for message in aws.receive(aws.announcements)]
    found = sorted((e["detail"]["id"], e["detail-type"], e["source"]) for e in published)
    assert found == [(e["detail"]["id"], e["detail-type"], "jwst.dq_init") for e in events]
    assert [json.loads(message["Body"]) for message in aws.receive(uploads)] == [CREATED]
    assert aws.receive(queue) == []


@pytest.mark.slow
def test_undelivered_queue_of_a_stack_is_redriven_to_its_bus(aws: LocalAws) -> None:
    sqs, events = aws.client("sqs"), aws.client("events")
    received = fill(aws, "of-the-bus", [])
    events.create_event_bus(Name="science")
    events.put_rule(Name="r", EventBusName="science", EventPattern='{"source": ["jwst.dq_init"]}')
    arn = "arn:aws:sqs:us-east-1:123456789012:of-the-bus"
    events.put_targets(Rule="r", EventBusName="science", Targets=[{"Id": "q", "Arn": arn}])
    names = ("UndeliveredQueue", "UploadedQueue")
    with stack_of_outputs(aws, "on-a-bus", names, EventBus="science") as urls:
        for body in (json.dumps(FAILED), json.dumps(CREATED)):
            sqs.send_message(QueueUrl=urls["UndeliveredQueue"], MessageBody=body)
        said = run("redrive", "--queue", "UndeliveredQueue", "--stack", "on-a-bus")
        assert [json.loads(m["Body"]) for m in aws.receive(urls["UploadedQueue"])] == [CREATED]
    assert "2 messages sent again" in said
    (message,) = aws.receive(received)
    assert json.loads(message["Body"])["detail"] == FAILED["detail"]


@pytest.mark.slow
def test_complete_event_never_becomes_a_request(aws: LocalAws) -> None:
    event = FAILED | {"detail-type": "DQ Initialization Complete"}
    event["detail"] = {"status": "Complete", "request": {"bucket": "raw", "key": "a"}}
    queue, uploads = fill(aws, "completes", [json.dumps(event)]), fill(aws, "completes-to", [])
    done = run_program("queues", "redrive", "--queue", queue, "--to", uploads)
    assert (done.exit_code, len(done.err.splitlines())) == (2, 1)
    assert aws.receive(uploads) == []
    assert len(aws.receive(queue)) == 1


@pytest.mark.slow
def test_refused_message_stays_and_is_named(aws: LocalAws) -> None:
    # SQS refuses messages that are larger than the target queue allows.
    queue, uploads = fill(aws, "refused", [failed("a"), failed("b")]), fill(aws, "refused-to", [])
    sqs = aws.client("sqs")

    def refuse(parsed: dict[str, Any], **_: Any) -> None:
        if parsed.get("Successful"):
            one = parsed["Successful"].pop()
            parsed["Failed"] = [{"Id": one["Id"], "Code": "TooLong", "SenderFault": True}]

    sqs.meta.events.register("after-call.sqs.SendMessageBatch", refuse)
    moved = redrive(sqs, queue, Targets(uploads, None, aws.client("events")))
    assert (moved.done, len(moved.refused)) == (1, 1)
    assert "TooLong" in moved.refused[0]
    assert len(aws.receive(queue)) == 1


@pytest.mark.slow
def test_messages_larger_than_one_request_are_divided(aws: LocalAws) -> None:
    queue = fill(aws, "large", [failed(str(n), reason="x" * 100_000) for n in range(6)])
    uploads = fill(aws, "large-to", [])
    moved = redrive(aws.client("sqs"), queue, Targets(uploads, None, aws.client("events")))
    assert (moved.done, moved.refused) == (6, [])
    assert len(aws.receive(uploads)) == 6


@pytest.mark.slow
def test_redrive_killed_before_deleting_loses_nothing(aws: LocalAws) -> None:
    queue, uploads = fill(aws, "killed", [failed("a")]), fill(aws, "killed-to", [])
    sqs = aws.client("sqs")

    def die(**_: Any) -> None:
        raise KeyboardInterrupt

    sqs.meta.events.register("before-call.sqs.DeleteMessageBatch", die)
    with pytest.raises(KeyboardInterrupt):
        redrive(sqs, queue, Targets(uploads, None, aws.client("events")))
    assert len(aws.receive(uploads)) == len(aws.receive(queue)) == 1


def test_clock_of_this_machine_does_not_matter(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, sqs = fill(aws, "clock", [failed("a")]), aws.client("sqs")
    answer = {"ResponseMetadata": {"HTTPHeaders": {"date": "Sat, 28 Nov 2026 10:00:00 GMT"}}}
    monkeypatch.setattr(sqs, "get_queue_attributes", lambda **_: answer)
    assert messages._now(sqs, queue) == pytest.approx(1795860000, abs=2)


@pytest.mark.slow
def test_odd_text_is_shown_escaped_in_any_encoding(aws: LocalAws) -> None:
    keys = ["\u65e5\u672c", "\ud800", "\x1b[2Jgone", "a\nAll 5000 complete", "[/b]x", "\u202efits"]
    queue = fill(aws, "odd", [failed(f"{key}/x_uncal.fits") for key in keys])
    for encoding in ("ascii", "utf-8"):
        done = subprocess.run(
            [sys.executable, "-m", "infra", "queues", "show", "--queue", queue],
            cwd=PROJECT,
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            check=True,
        )
        said = done.stdout.decode(encoding)
        assert said.count("x_uncal.fits") == 6
        assert not {"\x1b", "\u202e"} & set(said)
        assert "\nAll 5000" not in said
