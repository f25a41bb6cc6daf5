"""Two stacks of each template in one account, and the resources left after deletion."""

import time
from collections.abc import Iterable

from tests.conftest import PROJECT
from tests.e2e.stack import Stack, deploy, deploy_mirror

SAM = PROJECT / ".venv-tools" / "bin" / "sam"


def names(stack: Stack) -> dict[str, set[str]]:
    """Return the resources that a stack may leave, by type."""
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
        "schedules": {s["Name"] for s in client("scheduler").list_schedules()["Schedules"]},
        "state machines": {s["name"] for s in machines},
    }


def test_two_stacks_leave_only_their_buckets(stack: Stack, exposures: dict[str, bytes]) -> None:
    before, name = names(stack), "second"
    beside = Stack(stack.endpoint, stack.server)
    deploy(beside, SAM, name=name)
    made = {kind: found - before[kind] for kind, found in names(stack).items()}
    assert not made.pop("schedules")
    for kind, found in made.items():
        assert found, f"no {kind} are made"
        assert all(name in one for one in found), kind

    beside.upload("beside/jw01_uncal.fits", next(iter(exposures.values())))
    beside.drain(60)
    assert beside.products().keys() == {"beside/jw01_dq_init.fits"}
    assert "beside/jw01_dq_init.fits" not in stack.products()

    data = {beside["RawBucket"], beside["ProductBucket"]}
    assert left_of(stack, [name], before) == {"buckets": data}
    assert beside.products().keys() == {"beside/jw01_dq_init.fits"}, "the data stay"


def test_two_mirror_stacks_leave_only_their_buckets(stack: Stack) -> None:
    before, mirrors = names(stack), {}
    for name in ("mirror-one", "mirror-two"):
        earlier = names(stack)
        mirrors[name] = deploy_mirror(stack, SAM, name)
        for kind in ("buckets", "queues", "functions", "roles", "rules", "alarms", "schedules"):
            made = names(stack)[kind] - earlier[kind]
            assert made, f"no {kind} are made"
            assert all(name in one for one in made), kind
    assert mirrors["mirror-one"]["MirrorBucket"] != mirrors["mirror-two"]["MirrorBucket"]
    data = {outputs["MirrorBucket"] for outputs in mirrors.values()}
    assert left_of(stack, mirrors, before) == {"buckets": data}


def left_of(
    stack: Stack, deleted: Iterable[str], before: dict[str, set[str]]
) -> dict[str, set[str]]:
    """Delete stacks; return the resources that are left after at most a minute."""
    for name in deleted:
        stack.client("cloudformation").delete_stack(StackName=name)
    for _ in range(60):
        left = {kind: found - before[kind] for kind, found in names(stack).items()}
        if not any(found for kind, found in left.items() if kind != "buckets"):
            break
        time.sleep(1)
    return {kind: found for kind, found in left.items() if found}
