"""The templates, transformed by SAM and evaluated as CloudFormation does."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infra.cloudformation import ACCOUNT, Deployment, is_accepted
from tests.infra.template import load

MAIN, MIRROR = "template.yaml", "infra/mirror.yaml"
PARTITIONS = {
    "aws": "us-east-1",
    "aws-us-gov": "us-gov-west-1",
    "aws-cn": "cn-north-1",
    "aws-eusc": "eusc-de-east-1",
}
RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557)
RETENTIONS += (2922, 3288, 3653)
"""Days that CloudWatch Logs accepts: its API reference, PutRetentionPolicy."""
NAMES = {  # properties that name a resource for a whole account and region
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::Events::Rule": "Name",
    "AWS::IAM::Role": "RoleName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::Logs::ResourcePolicy": "PolicyName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::Scheduler::Schedule": "Name",
    "AWS::StepFunctions::StateMachine": "StateMachineName",
}
GLOBAL = {"AWS::CloudWatch::Dashboard", "AWS::IAM::Role", "AWS::S3::Bucket"}
LEAST = {MAIN: {"MirrorBucket": "crds"}, MIRROR: {}}


def most(template: str, partition: str) -> dict[str, str]:
    """Return the longest value of every parameter."""
    region, bucket = PARTITIONS[partition], "b" * 63
    key = f"arn:{partition}:kms:{region}:{ACCOUNT}:key/12345678-1234-1234-1234-123456789012"
    common = {
        "EventBus": "e" * 256,
        "PermissionsBoundary": f"arn:{partition}:iam::{ACCOUNT}:policy/boundary",
        "LogRetentionDays": "3653",
        "AlarmTopic": f"arn:{partition}:sns:{region}:{ACCOUNT}:topic",
    }
    if template == MIRROR:
        return common | {
            "MirrorBucketName": bucket,
            "MirrorKmsKey": key,
            "Reprocess": "submit",
            "ProductBucket": bucket,
            "ProductKmsKey": key,
            "BackfillQueue": f"https://sqs.{region}.amazonaws.com/{ACCOUNT}/queue",
        }
    return common | {
        "MirrorBucket": bucket,
        "MirrorPrefix": "m" * 200,
        "CrdsContext": "jwst_1321.pmap",
        "RawBucketName": bucket,
        "ProductBucketName": "p" * 63,
        "ReadBuckets": ",".join(letter * 63 for letter in "vwxyz"),
        "ReadKmsKeys": ",".join([key] * 10),
        "RequesterPaysBuckets": ("r" * 63 + ",") * 15 + "r",
        "InputPrefix": "i" * 199 + "/",
        "OutputPrefix": "o" * 199 + "/",
        "ScienceEncoding": "float32",
        "Architecture": "x86_64",
        "MaximumConcurrency": "1000",
        "BackfillConcurrency": "1000",
        "KmsKey": key,
        "Tracing": "Active",
    }


@pytest.fixture(params=[MAIN, MIRROR])
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["least", "most", "reprocessing"])
def deployment(template: str, request: pytest.FixtureRequest) -> Deployment:
    parameters = LEAST[template]
    if request.param != "least":
        parameters = most(template, "aws")
    if request.param == "reprocessing":
        made = {"MirrorBucketName", "RawBucketName", "ProductBucketName", "EventBus"}
        parameters = {name: v for name, v in parameters.items() if name not in made}
    return Deployment(template, parameters)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_largest_parameters_are_accepted(template: str, partition: str) -> None:
    declared = load(template)["Parameters"]
    for name, value in most(template, partition).items():
        assert is_accepted(declared[name], value), name
    for name, parameter in declared.items():
        if "Default" in parameter:
            assert is_accepted(parameter, str(parameter["Default"])), name


def test_parameters_are_at_most_22_and_each_is_used(template: str) -> None:
    loaded = load(template)
    used = {kind: loaded.get(kind, {}) for kind in ("Conditions", "Rules", "Resources", "Outputs")}
    text = set(strings(used))
    substituted = {name for one in text for name in re.findall(r"\$\{(\w+)\}", one)}
    assert len(loaded["Parameters"]) <= 22
    assert loaded["Parameters"].keys() - text - substituted == set()


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("are_most", [False, True], ids=["least", "most"])
def test_every_arn_is_of_the_partition(template: str, partition: str, are_most: bool) -> None:
    region = PARTITIONS[partition]
    parameters = most(template, partition) if are_most else LEAST[template]
    deployed = Deployment(template, parameters, partition, region)
    arns = [a for text in strings(deployed.resources) for a in re.findall(r"arn:[a-z-]+:", text)]
    assert len(arns) > 10
    assert set(arns) == {f"arn:{partition}:"}


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
def test_each_read_bucket_may_be_read_and_no_other(partition: str, count: int) -> None:
    buckets = ["one", "two", "three", "four", "five"][:count]
    parameters = {**LEAST[MAIN], "ReadBuckets": ",".join(buckets)}
    deployed = Deployment(MAIN, parameters, partition, PARTITIONS[partition])
    statements = deployed.statements("FunctionRole")
    (statement,) = (s for s in statements if s["Sid"] == "ReadOtherBuckets")
    assert statement["Action"] == "s3:GetObject"
    assert set(statement["Resource"]) == {f"arn:{partition}:s3:::{name}/*" for name in buckets}


@pytest.mark.parametrize("value", ["one two", "one,", ",one", "one, two", "a,b", "arn:aws:s3:::b"])
def test_malformed_read_buckets_are_refused(value: str) -> None:
    assert not is_accepted(load(MAIN)["Parameters"]["ReadBuckets"], value)


@pytest.mark.parametrize("regions", [("us-east-1",) * 2, ("us-east-1", "eu-central-1")])
def test_two_stacks_share_no_name(template: str, regions: tuple[str, str]) -> None:
    """Stacks in one region have different names; stacks in two regions may have the same name."""
    same_region = regions[0] == regions[1]
    first, second = (
        Deployment(
            template, LEAST[template], region=region, stack=f"s{n}" if same_region else "same"
        )
        for n, region in enumerate(regions)
    )
    for logical, resource in first.resources.items():
        kind = resource["Type"]
        name = resource["Properties"].get(NAMES.get(kind, ""))
        other = second.resources[logical]["Properties"].get(NAMES.get(kind, ""))
        if name is not None and (same_region or kind in GLOBAL):
            assert name != other, f"{logical} has the same name in both stacks"


def test_every_role_has_the_permissions_boundary(template: str) -> None:
    bounded = Deployment(template, most(template, "aws")).of_type("IAM::Role")
    assert {role["PermissionsBoundary"] for role in bounded.values()} == {
        f"arn:aws:iam::{ACCOUNT}:policy/boundary"
    }
    assert len(bounded) == 3
    for role in Deployment(template, LEAST[template]).of_type("IAM::Role").values():
        assert "PermissionsBoundary" not in role


def test_every_delivery_has_a_dead_letter_queue_with_alarm(deployment: Deployment) -> None:
    watched = {
        dimension["Value"]
        for alarm in deployment.of_type("CloudWatch::Alarm").values()
        for dimension in alarm["Dimensions"]
        if dimension["Name"] == "QueueName"
    }
    targets = [
        (logical, target)
        for logical, rule in deployment.of_type("Events::Rule").items()
        for target in rule["Targets"]
    ]
    schedules = deployment.of_type("Scheduler::Schedule").items()
    targets += [(logical, schedule["Target"]) for logical, schedule in schedules]
    for logical, target in targets:
        queue = target["DeadLetterConfig"]["Arn"]
        assert queue.rpartition(":")[2] in watched, f"{logical}: nothing watches {queue}"
        assert may_send(deployment, logical, queue), f"{logical} may not send to {queue}"


def may_send(deployment: Deployment, source: str, queue: str) -> bool:
    """Return whether a rule may send by the queue's policy, or a schedule by its role."""
    if deployment.resources[source]["Type"] == "AWS::Scheduler::Schedule":
        return sends(deployment, f"{source}Role", queue)
    return any(
        statement["Resource"] == queue
        and statement["Action"] == "sqs:SendMessage"
        and deployment.arn(source) in listed(statement["Condition"]["ArnEquals"]["aws:SourceArn"])
        for policy in deployment.of_type("SQS::QueuePolicy").values()
        for statement in policy["PolicyDocument"]["Statement"]
    )


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def sends(deployment: Deployment, role: str, queue: str) -> bool:
    return any(
        "sqs:SendMessage" in listed(s["Action"]) and queue in listed(s["Resource"])
        for s in deployment.statements(role)
    )


