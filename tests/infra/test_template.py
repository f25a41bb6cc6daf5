"""The template and the code agree: environment, permissions, queues, versions."""

import json
import re
import textwrap
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from core import __version__
from core.errors import InputRejected, ReferenceUnavailable, TransientFailure
from core.product import product_name
from handler.s3.objects import S3Location
from handler.settings import Settings
from infra.aws import job_in, ledger_in
from infra.bundle.build import PYTHON
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW
from tests.conftest import PROJECT, Harness, created
from tests.infra.template import Permission, load, names_of, permissions, resolve
from tests.samples.exposures import write_exposure
from tests.samples.modes import MODES

TEMPLATE = load()
RESOURCES = TEMPLATE["Resources"]
FUNCTION = RESOURCES["Function"]["Properties"]
MAPPINGS = [
    resource["Properties"]
    for resource in RESOURCES.values()
    if resource["Type"] == "AWS::Lambda::EventSourceMapping"
]
MODE = {mode.name: mode for mode in MODES}
THEIRS = "theirs"
BACKFILLS = "https://sqs.us-east-1.amazonaws.com/123456789012/backfills"
CREATED = {"MakesProductBucket": True}
BY_LAMBDA = {"PollQueues", "Log", "Trace"}
"""Statements that Lambda itself uses with the function's role."""


