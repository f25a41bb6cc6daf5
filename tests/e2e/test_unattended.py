"""The deployed template loses, repeats and hides no result."""

import io
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

from astropy.io import fits

from infra.operate.messages import Moved, Targets, read_messages, redrive
from tests.conftest import PROJECT
from tests.e2e.alarms import Point, firing, measured, queued
from tests.e2e.stack import MIRROR, NAME, Stack

SMALL = "nircam-sub64p"
EVENTS = PROJECT / "tests" / "events"


def product_of(key: str) -> str:
    return key.replace("_uncal", "_dq_init")


def opened(stack: Stack, name: str) -> fits.HDUList:
    answer = stack.client("s3").get_object(Bucket=stack["ProductBucket"], Key=f"dq_init/{name}")
    with fits.open(io.BytesIO(answer["Body"].read())) as hdus:
        for hdu in hdus:
            assert hdu.data is not None or hdu.header["NAXIS"] == 0
        return hdus


def test_every_mode_is_processed(stack: Stack, exposures: dict[str, bytes]) -> None:
    keys = {f"modes/{name}_uncal.fits": body for name, body in exposures.items()}
    for key, body in keys.items():
        stack.upload(key, body)
    stack.drain(120)
    for key in keys:
        assert stack.said(key) == ["Complete"], key
        assert "HISTORY" in opened(stack, product_of(key))[0].header


def test_good_bad_and_repeated_exposures_fifty_at_once(
    stack: Stack, exposures: dict[str, bytes]
) -> None:
    good = [f"fifty/jw{i:04}_uncal.fits" for i in range(44)] + ["fifty/a b+c%20d&e=f_uncal.fits"]
    bad = [f"fifty/bad{i}_uncal.fits" for i in range(5)]
    aside = "fifty/notes.txt"
    for key in good:
        stack.upload(key, exposures[SMALL])
    for key in bad:
        stack.upload(key, exposures[SMALL][: 2880 + 100])
    stack.upload(aside, b"no exposure")
    repeated = [*good[:4], good[-1], bad[0]]
    for key in repeated:
        stack.repeat_event(key)
    stack.drain(180)
    for key in good:
        assert stack.said(key).count("Complete") == 1
        assert set(stack.said(key)) <= {"Complete", "Skipped"}
        assert len(stack.said(key)) <= 1 + repeated.count(key)
    for key in bad:
        assert set(stack.said(key)) == {"Failed"}, "an event and its repetition are two causes"
        assert len(stack.said(key)) == 1 + repeated.count(key)
    assert stack.said(aside) == []
    assert {product_of(key) for key in good} <= stack.products().keys()
    assert not {product_of(key) for key in bad} & stack.products().keys()
    assert {stack.products()[product_of(key)] for key in good} == {259200}


def test_rejected_input_waits_with_its_reason_until_redriven(
    stack: Stack, exposures: dict[str, bytes]
) -> None:
    stack.messages("FailedQueue")
    key = "rejected/jw01_uncal.fits"
    stack.upload(key, b"no FITS")
    stack.drain(60)
    (message,) = read_messages(stack.client("sqs"), stack["FailedQueue"]).chosen
    assert (message.exposure, message.error) == (
        f"s3://{stack['RawBucket']}/{key}",
        "InputRejected",
    )
    assert "not FITS" in message.reason
    assert redriven(stack).done == 1
    stack.drain(60)
    assert stack.said(key) == ["Failed", "Failed"], "an operator asked for it"
    assert stack.depth("FailedQueue") == 1
    stack.upload(key, exposures[SMALL])  # a good file now
    stack.drain(60)
    assert stack.said(key)[2:] == ["Complete"]


def test_redriving_ends_while_the_function_works(stack: Stack) -> None:
    """Failures return to the queue while it is redriven."""
    stack.messages("FailedQueue")
    keys = [f"redriven/jw{number:02}_uncal.fits" for number in range(30)]
    for key in keys:
        stack.upload(key, b"no FITS")
    wait_for(lambda: stack.depth("FailedQueue") == len(keys), 60)
    assert redriven(stack).done == len(keys)
    stack.drain(60)
    assert all(stack.said(key) == ["Failed", "Failed"] for key in keys)
    assert len(stack.messages("FailedQueue")) == len(keys)


