"""OneExposure, run by moto: the requests that it sends to the function and the events that it publishes."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import jsonschema
import pytest
from moto import mock_aws
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl

from tests.conftest import PROJECT, SCHEMA

REGION, ACCOUNT = "us-east-1", "123456789012"
REQUEST = {
    "bucket": "raw",
    "key": "a_uncal.fits",
    "mask": "N/A",
    "context": "jwst_1321.pmap",
    "outputKey": "dq_init/x.fits",
    "versionId": "v1",
}
THROTTLED, KILLED = "Lambda.TooManyRequestsException", "Sandbox.Timedout"
CONFIG = {"stepfunctions": {"execute_state_machine": True}, "lambda": {"use_docker": False}}


class Machine:
    """The state machine, and a function with prepared answers."""

    def __init__(self) -> None:
        self.name = f"one-exposure-{uuid.uuid4().hex}"
        self.answers: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.waited: list[float] = []

    def invoke(self, *arguments: Any, **named: Any) -> bytes:
        body = named.get("body", arguments[2] if len(arguments) > 2 else None)
        headers = named.get("response_headers", arguments[-1])
        self.asked.append(json.loads(body))
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            headers["x-amz-function-error"] = "Unhandled"
            answer = {"errorType": answer, "errorMessage": "as asked"}
        return json.dumps(answer).encode()

    def run(self, request: dict[str, Any], *answers: Any) -> dict[str, Any]:
        self.answers = list(answers)
        states = boto3.client("stepfunctions", REGION)
        arn = states.create_state_machine(
            name=self.name, definition=definition(), roleArn=f"arn:aws:iam::{ACCOUNT}:role/x"
        )["stateMachineArn"]
        execution = states.start_execution(stateMachineArn=arn, input=json.dumps(request))
        while True:
            found = states.describe_execution(executionArn=execution["executionArn"])
            if found["status"] != "RUNNING":
                assert self.answers == [], "the function was not asked often enough"
                return found
            time.sleep(0.05)

    @property
    def published(self) -> list[dict[str, Any]]:
        sqs = boto3.client("sqs", REGION)
        url = sqs.get_queue_url(QueueName=self.name)["QueueUrl"]
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"])["detail"] for message in found]


def definition() -> str:
    text = (PROJECT / "infra" / "state_machines" / "one_exposure.asl.json").read_text()
    values = {
        "FunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:dq-init",
        "EventBus": "default",
        "Version": "0.2.0",
        "Partition": "aws",
    }
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return text


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for name, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    running = Machine()
    monkeypatch.setattr(LambdaSimpleBackend, "invoke", lambda _, *a, **n: running.invoke(*a, **n))
    clock = type("Clock", (), {"sleep": staticmethod(running.waited.append)})
    monkeypatch.setattr(retrier_decl, "time", clock)
    mock = mock_aws(config=CONFIG)
    mock.start(reset=False)  # the embedded AWS of other tests runs in this process, too
    try:
        sqs, events = boto3.client("sqs", REGION), boto3.client("events", REGION)
        sqs.create_queue(QueueName=running.name)
        events.put_rule(Name=running.name, EventPattern='{"source": ["jwst.dq_init"]}')
        target = {"Id": "queue", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{running.name}"}
        events.put_targets(Rule=running.name, Targets=[target])
        yield running
    finally:
        events.remove_targets(Rule=running.name, Ids=["queue"])
        mock.stop(remove_data=False)


@pytest.mark.slow
def test_every_attempt_has_the_execution_as_cause(machine: Machine) -> None:
    done = machine.run(REQUEST, "TransientFailure", "ReferenceUnavailable", {"status": "Complete"})
    assert (done["status"], json.loads(done["output"])) == ("SUCCEEDED", {"status": "Complete"})
    attempt = {**REQUEST, "cause": done["executionArn"], "retried": True}
    assert machine.asked == [attempt] * 3
    assert machine.published == []


def test_rejected_input_is_not_retried(machine: Machine) -> None:
    done = machine.run(REQUEST, "InputRejected")
    assert (done["status"], done["error"]) == ("FAILED", "InputRejected")
    assert machine.published == [], "the function has published it"


@pytest.mark.slow
def test_function_reports_after_the_last_retry(machine: Machine) -> None:
    done = machine.run(REQUEST, *["TransientFailure"] * 6, {"status": "Complete"})
    assert done["status"] == "SUCCEEDED", "the last attempt was killed after it wrote the product"
    assert machine.asked[-1] == {**REQUEST, "cause": done["executionArn"], "reportOnly": True}


def test_failure_that_the_function_reported_is_not_repeated(machine: Machine) -> None:
    reported = {"status": "Failed", "error": "ReferenceUnavailable", "reason": "no mask"}
    done = machine.run(REQUEST, *["ReferenceUnavailable"] * 6, reported)
    assert (done["status"], done["error"]) == ("FAILED", "ReferenceUnavailable")
    assert done["cause"] == "no mask"
    assert machine.published == []


@pytest.mark.slow
def test_report_is_retried_ten_times(machine: Machine) -> None:
    """The event bus is unavailable, so nothing was published."""
    done = machine.run(REQUEST, *["TransientFailure"] * 14, {"status": "Complete"})
    assert done["status"] == "SUCCEEDED"
    assert machine.published == []


@pytest.mark.slow
@pytest.mark.parametrize("error", ["TransientFailure", "Runtime.ImportModuleError", "KeyError"])
def test_report_that_fails_is_published_as_failed(error: str, machine: Machine) -> None:
    reports = 11 if error == "TransientFailure" else 1
    done = machine.run(REQUEST, *["TransientFailure"] * 6, *[error] * reports)
    assert done["status"] == "FAILED"
    (detail,) = machine.published
    jsonschema.validate(detail, SCHEMA)
    assert error in detail["reason"]


@pytest.mark.slow
def test_killed_function_is_retried_then_reported(machine: Machine) -> None:
    done = machine.run(REQUEST, *[KILLED] * 4, {"status": "Complete"})
    assert done["status"] == "SUCCEEDED"


def test_throttling_for_an_hour_does_not_fail(machine: Machine) -> None:
    """The retries once ended after 35 s of throttling."""
    done = machine.run(REQUEST, *[THROTTLED] * 20, {"status": "Complete"})
    assert done["status"] == "SUCCEEDED"
    assert len(machine.waited) == 20


@pytest.mark.slow
def test_function_that_never_runs_is_published_with_its_request(
    machine: Machine,
) -> None:
    done = machine.run(REQUEST, *[THROTTLED] * 31, *[THROTTLED] * 31)
    assert (done["status"], done["error"]) == ("FAILED", THROTTLED)
    (detail,) = machine.published
    jsonschema.validate(detail, SCHEMA)
    assert detail["request"] == REQUEST
    assert (detail["cause"], detail["error"]) == (done["executionArn"], "TransientFailure")
    assert THROTTLED in detail["reason"]
