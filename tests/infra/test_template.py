"""The template and the code: what one says of the other is true."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
from botocore.exceptions import ClientError

from core import __version__
from core.errors import InputRejected, TransientFailure
from core.product import product_name
from handler import outcomes as ledger
from handler.batches import handle_batch
from handler.outcomes import Outcomes
from handler.s3.locations import S3Location
from handler.settings import Settings
from infra.bundle.python import PYTHON
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW
from infra.demo.samples.exposures import write_exposure
from infra.demo.samples.modes import MODES
from tests.conftest import PROJECT, SCHEMA, Function
from tests.infra.template import Permission, load, names_of, permissions, resolve

TEMPLATE = load()
RESOURCES = TEMPLATE["Resources"]
FUNCTION = RESOURCES["Function"]["Properties"]
MODE = {mode.name: mode for mode in MODES}
OF_LAMBDA = {"BeDrivenByTheQueue", "Log", "Trace"}
"""What Lambda itself does in the function's name."""


def test_the_function_is_given_an_environment_it_accepts() -> None:
    assert FUNCTION["Handler"] == "handler.app.lambda_handler"
    assert FUNCTION["Runtime"] == f"python{PYTHON}"
    variables = FUNCTION["Environment"]["Variables"]
    environment = resolve(variables, names_of(TEMPLATE), {})
    required = {"OUTPUT_BUCKET": PRODUCTS, "CRDS_MIRROR": f"s3://{MIRROR}"}
    chosen = ("DQ_BLOCK_URI", "OUTCOME_URI", "EVENT_LOG", "UPLOADED_QUEUE")
    assert Settings.from_environment(environment) == Settings.from_environment(
        required | {name: environment[name] for name in chosen}
    ), "the template's defaults are the code's"


def test_the_environment_of_sam_local_invoke_is_one_of_the_templates() -> None:
    environment = json.loads((PROJECT / "infra" / "local-environment.json").read_text())["Function"]
    assert environment.keys() <= FUNCTION["Environment"]["Variables"].keys(), "others are ignored"
    assert Settings.from_environment(environment).mirror == S3Location(MIRROR, "")
    assert environment["AWS_ENDPOINT_URL"]


def test_queue_and_function_agree_on_times_and_attempts() -> None:
    queue = RESOURCES["UploadedQueue"]["Properties"]
    names = names_of(TEMPLATE)
    assert int(names["VisibilityTimeout"]) >= 6 * int(names["Timeout"])
    attempts = int(FUNCTION["Environment"]["Variables"]["MAX_ATTEMPTS"])
    assert queue["RedrivePolicy"]["maxReceiveCount"] == attempts + 1
    assert FUNCTION["Events"]["Uploaded"]["Properties"]["FunctionResponseTypes"] == [
        "ReportBatchItemFailures"
    ]


def test_every_rule_and_queue_has_a_dead_letter_queue() -> None:
    for name, resource in RESOURCES.items():
        if resource["Type"] == "AWS::Events::Rule":
            for target in resource["Properties"]["Targets"]:
                assert target["DeadLetterConfig"], name


def test_a_product_never_sets_the_function_off() -> None:
    (key,) = RESOURCES["UploadedRule"]["Properties"]["EventPattern"]["detail"]["object"]["key"]
    assert key["wildcard"]["Fn::Sub"].endswith("*_uncal.fits")
    assert not product_name("jw_uncal.fits").endswith("_uncal.fits")


def test_there_is_one_version() -> None:
    for name in ("OneExposure",):
        substitutions = RESOURCES[name]["Properties"]["DefinitionSubstitutions"]
        assert substitutions["Version"] == __version__


def test_what_the_state_machine_announces_follows_the_schema() -> None:
    path = PROJECT / RESOURCES["OneExposure"]["Properties"]["DefinitionUri"]
    (entry,) = json.loads(path.read_text())["States"]["Announce"]["Parameters"]["Entries"]
    jsonschema.validate(filled(entry["Detail"]), SCHEMA)