def test_exposure_replaced_while_queued_has_one_product(
    stack: Stack, exposures: dict[str, bytes]
) -> None:
    key = "replaced/jw02_uncal.fits"
    newer = exposures[SMALL][:-1] + b"\1"
    with stack.paused():
        stack.upload(key, exposures[SMALL])
        stack.upload(key, newer)
    stack.drain(60)
    assert "Complete" in stack.said(key)
    assert set(stack.said(key)) <= {"Complete", "Skipped"}
    results = [d for d in stack.announced if d["input"] and d["input"]["key"] == key]
    assert len({d["id"] for d in results if d["status"] == "Complete"}) == 1
    head = stack.client("s3").head_object(
        Bucket=stack["ProductBucket"], Key=f"dq_init/{product_of(key)}"
    )
    current = stack.client("s3").head_object(Bucket=stack["RawBucket"], Key=key)
    assert head["Metadata"]["input-etag"] == current["ETag"].strip('"')


def test_missing_mask_is_retried_then_reported_as_failed(
    stack: Stack, exposures: dict[str, bytes]
) -> None:
    s3, key = stack.client("s3"), "mirror/niriss_uncal.fits"
    mask = "references/jwst/niriss/jwst_niriss_mask_9002.fits"
    content = s3.get_object(Bucket=MIRROR, Key=mask)["Body"].read()
    s3.delete_object(Bucket=MIRROR, Key=mask)
    body = exposures["niriss-ami"]
    stack.forget()  # the mask in its memory
    forget_masks(stack)
    stack.upload(key, body)
    stack.messages("FailedQueue")
    wait_for(lambda: stack.depth("FailedQueue"), 120)
    stack.drain(60)
    assert stack.said(key) == ["Failed"]
    assert stack.announced[-1]["error"] == "ReferenceUnavailable"
    points = [*measured(stack.logged()), *queued(stack, "FailedQueue", "UndeliveredQueue")]
    assert {"FailedAlarm", "MirrorAlarm"} <= firing(stack, points)
    s3.put_object(Bucket=MIRROR, Key=mask, Body=content)
    assert redriven(stack).done == 1
    stack.drain(60)
    assert stack.said(key) == ["Failed", "Complete"], "redriven after the mask was added"


def test_killed_functions_lose_and_repeat_nothing(
    stack: Stack, exposures: dict[str, bytes]
) -> None:
    keys = [f"killed/jw{i:04}_uncal.fits" for i in range(40)]
    with stack.paused():
        for key in keys:
            stack.upload(key, exposures[SMALL])
        wait_for(lambda: stack.depth("UploadedQueue"), 60)
    kills, chance = 0, random.Random(7)
    while stack.depth("UploadedQueue") and kills < 6:
        time.sleep(chance.uniform(0.3, 1.5))
        kills += stack.kill_function(chance)
    assert kills
    stack.drain(240)
    for key in keys:
        assert stack.said(key).count("Complete") == 1, (key, stack.said(key))
        assert set(stack.said(key)) <= {"Complete", "Skipped"}
        assert stack.products()[product_of(key)] == 259200


def test_alarms_are_silent_on_success_and_each_can_fire(stack: Stack) -> None:
    everything = [*measured(stack.logged()), *queued(stack, "UndeliveredQueue")]
    flags = {"FewFlagsAlarm", "ManyFlagsAlarm"}
    assert not flags & firing(stack, everything), "all modes were processed, and each is good data"
    deployed = {
        a["AlarmName"].split("-")[2]
        for a in stack.client("cloudwatch").describe_alarms()["MetricAlarms"]
    }
    service = frozenset({("service", NAME)})
    usual = [
        Point("JwstDqInit", "DoNotUseFraction", service, 0.01),
        *queued(stack, "UndeliveredQueue"),
    ]
    assert firing(stack, usual) == set()
    assert "RejectedAlarm" in firing(stack, measured(stack.logged()))
    uploaded = frozenset({("QueueName", stack["UploadedQueue"].rpartition("/")[2])})
    undelivered = frozenset({("QueueName", stack["UndeliveredQueue"].rpartition("/")[2])})
    unfinished = frozenset({("QueueName", stack["UnfinishedQueue"].rpartition("/")[2])})
    backfill = frozenset({("StateMachineArn", stack["Backfill"])})
    one = frozenset({("StateMachineArn", stack["OneExposure"])})
    invoked = frozenset({("FunctionName", stack["FunctionName"])})
    trouble = [
        Point("AWS/SQS", "ApproximateAgeOfOldestMessage", uploaded, 8000),
        Point("AWS/SQS", "ApproximateNumberOfMessagesVisible", undelivered, 1),
        Point("AWS/SQS", "ApproximateNumberOfMessagesNotVisible", unfinished, 1),
        Point("AWS/States", "ExecutionsFailed", backfill, 1),
        Point("AWS/States", "ExecutionsFailed", one, 1),
        Point("AWS/Lambda", "Errors", invoked, 1),
        Point("AWS/Lambda", "Throttles", invoked, 1),
        Point("JwstDqInit", "DoNotUseFraction", service, 0),
        Point("JwstDqInit", "DoNotUseFraction", service, 0.9),
    ]
    assert firing(stack, trouble) | {"RejectedAlarm", "MirrorAlarm", "FailedAlarm"} == deployed