def test_failed_asynchronous_invocations_reach_a_queue(deployment: Deployment) -> None:
    functions = deployment.of_type("Lambda::Function")
    invoked = {
        target["Arn"]
        for rule in deployment.of_type("Events::Rule").values()
        for target in rule["Targets"]
    } | {s["Target"]["Arn"] for s in deployment.of_type("Scheduler::Schedule").values()}
    kept = {
        config["FunctionName"]: config["DestinationConfig"]["OnFailure"]["Destination"]
        for config in deployment.of_type("Lambda::EventInvokeConfig").values()
    }
    for logical, function in functions.items():
        arn = deployment.arn(logical)
        if arn in invoked:
            queue = kept[arn.rpartition(":")[2]]
            role = next(
                n for n in deployment.of_type("IAM::Role") if deployment.arn(n) == function["Role"]
            )
            assert sends(deployment, role, queue)
            assert queue == deployment.arn("UndeliveredQueue")


def test_messages_stay_hidden_six_timeouts(deployment: Deployment) -> None:
    queues = {deployment.arn(n): q for n, q in deployment.of_type("SQS::Queue").items()}
    for mapping in deployment.of_type("Lambda::EventSourceMapping").values():
        timeout = deployment.of_type("Lambda::Function")["Function"]["Timeout"]
        assert queues[mapping["EventSourceArn"]]["VisibilityTimeout"] >= 6 * timeout


