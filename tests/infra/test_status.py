"""The command ``dq-init status``."""

import io
import json
import sys
from collections.abc import Iterator

import boto3
import pytest

from handler.crds.mirror import STATE, MirrorConfig
from infra.__main__ import main
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws
from infra.operate.status import QUEUES, sends_events
from tests.conftest import Harness
from tests.infra.stacks import stack_of_outputs

NAME = "observed"


@pytest.fixture
def queues(aws: LocalAws) -> Iterator[dict[str, str]]:
    """Queue URLs of a stack, by output."""
    with stack_of_outputs(aws, NAME, QUEUES) as urls:
        yield urls


def alarm(aws: LocalAws, name: str, state: str) -> None:
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="n",
        MetricName="m",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        Threshold=1,
        Period=60,
        Statistic="Sum",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="because")


@pytest.mark.slow
def test_status_shows_queues_failures_products_and_alarms(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sqs = function.aws.client("sqs")
    for number in range(2):
        function.upload(exposure, f"{number}_uncal.fits")
        detail = function.run(f"{number}_uncal.fits")
    sqs.send_message(QueueUrl=queues["UploadedQueue"], MessageBody="{}")
    failed = {"source": "jwst.dq_init", "detail": {"error": "NoSuchBucket", "reason": "gone"}}
    sqs.send_message(QueueUrl=queues["FailedQueue"], MessageBody=json.dumps(failed))
    alarm(function.aws, f"{NAME}-FailedAlarm-1", "ALARM")
    alarm(function.aws, f"{NAME}-ErrorsAlarm-1", "OK")
    # An alarm of another stack whose name begins with the same words.
    alarm(function.aws, f"{NAME}-other-FailedAlarm-1", "ALARM")

    capsys.readouterr()
    (stack,) = function.aws.client("cloudformation").describe_stacks(StackName=NAME)["Stacks"]
    main(["status", "--stack", stack["StackId"], "--json"])
    status = json.loads(capsys.readouterr().out)
    assert status["queues"]["UploadedQueue"]["waiting"] == 1
    assert status["failures"] == {"NoSuchBucket": 1}
    reference = detail["reference"]
    assert status["products"] == [[reference["mask"], reference["context"], 2]]
    assert status["mirror"]["operational"] == reference["context"]
    assert status["entries_read"] == 2
    assert status["is_listening"] is False
    assert status["alarms_defined"] == 2
    assert status["alarms"] == [f"{NAME}-FailedAlarm-1"]

    with monkeypatch.context() as patch:
        patch.setattr("infra.operate.status.sends_events", lambda *_: True)
        main(["status", "--stack", NAME, "--entries", "1", "--json"])
    status = json.loads(capsys.readouterr().out)
    assert (status["entries_read"], status["products"][0][2]) == (1, 1)
    assert status["is_listening"] is True

    main(["status", "--stack", NAME])
    output = capsys.readouterr().out
    for part in (
        "UploadedQueue",
        "1 exposure failed: NoSuchBucket",
        "jwst_nircam_mask",
        "FailedAlarm",
        f"run dq-init status --stack {NAME} --enable-events",
    ):
        assert part in output


@pytest.mark.slow
def test_failed_exposure_is_counted_once(
    aws: LocalAws, queues: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"bucket": RAW, "key": "bad_uncal.fits"}
    detail = {"input": asked, "request": asked, "error": "InputRejected", "reason": "r"}
    body = json.dumps({"source": "jwst.dq_init", "detail": detail})
    for _ in range(3):
        aws.client("sqs").send_message(QueueUrl=queues["FailedQueue"], MessageBody=body)
    capsys.readouterr()
    main(["status", "--stack", NAME, "--json"])
    status = json.loads(capsys.readouterr().out)
    assert status["failures"] == {"InputRejected": 1}
    assert status["queues"]["FailedQueue"]["waiting"] == 3


@pytest.mark.slow
def test_damaged_ledger_entry_is_named_and_fails(
    aws: LocalAws, queues: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    key = "dq_ledger/dq_init/damaged_dq_init.fits.json"
    aws.client("s3").put_object(Bucket=PRODUCTS, Key=key, Body=b"{")
    try:
        message = r"damaged_dq_init\.fits: .*; run dq-init reprocess audit --rebuild"
        with pytest.raises(SystemExit, match=message):
            main(["status", "--stack", NAME])
    finally:
        aws.client("s3").delete_object(Bucket=PRODUCTS, Key=key)


@pytest.mark.slow
def test_stack_with_an_empty_mirror_is_shown(
    aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    with stack_of_outputs(aws, NAME, QUEUES, MirrorPrefix="empty"):
        main(["status", "--stack", NAME])
        said = " ".join(capsys.readouterr().out.split())
        assert "UploadedQueue" in said
        assert f"run dq-init mirror sync s3://{MIRROR}/empty" in said
        main(["status", "--stack", NAME, "--json"])
        assert json.loads(capsys.readouterr().out)["mirror"] is None


@pytest.mark.slow
def test_mirror_without_server_config_is_shown(
    aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    config = MirrorConfig("jwst_9001.pmap", frozenset(), {}, held_by_hand=True)
    aws.client("s3").put_object(Bucket=MIRROR, Key=f"state/{STATE}", Body=config.to_state())
    with stack_of_outputs(aws, NAME, QUEUES, MirrorPrefix="state", CrdsContext="build"):
        main(["status", "--stack", NAME])
    said = capsys.readouterr().out
    assert "operational context jwst_9001.pmap (held by hand), last written 20" in said
    assert "the function uses build" in said


@pytest.mark.slow
def test_denied_ledger_ends_with_the_error_of_aws(
    aws: LocalAws, queues: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, client = "dq_ledger/dq_init/x_dq_init.fits.json", boto3.client

    def denied(**_: object) -> tuple[object, dict[str, object]]:
        answer = type("Answer", (), {"status_code": 403, "headers": {}, "raw": None})()
        return answer, {
            "Error": {"Code": "AccessDenied", "Message": "not authorized: s3:GetObject"},
            "ResponseMetadata": {"HTTPStatusCode": 403},
        }

    def operator(name: str, **options: object) -> object:
        created = client(name, **options)  # type: ignore[call-overload]
        if name == "s3":
            created.meta.events.register("before-call.s3.GetObject", denied)
        return created

    aws.client("s3").put_object(Bucket=PRODUCTS, Key=key, Body=b"{}")
    monkeypatch.setattr("infra.operate.status.boto3.client", operator)
    try:
        with pytest.raises(SystemExit, match="s3:GetObject is denied to"):
            main(["status", "--stack", NAME])
    finally:
        aws.client("s3").delete_object(Bucket=PRODUCTS, Key=key)


def test_enable_events_keeps_a_deleted_destination(
    aws: LocalAws,
    queues: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    s3 = aws.client("s3")
    before = s3.get_bucket_notification_configuration(Bucket=RAW)
    del before["ResponseMetadata"]
    assert before["QueueConfigurations"]
    assert not sends_events(s3, RAW)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit, match="a terminal or --yes is needed"):
        main(["status", "--stack", NAME, "--enable-events"])
    sent: list[dict[str, str]] = []
    client = boto3.client

    def operator(name: str, **options: object) -> object:
        made = client(name, **options)  # type: ignore[call-overload]
        made.meta.events.register(
            "before-call.s3.PutBucketNotificationConfiguration",
            lambda params, **_: sent.append(dict(params["headers"])),
        )
        return made

    monkeypatch.setattr("infra.operate.status.boto3.client", operator)
    try:
        main(["status", "--stack", NAME, "--enable-events", "--yes"])
        assert "sends events to EventBridge now" in capsys.readouterr().out
        # moto does not validate destinations; S3 does, unless this header is set.
        assert sent[0]["x-amz-skip-destination-validation"] == "true"
        after = s3.get_bucket_notification_configuration(Bucket=RAW)
        assert after["QueueConfigurations"] == before["QueueConfigurations"]
    finally:
        s3.put_bucket_notification_configuration(Bucket=RAW, NotificationConfiguration=before)