def test_samconfig_example_names_parameters() -> None:
    text = (PROJECT / "docs" / "how-to" / "deploy.md").read_text()
    (example,) = re.findall(r"^ *```toml\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    given = tomllib.loads(textwrap.dedent(example))["default"]["deploy"]["parameters"]
    names = {item.partition("=")[0] for item in given["parameter_overrides"]}
    required = {n for n, p in TEMPLATE["Parameters"].items() if "Default" not in p}
    assert required <= names <= TEMPLATE["Parameters"].keys()


def test_settings_accept_the_environment_of_the_template() -> None:
    assert FUNCTION["Handler"] == "handler.app.lambda_handler"
    assert FUNCTION["Runtime"] == f"python{PYTHON}"
    variables = FUNCTION["Environment"]["Variables"]
    environment = resolve(variables, names_of(TEMPLATE), CREATED)
    assert {type(value) for value in environment.values()} == {str}
    required = {"OUTPUT_BUCKET": PRODUCTS, "CRDS_MIRROR": f"s3://{MIRROR}"}
    queues = ("UPLOADED_QUEUE_URL", "BACKFILL_QUEUE_URL", "UNFINISHED_QUEUE_ARN")
    chosen = ("DQ_BLOCK_URI", "LEDGER_URI", *queues)
    assert Settings.from_environment(environment) == Settings.from_environment(
        required | {name: environment[name] for name in chosen}
    ), "the template's defaults are the code's"


def test_sam_local_environment_has_only_template_variables() -> None:
    environment = json.loads((PROJECT / "infra" / "local-environment.json").read_text())["Function"]
    assert environment.keys() <= FUNCTION["Environment"]["Variables"].keys(), "others are ignored"
    assert Settings.from_environment(environment).mirror == S3Location(MIRROR, "")
    assert environment["AWS_ENDPOINT_URL"]


def test_queues_deliver_one_message_at_a_time() -> None:
    for mapping in MAPPINGS:
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["BatchSize"] == 1


def test_dead_letter_queues_are_unfinished_then_undelivered() -> None:
    def after(queue: str) -> str:
        return RESOURCES[queue]["Properties"]["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"]

    assert after("UploadedQueue") == after("BackfillQueue") == "UnfinishedQueue.Arn"
    assert after("UnfinishedQueue") == "UndeliveredQueue.Arn"
    sources = [mapping["EventSourceArn"] for mapping in MAPPINGS]
    names = ("Uploaded", "Backfill", "Unfinished")
    assert sources == [{"Fn::GetAtt": f"{name}Queue.Arn"} for name in names]
    assert FUNCTION["Environment"]["Variables"]["UNFINISHED_QUEUE_ARN"] == sources[2]


def test_changed_parameters_take_effect_without_a_new_version() -> None:
    """SAM publishes a version for new code only, so a changed parameter would not apply (SAM issue 1640)."""
    assert "AutoPublishAlias" not in FUNCTION
    called = [mapping["FunctionName"] for mapping in MAPPINGS]
    called.append(RESOURCES["OneExposure"]["Properties"]["DefinitionSubstitutions"]["FunctionArn"])
    for name in called:
        assert name in ({"Ref": "Function"}, {"Fn::GetAtt": "Function.Arn"})


def test_failed_events_go_by_one_rule_to_one_queue() -> None:
    rule = RESOURCES["FailedRule"]["Properties"]
    assert rule["EventPattern"] == {"source": ["jwst.dq_init"], "detail": {"status": ["Failed"]}}
    assert [target["Arn"]["Fn::GetAtt"] for target in rule["Targets"]] == ["FailedQueue.Arn"]


def test_queue_policies_accept_rules_of_any_bus() -> None:
    """``Ref`` of a rule on a named bus is ``bus|rule``, which does not occur in its ARN."""
    text = (PROJECT / "template.yaml").read_text()
    assert not re.search(r"rule/\$\{\w+Rule\}", text)
    for name, resource in RESOURCES.items():
        if resource["Type"] == "AWS::SQS::QueuePolicy":
            (statement,) = resource["Properties"]["PolicyDocument"]["Statement"]
            named = statement["Condition"]["ArnEquals"]["aws:SourceArn"]
            for arn in named if isinstance(named, list) else [named]:
                assert arn["Fn::GetAtt"].endswith("Rule.Arn"), name


def test_only_the_function_may_write_blocks_and_ledger() -> None:
    statements = RESOURCES["ProductBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    (statement,) = (s for s in statements if s["Sid"] == "OnlyTheFunctionWrites")
    resolved = resolve(statement, names_of(TEMPLATE), {})
    assert (resolved["Effect"], resolved["Action"]) == ("Deny", "s3:PutObject")
    variables = resolve(FUNCTION["Environment"]["Variables"], names_of(TEMPLATE), CREATED)
    for name in ("DQ_BLOCK_URI", "LEDGER_URI"):
        key = variables[name].removeprefix(f"s3://{PRODUCTS}/")
        assert f"arn:aws:s3:::{PRODUCTS}/{key}/*" in resolved["Resource"]
    role = "arn:aws:iam::123456789012:role/dq-init"
    assert resolved["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": role}}


def test_commands_and_template_agree_on_key_prefixes() -> None:
    variables = resolve(FUNCTION["Environment"]["Variables"], names_of(TEMPLATE), CREATED)
    assert variables["LEDGER_URI"] == str(ledger_in(PRODUCTS))
    substituted = RESOURCES["Backfill"]["Properties"]["DefinitionSubstitutions"]
    assert job_in(PRODUCTS, "x").key.startswith(f"{substituted['ResultPrefix']}/x/")


def test_replaced_products_expire_after_30_days() -> None:
    rules = RESOURCES["ProductBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (rule,) = (r for r in rules if r["Id"] == "replaced-products")
    assert rule["Prefix"] == {"Ref": "OutputPrefix"}
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}


def test_product_does_not_invoke_the_function() -> None:
    (key,) = RESOURCES["UploadedRule"]["Properties"]["EventPattern"]["detail"]["object"]["key"]
    assert key["wildcard"]["Fn::Sub"].endswith("*_uncal.fits")
    assert not product_name("jw_uncal.fits").endswith("_uncal.fits")


def test_state_machine_has_the_version_of_the_code() -> None:
    for name in ("OneExposure",):
        substitutions = RESOURCES[name]["Properties"]["DefinitionSubstitutions"]
        assert substitutions["Version"] == __version__


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [{}, {"MakesRawBucket": False}, {"HasReadBuckets": True}],
    ids=["a bucket that is made", "a bucket of ones own", "others' buckets"],
)
def test_function_role_allows_exactly_what_is_called(
    variant: dict[str, bool], make_function: Any, tmp_path: Path, calls: set[tuple[str, str]]
) -> None:
    function: Harness = make_function(blocks=S3Location(PRODUCTS, "dq_blocks"))
    write_exposure(replace(MODE["nircam-full"], shape=(1, 5, 2048, 2048)), tmp_path / "x.fits")
    keys = ["first_uncal.fits", "second_uncal.fits"]
    for key in keys:
        function.upload(tmp_path / "x.fits", key)
    theirs = variant.get("HasReadBuckets", False)
    if theirs:
        function.aws.client("s3").create_bucket(Bucket=THEIRS)
        function.aws.client("s3").upload_file(str(tmp_path / "x.fits"), THEIRS, "third_uncal.fits")
    calls.clear()
    exercise(function, keys)
    if theirs:
        function.run_event({"bucket": THEIRS, "key": "third_uncal.fits"})
    named = {"RawBucketName": RAW, "ReadBuckets": THEIRS}
    granted = permissions(TEMPLATE, "FunctionRole", named, **variant)
    allowed = [p for p in granted if p.sid not in BY_LAMBDA]
    for action, resource in sorted(calls):
        assert any(p.allows(action, resource) for p in allowed), f"{action} on {resource}"
    unused = [p for p in allowed if not any(p.allows(*call) for call in calls)]
    assert unused == []