def test_log_retention_accepts_what_cloudwatch_accepts(template: str) -> None:
    parameter = load(template)["Parameters"]["LogRetentionDays"]
    assert {int(value) for value in parameter["AllowedValues"]} == set(RETENTIONS)
    assert not is_accepted(parameter, "100")


def test_logs_resource_policy_can_be_left_out() -> None:
    def policies(**more: str) -> dict[str, Any]:
        return Deployment(MAIN, LEAST[MAIN] | more).of_type("Logs::ResourcePolicy")

    assert len(policies()) == 1
    assert policies(LogsResourcePolicy="none") == {}


@pytest.mark.parametrize("bus", ["default", "science"])
def test_only_the_rule_may_write_the_event_log(bus: str) -> None:
    deployed = Deployment(MAIN, LEAST[MAIN] | {"EventBus": bus})
    policy = deployed.of_type("Logs::ResourcePolicy")["EventLogPolicy"]
    statements = json.loads(policy["PolicyDocument"])["Statement"]
    (put,) = (s for s in statements if s["Action"] == "logs:PutLogEvents")
    rule = deployed.arn("EventLogRule")
    assert put["Condition"] == {"ArnEquals": {"aws:SourceArn": rule}}
    assert rule.endswith(
        "rule/science/one-EventLogRule-1ABCDEFGHIJKL"
        if bus == "science"
        else f"rule/{rule.rpartition('/')[2]}"
    )


def test_function_may_list_the_buckets_that_it_reads() -> None:
    """S3 answers 404 only to a role that may list the bucket, whatever the key."""
    statements = Deployment(MAIN, LEAST[MAIN]).statements("FunctionRole")
    (lists,) = (s for s in statements if "s3:ListBucket" in listed(s["Action"]))
    assert "arn:aws:s3:::crds" in lists["Resource"]
    assert len(lists["Resource"]) == 3
    assert "Condition" not in lists


def test_keys_of_read_buckets_may_be_used_to_decrypt() -> None:
    keys = [
        f"arn:aws:kms:us-east-1:{account}:key/1" for account in ("111122223333", "222233334444")
    ]
    deployed = Deployment(MAIN, LEAST[MAIN] | {"ReadKmsKeys": ",".join(keys)})
    (statement,) = (s for s in deployed.statements("FunctionRole") if "kms:" in str(s["Action"]))
    assert (statement["Action"], statement["Resource"]) == ("kms:Decrypt", keys)


def test_largest_stack_is_within_the_limits_of_aws(deployment: Deployment) -> None:
    for logical, role in deployment.of_type("IAM::Role").items():
        size = sum(len(json.dumps(p["PolicyDocument"])) for p in role["Policies"])
        assert size <= 10_240, f"{logical}: an inline policy of {size} characters"
    for function in deployment.of_type("Lambda::Function").values():
        assert len(json.dumps(function["Environment"]["Variables"])) <= 4096
        assert len(function.get("Description", "")) <= 256
    for rule in deployment.of_type("Events::Rule").values():
        assert len(json.dumps(rule.get("EventPattern"))) <= 2048
        assert len(rule["Description"]) <= 512
    for dashboard in deployment.of_type("CloudWatch::Dashboard").values():
        assert json.loads(dashboard["DashboardBody"])
    assert deployment.of_type("Lambda::Version") == {}


