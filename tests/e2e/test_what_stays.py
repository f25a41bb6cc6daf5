"""Two stacks side by side, one with roles that others made; what is left when it is deleted."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.conftest import PROJECT
from tests.e2e.stack import Stack, deploy

SAM = PROJECT / ".venv-tools" / "bin" / "sam"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


def names(stack: Stack) -> dict[str, set[str]]:
    """Everything that a stack may leave, by its kind."""
    client = stack.client
    mappings = client("lambda").list_event_source_mappings()["EventSourceMappings"]
    machines = client("stepfunctions").list_state_machines()["stateMachines"]
    return {
        "buckets": {b["Name"] for b in client("s3").list_buckets()["Buckets"]},
        "queues": set(client("sqs").list_queues().get("QueueUrls", [])),
        "functions": {f["FunctionName"] for f in client("lambda").list_functions()["Functions"]},
        "mappings": {f"{m['FunctionArn']} {m['UUID']}" for m in mappings},
        "roles": {r["RoleName"] for r in client("iam").list_roles()["Roles"]},
        "rules": {r["Name"] for r in client("events").list_rules()["Rules"]},
        "alarms": {a["AlarmName"] for a in client("cloudwatch").describe_alarms()["MetricAlarms"]},
        "dashboards": {
            d["DashboardName"]
            for d in client("cloudwatch").list_dashboards().get("DashboardEntries", [])
        },
        "log groups": {
            g["logGroupName"] for g in client("logs").describe_log_groups()["logGroups"]
        },
        "state machines": {s["name"] for s in machines},
    }


@pytest.fixture
def roles(stack: Stack) -> Iterator[dict[str, str]]:
    """Parameters that name roles which others have made."""
    iam = stack.client("iam")
    arns = {
        f"{name}RoleArn": iam.create_role(
            RoleName=f"theirs-{name}", AssumeRolePolicyDocument=TRUST
        )["Role"]["Arn"]
        for name in ("Function", "OneExposure", "Backfill")
    }
    yield arns
    for name in ("Function", "OneExposure", "Backfill"):
        iam.delete_role(RoleName=f"theirs-{name}")


@pytest.mark.parametrize("has_roles", [False, True], ids=["second", "restricted"])
def test_a_stack_lives_beside_another_and_leaves_its_data_only(
    stack: Stack,
    exposures: dict[str, bytes],
    roles: dict[str, str],
    request: pytest.FixtureRequest,
    has_roles: bool,
) -> None:
    before, name = names(stack), request.node.callspec.id
    beside = Stack(stack.endpoint, stack.server)
    deploy(beside, SAM, name=name, **(roles if has_roles else {}))
    made = {kind: found - before[kind] for kind, found in names(stack).items()}
    assert bool(made.pop("roles")) != has_roles, "none is made where others have made them"
    for kind, found in made.items():
        assert found, f"no {kind} are made"
        assert all(name in one for one in found), kind

    beside.upload("beside/jw01_uncal.fits", next(iter(exposures.values())))
    beside.drain(60)
    assert beside.products().keys() == {"beside/jw01_dq_init.fits"}
    assert "beside/jw01_dq_init.fits" not in stack.products()

    stack.client("cloudformation").delete_stack(StackName=name)
    left = made
    for _ in range(60):
        left = {kind: found - before[kind] for kind, found in names(stack).items()}
        if not any(found for kind, found in left.items() if kind != "buckets"):
            break
        time.sleep(1)
    data = {beside["RawBucket"], beside["ProductBucket"]}
    assert {kind: found for kind, found in left.items() if found} == {"buckets": data}
    assert beside.products().keys() == {"beside/jw01_dq_init.fits"}, "the data stay"