def exercise(function: Harness, keys: list[str]) -> None:
    """Use every operation of the function: products, blocks, failures, aborted uploads, reports."""
    first, second = keys

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "SlowDown"}}, "any")

    hooks = function.function.s3.meta.events
    for operation in ("UploadPart", "UploadPartCopy"):  # of a block first, then of the product
        hooks.register(f"before-call.s3.{operation}", fail)
        with pytest.raises(TransientFailure):
            function.run(first)
        hooks.unregister(f"before-call.s3.{operation}", fail)
    version = function.aws.client("s3").head_object(Bucket=RAW, Key=first)["VersionId"]
    function.run(first, versionId=version)
    assert function.run(first)["status"] == "Skipped"
    function.function.blocks.forget()
    assert function.run(second)["status"] == "Complete"
    with pytest.raises(InputRejected):
        function.run("absent_uncal.fits")
    with pytest.raises(ReferenceUnavailable):
        function.run(first, mask=f"s3://{MIRROR}/absent.fits")
    function.run_unfinished(created(second))
    function = function.with_settings(
        uploaded_queue_url=function.aws.uploads, backfill_queue_url=BACKFILLS
    )
    for queue in ("arn:aws:sqs:us-east-1:123456789012:uploads", BACKFILLS.replace("/", ":")):
        assert function.run_batch(created(second), queue=queue) == []


