"""What it costs and how far it goes: figures that are kept, prices, and the time of many."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.event import Status
from handler.observability import measure
from infra.__main__ import main
from infra.cost.estimate import AWS, MONTHLY, Limits, exposure_usd, exposures_seconds, exposures_usd
from infra.cost.prices import DEFAULT_MEMORY, Invocation, measured
from infra.demo.local_aws import LocalAws
from tests.benchmark.cost_page import page
from tests.conftest import PROJECT
from tests.handler.test_event import EVENT
from tests.infra.stacks import stack_of_outputs
from tests.infra.template import load

RESOURCES = load()["Resources"]
ONE = Invocation("x", "native", "forward", 92_000_000, 512, 1.0, 0.1, 10, 8, 1, 2000, 1500, 180.0)


# What is kept


def test_the_figures_are_those_of_what_is_deployed() -> None:
    assert load()["Resources"]["Function"]["Properties"]["MemorySize"] == DEFAULT_MEMORY
    kinds = [resource["Type"] for resource in RESOURCES.values()]
    assert MONTHLY.alarms == kinds.count("AWS::CloudWatch::Alarm")
    assert MONTHLY.dashboards == kinds.count("AWS::CloudWatch::Dashboard")
    assert MONTHLY.polled_queues == kinds.count("AWS::Lambda::EventSourceMapping")


def test_as_many_metrics_are_published_as_are_paid_for(capsys: pytest.CaptureFixture[str]) -> None:
    flags = replace(EVENT.findings.flags, pixels=4096) if EVENT.findings.flags else None
    event = replace(EVENT, findings=replace(EVENT.findings, flags=flags))
    failed = replace(event, status=Status.FAILED)
    measure(event)
    measure(replace(event, status=Status.SKIPPED))
    for error in ("InputRejected", "ReferenceUnavailable"):
        measure(replace(failed, error=error))
    measure(replace(failed, error="TransientFailure"), is_announced=False)
    names = {
        metric["Name"]
        for line in capsys.readouterr().out.splitlines()
        for metrics in json.loads(line)["_aws"]["CloudWatchMetrics"]
        for metric in metrics["Metrics"]
    }
    assert len(names) == MONTHLY.metrics, names


@pytest.mark.parametrize(
    ("exposure", "way", "goal"),
    [
        ("92 MB", "forward", 85),
        ("92 MB", "reprocessed", 85),
        ("839 MB", "forward", 130),
        ("839 MB", "reprocessed", 130),
        ("92 MB", "repeated", 10),
        ("839 MB", "repeated", 10),
    ],
)
def test_what_was_measured_last_keeps_to_the_goals(exposure: str, way: str, goal: int) -> None:
    assert measured().one(exposure, way=way).usd() * 1e6 <= goal


def test_the_page_tells_what_was_measured_last() -> None:
    kept = (PROJECT / "docs" / "cost.md").read_text()
    (minutes,) = re.findall(r"in (\d+) minutes", kept)
    assert page(measured(), float(minutes)) == kept


def test_page_of_limits_uses_the_last_measurement() -> None:
    kept, one = (PROJECT / "docs" / "limits.md").read_text(), measured().one("92 MB")
    assert f"92 MB native: {one.seconds:.2f} s and {one.puts} PUT-class requests" in kept
    fastest = AWS.puts / one.puts * one.seconds
    assert f"up to about {fastest:.0f} at a time for 92 MB native" in kept


# Prices


def test_an_invocation_costs_what_a_bill_would_say() -> None:
    parts = {name: round(1e6 * usd, 3) for name, usd in ONE.parts().items()}
    assert parts == {
        "S3 PUT": 50.0,  # 10 at 5 USD a million
        "S3 GET": 3.2,
        "Lambda": 6.867,  # half a GB-second, and the invocation
        "SQS": 1.6,
        "EventBridge": 2.0,  # S3's of the upload, and one's own
        "Logs": 1.915,  # 3,830 bytes at 0.50 USD a GB
    }
    assert ONE.usd() * 1e6 == pytest.approx(sum(parts.values()), abs=0.01)


def test_more_memory_costs_what_was_measured_with_it() -> None:
    for one in measured().others:
        reckoned = measured().one(one.exposure, one.encoding).with_memory(one.memory)
        assert reckoned.usd() == pytest.approx(one.usd(), rel=0.1), one


def test_a_size_that_was_measured_costs_what_was_measured() -> None:
    for one in measured().invocations:
        if one.way == "forward":
            assert exposure_usd(one.size, one.memory, one.encoding) == pytest.approx(one.usd())


def test_a_larger_exposure_costs_more_and_none_costs_much() -> None:
    sizes = (10**4, 10**5, 10**6, 92 * 10**6, 839 * 10**6, 4 * 10**9)
    costs = [exposure_usd(size) * 1e6 for size in sizes]
    assert all(below <= above for below, above in pairwise(costs))
    assert costs[-2] < 130 < costs[-1] < 1000
    assert exposures_usd(sizes) == pytest.approx(sum(costs) / 1e6)


def test_the_queues_keep_messages_for_as_long_as_is_reckoned_with() -> None:
    queues = [r for r in RESOURCES.values() if r["Type"] == "AWS::SQS::Queue"]
    assert {queue["Properties"]["MessageRetentionPeriod"] for queue in queues} == {AWS.kept}


# How long many take


def page_rows() -> list[tuple[str, str, int, float]]:
    """The rows that a simulation gave, from docs/limits.md."""
    units = {"h": 3600, "min": 60, "s": 1}
    rows = re.findall(
        r"^\| (\d+ MB) (\w+) \| (\d+) \| ([\d.]+) (h|min|s) \|",
        (PROJECT / "docs" / "limits.md").read_text(),
        re.M,
    )
    return [
        (exposure, encoding, int(at_a_time), float(number) * units[unit])
        for exposure, encoding, at_a_time, number, unit in rows
    ]


def test_page_of_limits_has_fifteen_rows() -> None:
    assert len(page_rows()) == 15


@pytest.mark.parametrize(("exposure", "encoding", "at_a_time", "seconds"), page_rows())
def test_time_of_a_million_is_that_of_the_simulation(
    exposure: str, encoding: str, at_a_time: int, seconds: float
) -> None:
    size = measured().one(exposure, encoding).size
    assert exposures_seconds(repeat(size, 10**6), at_a_time, encoding) == pytest.approx(
        seconds, rel=0.05
    )


@pytest.mark.parametrize(
    ("limits", "at_a_time", "seconds"),
    [
        (replace(AWS, account=10), 20, 3.2 * 3600),
        (replace(AWS, account=300), 440, 6.9 * 60),
        (replace(AWS, puts=4 * AWS.puts), 1000, 3.6 * 60),
    ],
)
def test_time_of_other_accounts_is_that_of_the_simulation(
    limits: Limits, at_a_time: int, seconds: float
) -> None:
    found = exposures_seconds(repeat(92_000_000, 10**5), at_a_time, limits=limits)
    assert found == pytest.approx(seconds, rel=0.05)


def test_no_exposures_take_no_time() -> None:
    assert exposures_seconds([], 20) == 0


@given(st.lists(st.integers(10**4, 10**10), min_size=1), st.integers(1, 1000))
def test_time_is_at_least_that_of_the_concurrency(sizes: list[int], at_a_time: int) -> None:
    work = sum(measured().of_size(size).seconds for size in sizes)
    found = exposures_seconds(sizes, at_a_time)
    assert found >= work / at_a_time
    assert exposures_seconds(sizes, at_a_time + 1) <= found


# The command


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["cost", *words])
    return " ".join(capsys.readouterr().out.split())


def test_the_command_says_what_many_cost_and_how_long_they_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = told(capsys, "--exposures", "5000", "--concurrency", "100")
    one = measured().of_size(92_000_000)
    assert f"S3 PUT {5000 * one.parts()['S3 PUT']:,.4f}" in text
    assert f"Total without storage {5000 * one.usd():,.4f}" in text
    assert "done after about 71 s" in text


def test_for_machines_it_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = json.loads(told(capsys, "--exposures", "50", "--size", "839", "--json"))
    assert found["total"]["exposures"] == 50
    assert found["total"]["usd"] == pytest.approx(50 * exposure_usd(839_000_000))
    assert found["invocation"]["size"] == 839_000_000


def test_an_account_that_gives_less_takes_longer(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--exposures", "5000", "--concurrency", "100", "--json")
    times = [
        json.loads(told(capsys, *words, *more))["total"]["seconds"]
        for more in ((), ("--account", "10"))
    ]
    assert times[1] > 8 * times[0]


@pytest.mark.parametrize(
    "words",
    [
        *(("--exposures", "0"), ("--size", "-1"), ("--size", "nan"), ("--size", "inf")),
        *(("--account", "0"), ("--account", "-3"), ("--concurrency", "0")),
        *(("--concurrency", "-5"), ("--memory", "0"), ("--memory", "-5")),
        ("--size", "50000", "--encoding", "float32"),
    ],
)
def test_nonsense_is_one_line(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["cost", *words])
    assert len(str(ended.value.code).splitlines()) == 1


def test_what_sqs_would_drop_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--exposures", "70000", "--size", "839", "--encoding", "float32", "--concurrency", "2")
    assert "SQS drops what waits for 14 days" in told(capsys, *words)


@pytest.fixture
def deployed(aws: LocalAws) -> Iterator[None]:
    parameters = {"ScienceEncoding": "float32", "BackfillConcurrency": "7"}
    with stack_of_outputs(aws, "filling", [], **parameters):
        yield


def test_a_stacks_own_settings_are_taken(
    deployed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, "--stack", "filling", "--exposures", "100")
    assert "float32, with 512 MB of memory on arm64, at most 7 at a time" in text
    assert "with 1024 MB" in told(capsys, "--stack", "filling", "--memory", "1024")
