"""A stack at a glance, as an operator asks for it."""

import json
from collections.abc import Iterator

import pytest

from infra.__main__ import main
from infra.demo.local_aws import LocalAws
from infra.status.__main__ import QUEUES
from tests.conftest import Harness
from tests.infra.stacks import stack_of_outputs

NAME = "glance"


@pytest.fixture
def queues(aws: LocalAws) -> Iterator[dict[str, str]]:
    """A stack of the template's outputs."""
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


def test_it_tells_what_waits_failed_was_made_and_rings(
    function: Harness, queues: dict[str, str], exposure: bytes, capsys: pytest.CaptureFixture[str]
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

    capsys.readouterr()
    main(["status", "--stack", NAME, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["queues"]["UploadedQueue"]["waiting"] == 1
    assert told["failures"] == {"NoSuchBucket": 1}
    reference = detail["reference"]
    assert told["products"] == [[reference["mask"], reference["context"], 2]]
    assert told["mirror"]["operational"] == reference["context"]
    assert told["alarms"] == [f"{NAME}-FailedAlarm-1"]

    main(["status", "--stack", NAME])
    said = capsys.readouterr().out
    for part in ("UploadedQueue", "1 failed: NoSuchBucket", "jwst_nircam_mask", "FailedAlarm"):
        assert part in said