def test_one_exposure_by_state_machine(stack: Stack, exposures: dict[str, bytes]) -> None:
    with stack.paused():
        stack.upload("direct/jw03_uncal.fits", exposures[SMALL])
        request = {
            "bucket": stack["RawBucket"],
            "key": "direct/jw03_uncal.fits",
            "mask": "N/A",
            "outputKey": "dq_init/named.fits",
        }
        done = execute(stack, "OneExposure", request)
    assert done["status"] == "SUCCEEDED"
    detail = json.loads(done["output"])
    assert (detail["status"], detail["output"]["key"]) == ("Complete", "dq_init/named.fits")
    rejected = execute(stack, "OneExposure", {"bucket": stack["RawBucket"], "key": "absent"})
    assert rejected["status"] == "FAILED"
    stack.drain(60)
    # MiniStack gives every error of a function one name, so the state machine does not recognise errors
    # that the function published (tests/infra/test_state_machines.py has the names of AWS).
    mine = [d for d in stack.announced if d["input"] and d["input"]["key"] == "absent"]
    assert len({d["id"] for d in mine if d["error"] == "InputRejected"}) == 1


def test_a_backfill(stack: Stack, exposures: dict[str, bytes]) -> None:
    """MiniStack has no ResultWriter, so this does not test the file of failures."""
    keys = [f"backfill/jw{i}_uncal.fits" for i in range(3)]
    with stack.paused():
        for key in keys:
            stack.upload(key, exposures[SMALL])
        requests = [{"bucket": stack["RawBucket"], "key": key} for key in keys]
        manifest = {"bucket": stack["ProductBucket"], "key": "dq_backfills/manifest.json"}
        stack.client("s3").put_object(
            Bucket=manifest["bucket"], Key=manifest["key"], Body=json.dumps(requests).encode()
        )
        done = execute(stack, "Backfill", {"manifest": manifest})
        assert done["status"] == "SUCCEEDED", done
        wait_for(lambda: all(stack.said(key) for key in keys), 30)
        for key in keys:
            assert stack.said(key) == ["Complete"]
    stack.drain(60)  # the waiting events find the products
    for key in keys:
        assert stack.said(key) == ["Complete", "Skipped"]


def test_nothing_is_left_behind(stack: Stack) -> None:
    """Runs last."""
    assert stack.depth("UploadedQueue") == stack.depth("UnfinishedQueue") == 0
    assert stack.depth("UndeliveredQueue") == 0
    entries = (
        stack.client("s3")
        .get_paginator("list_objects_v2")
        .paginate(Bucket=stack["ProductBucket"], Prefix="dq_ledger/")
    )
    known_ids = {detail["id"] for detail in stack.announced}
    for page in entries:
        for item in page["Contents"]:
            body = stack.client("s3").get_object(Bucket=stack["ProductBucket"], Key=item["Key"])
            entry = json.loads(body["Body"].read())
            assert entry["failure"] or entry["result"]["id"] in known_ids
    logged = stack.logged()
    assert all(
        {"function_request_id", "exposure", "mask", "context"} <= line.keys()
        for line in logged
        if line.get("message", "").startswith("DQ initialization Complete")
    )


def redriven(stack: Stack) -> Moved:
    """Send the failures again, as `queues redrive` does."""
    targets = Targets(stack["UploadedQueue"], "default", stack.client("events"))
    return redrive(stack.client("sqs"), stack["FailedQueue"], targets)


def execute(stack: Stack, machine: str, request: dict[str, Any]) -> dict[str, Any]:
    states = stack.client("stepfunctions")
    execution = states.start_execution(stateMachineArn=stack[machine], input=json.dumps(request))
    end = time.monotonic() + 120
    while True:
        found = states.describe_execution(executionArn=execution["executionArn"])
        if found["status"] != "RUNNING":
            return found
        assert time.monotonic() < end, "the execution does not end"
        time.sleep(0.3)


def forget_masks(stack: Stack) -> None:
    """Empty the /tmp that the function's processes share on this machine."""

    folder = Path(stack.server.environ()["TMPDIR"]) / "crds" / "references"
    shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.2)