@pytest.mark.parametrize("name", ["template.yaml", "infra/mirror.yaml"])
def test_every_function_has_a_home_folder(name: str) -> None:
    """Without one, and without an entry in /etc/passwd, the import of astropy fails."""
    functions = [
        resource["Properties"]
        for resource in load(name)["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]
    assert functions
    assert all(f["Environment"]["Variables"]["HOME"] == "/tmp" for f in functions)


def test_existing_raw_bucket_replaces_the_created_one() -> None:
    usual = set(permissions(TEMPLATE, "FunctionRole"))
    own = set(permissions(TEMPLATE, "FunctionRole", MakesRawBucket=False, HasReadKmsKeys=True))
    assert own - usual == {
        Permission("ReadExposures", "s3:GetObject", "arn:aws:s3:::mine/*"),
        Permission("ReadExposures", "s3:GetObjectVersion", "arn:aws:s3:::mine/*"),
        Permission("DistinguishMissingKeys", "s3:ListBucket", "arn:aws:s3:::mine"),
        Permission("DecryptReadBuckets", "kms:Decrypt", "arn:kms:read"),
    }
    assert {p.sid for p in usual - own} == {"ReadExposures", "DistinguishMissingKeys"}
    for part in ("RawBucket", "RawBucketPolicy"):
        assert RESOURCES[part]["Condition"] == "MakesRawBucket"


def test_read_buckets_grant_only_get_object() -> None:
    usual = set(permissions(TEMPLATE, "FunctionRole"))
    more = set(permissions(TEMPLATE, "FunctionRole", HasReadBuckets=True)) - usual
    assert more == {
        Permission("ReadOtherBuckets", "s3:GetObject", "arn:aws:s3:::stpubdata/*"),
        Permission("ReadOtherBuckets", "s3:GetObject", "arn:aws:s3:::theirs/*"),
    }


def test_kms_parameters_grant_only_their_keys() -> None:
    usual = set(permissions(TEMPLATE, "FunctionRole"))
    keyed = set(permissions(TEMPLATE, "FunctionRole", HasKmsKey=True, HasReadKmsKeys=True))
    assert keyed - usual == {
        Permission("UseKmsKey", "kms:Decrypt", "arn:kms:key"),
        Permission("UseKmsKey", "kms:GenerateDataKey", "arn:kms:key"),
        Permission("DecryptReadBuckets", "kms:Decrypt", "arn:kms:read"),
    }
    earlier = Permission("DecryptReadBuckets", "kms:Decrypt", "arn:kms:read")
    assert earlier in permissions(TEMPLATE, "BackfillRole", HasReadKmsKeys=True)


def test_only_traces_and_log_deliveries_use_any_resource() -> None:
    conditions = dict.fromkeys(TEMPLATE["Conditions"], True)
    for role in ("FunctionRole", "OneExposureRole", "BackfillRole"):
        granted = permissions(TEMPLATE, role, **conditions)
        assert {p.sid for p in granted if p.resource == "*"} <= {"Trace", "DeliverLogs"}


def test_tracing_parameter_enables_tracing_everywhere() -> None:
    traced = {"Tracing": "Active"}
    for is_traced in (False, True):
        names = names_of(TEMPLATE, **traced if is_traced else {})
        assert resolve(FUNCTION["Tracing"], names, {}) == ("Active" if is_traced else "PassThrough")
        for role in ("FunctionRole", "OneExposureRole", "BackfillRole"):
            sids = {p.sid for p in permissions(TEMPLATE, role, IsTraced=is_traced)}
            assert ("Trace" in sids) == is_traced
        for machine in ("OneExposure", "Backfill"):
            tracing = RESOURCES[machine]["Properties"]["Tracing"]["Enabled"]
            assert resolve(tracing, names, {"IsTraced": is_traced}) is is_traced


def test_metrics_and_alarms_have_the_stack_as_dimension() -> None:
    service = FUNCTION["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
    assert service == {"Ref": "AWS::StackName"}
    ours = [
        resource["Properties"]
        for resource in RESOURCES.values()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
        and resource["Properties"]["Namespace"] == "JwstDqInit"
    ]
    assert len(ours) >= 4
    for alarm in ours:
        assert alarm["Dimensions"] == [{"Name": "service", "Value": service}]
    board = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    assert json.loads(board), "CloudWatch reads it"
    assert '"service", "${AWS::StackName}"' in board
    assert "SOURCE '${EventLog}'" in board


def test_deleted_stack_leaves_only_the_data_buckets() -> None:
    kept = {
        name: resource["Type"]
        for name, resource in RESOURCES.items()
        if resource.get("DeletionPolicy", "Delete") != "Delete"
    }
    assert kept == {"RawBucket": "AWS::S3::Bucket", "ProductBucket": "AWS::S3::Bucket"}
    logs = {"FunctionLog", "EventLog", "StateMachineLog"}
    assert {n for n, r in RESOURCES.items() if r["Type"] == "AWS::Logs::LogGroup"} == logs
    for role in ("FunctionRole", "OneExposureRole", "BackfillRole"):
        granted = permissions(TEMPLATE, role)
        assert not any(p.action == "logs:CreateLogGroup" for p in granted), "none comes back"


def test_application_repository_metadata_are_valid() -> None:
    metadata = TEMPLATE["Metadata"]["AWS::ServerlessRepo::Application"]
    assert metadata["SemanticVersion"] == __version__
    for name in ("LicenseUrl", "ReadmeUrl"):
        assert (PROJECT / metadata[name]).is_file()
    assert re.fullmatch(r"[A-Za-z0-9-]{1,140}", metadata["Name"])
    assert len(metadata["Labels"]) <= 10
    assert len(metadata["Description"]) <= 256