def filled(value: Any) -> Any:
    """Fill in what Step Functions would."""
    if not isinstance(value, dict):
        return value
    plain = {name.removesuffix(".$"): filled(item) for name, item in value.items()}
    return plain | ({"id": "0" * 32} if "id.$" in value else {})


def test_the_function_may_do_what_it_does_and_nothing_else(
    make_function: Any, tmp_path: Path, calls: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    function: Function = make_function(blocks=S3Location(PRODUCTS, "dq_blocks"))
    write_exposure(replace(MODE["nircam-full"], shape=(1, 5, 2048, 2048)), tmp_path / "x.fits")
    keys = ["first_uncal.fits", "second_uncal.fits"]
    for key in keys:
        function.upload(tmp_path / "x.fits", key)
    calls.clear()
    exercise(function, keys, monkeypatch)
    allowed = [p for p in permissions(TEMPLATE, "FunctionRole") if p.sid not in OF_LAMBDA]
    for action, resource in sorted(calls):
        assert any(p.allows(action, resource) for p in allowed), f"{action} on {resource}"
    unused = [p for p in allowed if not any(p.allows(*call) for call in calls)]
    assert unused == []


def exercise(function: Function, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do whatever the function can do: products, blocks, failures, an aborted upload, a kill."""
    monkeypatch.setattr(ledger, "_PAUSES", ())
    first, second = keys

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "SlowDown"}}, "any")

    hooks = function.services.s3.meta.events
    for operation in ("UploadPart", "UploadPartCopy"):  # of a block first, then of the product
        hooks.register(f"before-call.s3.{operation}", fail)
        with pytest.raises(TransientFailure):
            function.run(first)
        hooks.unregister(f"before-call.s3.{operation}", fail)
    with monkeypatch.context() as patch:
        patch.setattr(Outcomes, "_note", lambda *_: None)  # killed before it
        function.run(first)
    function.services.outcomes.clock = lambda: 4e9
    assert function.run(first)["status"] == "Skipped"
    function.services.blocks.forget()
    assert function.run(second)["status"] == "Complete"
    with pytest.raises(InputRejected):
        function.run("absent_uncal.fits")
    batch_that_fails(function, second)


def batch_that_fails(function: Function, key: str) -> None:
    """A message that is to be delayed; nobody has received it, so that cannot be done."""
    body = json.dumps({"bucket": RAW, "key": key, "mask": f"s3://{MIRROR}/absent.fits"})
    batch = {"Records": [{"messageId": "1", "body": body, "receiptHandle": "r"}]}
    function = function.with_settings(queue=function.aws.uploads)
    invocation, sqs = function.invocation(), partial(boto3.client, "sqs")
    with pytest.raises(ClientError):
        handle_batch(batch, function.settings, function.services, invocation, sqs)


def test_encrypted_buckets_ask_for_their_keys_and_for_nothing_else() -> None:
    usual = set(permissions(TEMPLATE, "FunctionRole"))
    keyed = set(permissions(TEMPLATE, "FunctionRole", HasKmsKey=True, HasMirrorKmsKey=True))
    assert keyed - usual == {
        Permission("UseTheBucketsKey", "kms:Decrypt", "arn:kms:key"),
        Permission("UseTheBucketsKey", "kms:GenerateDataKey", "arn:kms:key"),
        Permission("UseTheMirrorsKey", "kms:Decrypt", "arn:kms:mirror"),
    }


def test_no_statement_but_those_that_must_names_every_resource() -> None:
    for role in ("FunctionRole", "OneExposureRole", "BackfillRole"):
        for statement in RESOURCES[role]["Properties"]["Policies"][0]["PolicyDocument"][
            "Statement"
        ]:
            if statement.get("Resource") == "*":
                assert statement["Sid"] in {"Trace", "LogAndTrace"}