def test_existing_buckets_replace_the_created_ones(template: str) -> None:
    deployed = Deployment(template, most(template, "aws"))
    assert deployed.of_type("S3::Bucket") == deployed.of_type("S3::BucketPolicy") == {}
    if template == MAIN:
        variables = deployed.of_type("Lambda::Function")["Function"]["Environment"]["Variables"]
        assert variables["OUTPUT_BUCKET"] == "p" * 63
        assert variables["LEDGER_URI"] == f"s3://{'p' * 63}/dq_ledger"


def test_failed_first_deployment_keeps_no_bucket(template: str) -> None:
    for resource in load(template)["Resources"].values():
        if resource["Type"] == "AWS::S3::Bucket":
            assert resource["DeletionPolicy"] == "RetainExceptOnCreate"
            assert resource["UpdateReplacePolicy"] == "Retain"


@pytest.mark.parametrize(
    "prefix", ["", "dq_blocks/", "dq_ledger/a/", "dq_catalogue/", "dq_backfills/x/y/", "a", "/"]
)
def test_overlapping_output_prefix_is_refused(prefix: str) -> None:
    assert not is_accepted(load(MAIN)["Parameters"]["OutputPrefix"], prefix)


@pytest.mark.parametrize("prefix", ["dq_init/", "a/dq_blocks/", "dq_ledgers/", "level=1b/"])
def test_separate_output_prefix_is_accepted(prefix: str) -> None:
    assert is_accepted(load(MAIN)["Parameters"]["OutputPrefix"], prefix)


def test_reprocess_without_product_bucket_is_refused() -> None:
    rules = load(MIRROR)["Rules"]
    for rule, parameter in (
        ("ReprocessNeedsProducts", "ProductBucket"),
        ("SubmitNeedsQueue", "BackfillQueue"),
    ):
        (assertion,) = rules[rule]["Assertions"]
        assert assertion["Assert"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, ""]}]}
    assert rules["SubmitNeedsQueue"]["RuleCondition"] == {
        "Fn::Equals": [{"Ref": "Reprocess"}, "submit"]
    }


def test_closed_loop_may_read_and_write_its_jobs() -> None:
    deployed = Deployment(MIRROR, most(MIRROR, "aws"))
    products, mirror = f"arn:aws:s3:::{'b' * 63}", f"arn:aws:s3:::{'b' * 63}"

    def may(role: str, action: str, resource: str) -> bool:
        return any(
            action in listed(s["Action"]) and resource in listed(s["Resource"])
            for s in deployed.statements(role)
        )

    for action in ("s3:GetObject", "s3:PutObject"):
        assert may("ReprocessingRole", action, f"{products}/dq_backfills/closed-loop/*")
        assert may("ReprocessingRole", action, f"{products}/dq_catalogue/*")
        assert may("FreshenRole", action, f"{mirror}/config/jwst/*")
    assert may("ReprocessingRole", "s3:GetObject", f"{mirror}/config/jwst/*")
    assert may("ReprocessingRole", "s3:ListBucket", products)


@pytest.mark.parametrize(
    ("template", "role"),
    [(MAIN, "FunctionRole"), (MIRROR, "FreshenRole"), (MIRROR, "ReprocessingRole")],
)
def test_readers_of_the_mirror_may_list_its_bucket(template: str, role: str) -> None:
    """Without s3:ListBucket, S3 answers 403 for a missing mirror.json; a prefix also causes that.

    A GET has no s3:prefix, so that a condition on it denies the permission.
    """
    changes = {"MirrorBucket": "crds"} if template == MAIN else {"MirrorBucketName": "crds"}
    deployed = Deployment(template, most(template, "aws") | changes)
    granted = [
        statement
        for statement in deployed.statements(role)
        if "s3:ListBucket" in listed(statement["Action"])
        and "arn:aws:s3:::crds" in listed(statement["Resource"])
    ]
    assert granted
    assert all("Condition" not in statement for statement in granted)
