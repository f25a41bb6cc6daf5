"""Tests of cost estimates: measured figures, prices, the time of many exposures."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.event import Status
from handler.publish import measure
from infra.__main__ import main
from infra.cli import format_duration
from infra.cost.estimate import (
    AWS,
    MONTHLY,
    Limits,
    exposure_usd,
    exposures_seconds,
    exposures_usd,
    last_begins,
)
from infra.cost.prices import Invocation, measured
from infra.demo.local_aws import LocalAws
from tests.benchmark.cost_page import page
from tests.benchmark.cpu import deployed_memory
from tests.conftest import PROJECT
from tests.handler.test_event import EVENT
from tests.infra.stacks import stack_of_outputs
from tests.infra.template import load

RESOURCES = load()["Resources"]
ONE = Invocation(
    "x", "native", "forward", 92_000_000, 512, 1.0, 0.1, 10, 8, 1, 2000, 1500, 150_000_000, 180.0
)


# Measured figures


def test_memory_and_monthly_counts_are_the_templates() -> None:
    for one in measured().invocations:
        assert one.memory == deployed_memory(one.product), one
    kinds = [resource["Type"] for resource in RESOURCES.values()]
    assert MONTHLY.alarms == kinds.count("AWS::CloudWatch::Alarm")
    assert MONTHLY.dashboards == kinds.count("AWS::CloudWatch::Dashboard")
    assert MONTHLY.polled_queues == kinds.count("AWS::Lambda::EventSourceMapping")


def test_monthly_count_of_metrics_is_what_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    flags = replace(EVENT.findings.flags, pixels=4096) if EVENT.findings.flags else None
    event = replace(EVENT, findings=replace(EVENT.findings, flags=flags))
    failed = replace(event, status=Status.FAILED)
    measure(event)
    measure(replace(event, status=Status.SKIPPED))
    for error in ("InputRejected", "ReferenceUnavailable"):
        measure(replace(failed, error=error))
    measure(replace(failed, error="TransientFailure"), is_published=False)
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
        ("92 MB", "forward", 70),
        ("92 MB", "reprocessed", 70),
        ("839 MB", "forward", 130),
        ("839 MB", "reprocessed", 130),
        ("92 MB", "repeated", 10),
        ("839 MB", "repeated", 10),
    ],
)
def test_measured_cost_meets_the_goal(exposure: str, way: str, goal: int) -> None:
    assert measured().one(exposure, way=way).usd() * 1e6 <= goal


@pytest.mark.parametrize("exposure", ["26 MB", "92 MB", "839 MB"])
def test_virtual_product_costs_little_to_make_and_keep(exposure: str) -> None:
    virtual, complete = (measured().one(exposure, kind) for kind in ("virtual", "native"))
    assert virtual.usd() * 1e6 <= 22
    assert virtual.puts == 2
    assert virtual.usd_a_month() < complete.usd_a_month() / 60


@pytest.mark.slow
def test_tables_of_costs_are_of_the_last_measurement() -> None:
    kept = table_rows((PROJECT / "docs" / "reference" / "cost.md").read_text())
    assert kept
    assert table_rows(page(measured(), 1)) == kept


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_page_of_limits_uses_the_last_measurement() -> None:
    kept = (PROJECT / "docs" / "explanation" / "limits.md").read_text()
    one = measured().one("92 MB")
    rate = AWS.puts / one.puts
    assert f"up to about {rate * one.seconds:.0f} at a time for 92 MB native" in kept
    assert f"({rate:.0f} products per second)" in kept


def test_page_of_virtual_products_uses_the_last_measurement() -> None:
    text = (PROJECT / "docs" / "how-to" / "virtual.md").read_text()
    complete, virtual = (measured().one("92 MB", kind) for kind in ("native", "virtual"))
    made, kept = (
        [f"{1e6 * one.usd():,.0f} USD" for one in (complete, virtual)],
        [f"{1e6 * one.usd_a_month():,.0f} USD" for one in (complete, virtual)],
    )
    assert f"| a million exposures of 92 MB: to make | {' | '.join(made)} |" in text
    assert f"| to keep for a month | {' | '.join(kept)} |" in text


# Prices


def test_invocation_costs_the_sum_of_its_requests() -> None:
    parts = {name: round(1e6 * usd, 3) for name, usd in ONE.parts().items()}
    assert parts == {
        "S3 PUT": 50.0,  # 10 at 5 USD a million
        "S3 GET": 3.2,
        "Lambda": 6.867,  # half a GB-second, and the invocation
        "SQS": 1.6,
        "EventBridge": 2.0,  # S3's event of the upload and the processing event
        "Logs": 1.915,  # 3,830 bytes at 0.50 USD a GB
    }
    assert ONE.usd() * 1e6 == pytest.approx(sum(parts.values()), abs=0.01)


def test_estimate_for_more_memory_is_within_a_tenth() -> None:
    for one in measured().others:
        estimate = replace(measured().one(one.exposure, one.product), memory=one.memory)
        assert estimate.usd() == pytest.approx(one.usd(), rel=0.1), one


def test_measured_size_costs_what_was_measured() -> None:
    for one in measured().invocations:
        if one.way == "forward":
            assert exposure_usd(one.size, one.product) == pytest.approx(one.usd())


def test_larger_exposure_costs_more() -> None:
    sizes = (10**4, 10**5, 10**6, 92 * 10**6, 839 * 10**6, 4 * 10**9)
    costs = [exposure_usd(size) * 1e6 for size in sizes]
    assert all(below <= above for below, above in pairwise(costs))
    assert costs[-2] < 130 < costs[-1] < 1000
    assert exposures_usd(sizes) == pytest.approx(sum(costs) / 1e6)


def test_queues_keep_messages_as_long_as_assumed() -> None:
    queues = [r for r in RESOURCES.values() if r["Type"] == "AWS::SQS::Queue"]
    assert {queue["Properties"]["MessageRetentionPeriod"] for queue in queues} == {AWS.kept}


# Time of many exposures


SIMULATED = {  # seconds and PUT-class requests of an exposure; hours for a million, by concurrency
    (1.15, 11): {20: 15.9, 100: 3.2, 300: 64 / 60, 440: 48 / 60, 1000: 38 / 60},
    (2.82, 19): {20: 39.2, 100: 7.8, 300: 2.6, 440: 108 / 60, 1000: 58 / 60},
    (4.95, 17): {20: 68.7, 100: 13.8, 300: 4.6, 440: 3.1, 1000: 84 / 60},
}
"""Results of an event-by-event simulation, which has been removed."""


@pytest.mark.parametrize(("one", "hours"), SIMULATED.items())
def test_time_of_a_million_is_that_of_the_simulation(
    one: tuple[float, int], hours: dict[int, float]
) -> None:
    for at_once, expected in hours.items():
        found = last_begins(10**6, *one, at_once, AWS)
        assert found / 3600 == pytest.approx(expected, rel=0.05), at_once


@pytest.mark.parametrize(
    ("limits", "at_once", "seconds"),
    [
        (AWS, 10, 3.2 * 3600),
        (AWS, 300, 6.9 * 60),
        (replace(AWS, puts=4 * AWS.puts), 1000, 3.6 * 60),
    ],
)
def test_time_of_other_limits_is_that_of_the_simulation(
    limits: Limits, at_once: int, seconds: float
) -> None:
    assert last_begins(10**5, 1.15, 11, at_once, limits) == pytest.approx(seconds, rel=0.05)


def test_concurrency_of_the_account_is_a_limit() -> None:
    sizes = [92_000_000] * 10**4
    small = replace(AWS, account=10)
    assert exposures_seconds(sizes, 20, limits=small) == exposures_seconds(sizes, 10)


def test_time_of_no_exposures_is_zero() -> None:
    assert exposures_seconds([], 20) == 0


@given(st.lists(st.integers(10**4, 10**10), min_size=1), st.integers(1, 1000))
def test_time_is_at_least_that_of_the_concurrency(sizes: list[int], at_a_time: int) -> None:
    work = sum(measured().of_size(size).seconds for size in sizes)
    found = exposures_seconds(sizes, at_a_time)
    assert found >= work / at_a_time
    assert exposures_seconds(sizes, at_a_time + 1) <= found


# The command


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["cost", *words])
    return " ".join(capsys.readouterr().out.split())


def test_command_prints_cost_and_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(capsys, "--exposures", "5000", "--concurrency", "100")
    one = measured().of_size(92_000_000)
    assert f"S3 PUT {5000 * one.parts()['S3 PUT']:,.4f}" in text
    assert f"Total without storage {5000 * one.usd():,.4f}" in text
    assert f"Storage of the products, each month {5000 * one.usd_a_month():,.4f}" in text
    seconds = exposures_seconds(repeat(92_000_000, 5000), 100)
    assert f"done after about {format_duration(seconds)}" in text


def test_json_output_has_totals_and_invocation(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = json.loads(
        printed(capsys, "--exposures", "50", "--size", "839", "--json")
    )
    assert found["total"]["exposures"] == 50
    assert found["total"]["usd"] == pytest.approx(50 * exposure_usd(839_000_000))
    assert found["invocation"]["size"] == 839_000_000
    assert found["total"]["seconds"] == exposures_seconds(repeat(839_000_000, 50), 20)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((90, "90 s"), (119, "119 s"), (120, "2 min"), (720, "12 min")),
        *((7199, "120 min"), (7200, "2.0 h"), (12600, "3.5 h")),
    ],
)
def test_duration_has_the_unit_of_its_length(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_smaller_account_concurrency_takes_longer(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--exposures", "5000", "--concurrency", "100", "--json")
    times = [
        json.loads(printed(capsys, *words, *more))["total"]["seconds"]
        for more in ((), ("--account", "10"))
    ]
    assert times[1] > 7 * times[0]  # the first exposure takes as long for both


@pytest.mark.parametrize(
    "words",
    [
        *(("--exposures", "0"), ("--size", "-1"), ("--size", "nan"), ("--size", "inf")),
        *(("--account", "0"), ("--account", "-3"), ("--concurrency", "0")),
        *(("--concurrency", "-5"), ("--memory", "0"), ("--memory", "-5")),
        ("--size", "50000", "--product", "float32"),
    ],
)
def test_value_out_of_range_is_rejected_in_one_line(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["cost", *words])
    assert len(str(ended.value).splitlines()) == 1


def test_wait_beyond_the_retention_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--exposures", "70000", "--size", "839", "--product", "float32", "--concurrency", "2")
    assert "SQS deletes messages after 14 days" in printed(capsys, *words)


@pytest.fixture
def deployed(aws: LocalAws) -> Iterator[None]:
    parameters = {"ScienceEncoding": "float32", "BackfillConcurrency": "7"}
    with stack_of_outputs(aws, "filling", [], **parameters):
        yield


def test_settings_default_to_those_of_the_stack(
    deployed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, "--stack", "filling", "--exposures", "100")
    assert "float32, with 512 MB of memory on arm64, at most 7 at a time" in text
    assert "with 1024 MB" in printed(capsys, "--stack", "filling", "--memory", "1024")
    assert "virtual, with 512 MB" in printed(capsys, "--stack", "filling", "--product", "virtual")
