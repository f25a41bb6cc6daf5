"""What it costs and how far it goes: figures that are kept, prices, and the simulation."""

import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.event import Status
from handler.function import PATIENT, client
from handler.observability import measure
from infra.__main__ import main
from infra.cost.arrivals import PER_DAY, at_once, downlink, steady
from infra.cost.estimate import exposure_usd, exposures_seconds, exposures_usd
from infra.cost.invocation import DEFAULT_MEMORY, Invocation, measured
from infra.cost.limits import AWS, Limits
from infra.cost.monthly import MONTHLY
from infra.cost.partitions import Partitions
from infra.cost.simulation import Outcome, Setup, simulate
from infra.demo.local_aws import LocalAws
from tests.benchmark.cost_page import page
from tests.conftest import PROJECT
from tests.handler.test_event import EVENT
from tests.infra.stacks import stack_of_outputs
from tests.infra.template import load

RESOURCES = load()["Resources"]
ONE = Invocation("x", "native", "forward", 92_000_000, 512, 1.0, 0.1, 10, 8, 1, 2000, 1500, 180.0)
FREE = Limits(first_pollers=10**6, account=10**6, most_pollers=10**6, puts=10**9, gets=10**9)
"""AWS without limits."""


# What is kept


def test_the_figures_are_those_of_what_is_deployed() -> None:
    assert load()["Parameters"]["Memory"]["Default"] == DEFAULT_MEMORY
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


def test_the_page_of_limits_speaks_of_what_was_measured_last() -> None:
    kept, one = (PROJECT / "docs" / "limits.md").read_text(), measured().one("92 MB")
    assert f"92 MB native {one.seconds:.2f} s and {one.puts} PUT-class requests" in kept
    assert f"a container's first takes {measured().cold_seconds:.1f} s more" in kept
    assert f"asks {AWS.attempts}\ntimes" in kept
    assert f"up to some {AWS.puts / one.puts * one.seconds:.0f} at a time for 92 MB native" in kept


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


def test_how_long_many_take_is_what_the_simulation_says() -> None:
    one, number = measured().of_size(92 * 10**6), 20_000
    found = simulate(at_once(number), Setup((one,), concurrency=20), FREE)
    said = exposures_seconds([one.size] * number, 20)
    assert said == pytest.approx(found.seconds, rel=0.01)


def test_the_queues_keep_messages_for_as_long_as_is_reckoned_with() -> None:
    queues = [r for r in RESOURCES.values() if r["Type"] == "AWS::SQS::Queue"]
    assert {queue["Properties"]["MessageRetentionPeriod"] for queue in queues} == {AWS.kept}


# The simulation


def test_so_many_at_a_time_take_so_many_turns() -> None:
    found = simulate([0.0] * 1000, Setup((ONE,), concurrency=40), FREE)
    assert found.seconds == pytest.approx(25.0), "1,000 exposures, 40 at a time, a second each"
    assert found.oldest == pytest.approx(24.0)
    assert (found.complete, found.failed, found.most_at_once) == (1000, 0, 40)
    assert found.usd == pytest.approx(1000 * ONE.usd())


def test_the_poller_takes_five_messages_at_first_and_five_more_a_second() -> None:
    long = replace(ONE, seconds=1e6)
    for seconds, at_once_then in ((0, 5), (10, 55), (60, 305)):
        limits = replace(FREE, first_pollers=5)
        found = simulate([0.0] * at_once_then, Setup((long,), concurrency=1000), limits)
        assert found.most_at_once == at_once_then
        assert found.oldest == pytest.approx(seconds, abs=0.41)


def test_no_mapping_takes_more_than_lambda_allows() -> None:
    long = Setup((replace(ONE, seconds=1e6),), concurrency=5000)
    limits = replace(FREE, first_pollers=AWS.first_pollers, most_pollers=AWS.most_pollers)
    assert simulate([0.0] * 5000, long, limits).most_at_once == AWS.most_pollers
    assert simulate([0.0] * 5000, long, AWS).most_at_once == AWS.account


def test_an_account_that_is_busy_throttles_and_nothing_is_lost() -> None:
    limits = replace(AWS, account=10, others=4)
    found = simulate([0.0] * 600, Setup((ONE,), concurrency=100), limits)
    assert found.most_at_once == 6
    assert found.complete == 600
    assert found.throttles > 0
    assert found.seconds == pytest.approx(100, rel=0.05)


def test_a_partition_takes_so_many_requests_a_second() -> None:
    partitions = Partitions(rate=10, split_after=3)
    assert [partitions.refused(0.0, 7), partitions.refused(0.5, 7)] == [0, 4]
    assert partitions.refused(1.0, 10) == 0
    for second in (2.0, 3.0):
        assert partitions.refused(second, 11) == 1
    assert partitions.refused(4.0, 20) == 0, "three seconds were too busy: it is divided"
    assert partitions.count == 2


def test_s3_decides_how_many_products_a_second_there_are() -> None:
    limits = replace(FREE, puts=100, split_after=math.inf, attempts=100)
    found = simulate([0.0] * 2000, Setup((ONE,), concurrency=50), limits)
    assert found.complete == 2000
    assert found.slow_downs > 0
    assert found.seconds == pytest.approx(2000 * ONE.puts / 100, rel=0.1)


def test_a_bucket_that_s3_divides_gets_faster() -> None:
    slow = replace(FREE, puts=100, split_after=math.inf)
    setup, arriving = Setup((ONE,), concurrency=50), [0.0] * 2000
    never, soon = (
        simulate(arriving, setup, limits) for limits in (slow, replace(slow, split_after=20))
    )
    assert soon.seconds < 0.75 * never.seconds


def test_what_s3_refuses_too_often_comes_back_and_is_given_up_in_the_end() -> None:
    limits = replace(FREE, puts=1, attempts=3, split_after=math.inf)  # of ten, seven never fit
    found = simulate([0.0], Setup((ONE,), concurrency=1, retry_delay=30, receives=3), limits)
    assert (found.complete, found.failed, found.invocations) == (0, 1, 3)
    assert found.seconds > 30 + 60, "thirty seconds, then sixty"


def test_containers_are_started_once_and_end_when_they_have_nothing_to_do() -> None:
    setup = Setup((ONE,), concurrency=10, cold_seconds=3.0)
    limits = replace(FREE, idle=60)
    assert simulate([0.0] * 100, setup, limits).cold_starts == 10
    assert simulate([0.0, 30.0, 200.0], setup, limits).cold_starts == 2


def test_what_is_killed_comes_back_when_it_is_visible_again() -> None:
    setup = Setup((ONE,), concurrency=2, visibility=25, cold_seconds=3.0)
    found = simulate([0.0] * 200, replace(setup, kills=(50.5, 60.5, 70.5)), FREE)
    assert (found.complete, found.kills, found.cold_starts) == (200, 3, 5)
    assert found.invocations == 203
    calm = simulate([0.0] * 200, setup, FREE)
    assert calm.seconds < found.seconds < calm.seconds + 25


def test_what_is_killed_at_the_end_is_waited_for() -> None:
    found = simulate([0.0], Setup((ONE,), visibility=25, kills=(0.5,)), FREE)
    assert found.seconds == pytest.approx(25 + 1)
    found = simulate([0.0], Setup((ONE,), visibility=25, kills=(0.5,), receives=1), FREE)
    assert (found.complete, found.failed) == (0, 1)


def test_a_seed_gives_the_same_again() -> None:
    setup = Setup((ONE, replace(ONE, seconds=9.0)), (0.7, 0.3), concurrency=5, kills=(9.0, 20.0))
    first, again, other = (simulate(at_once(300), setup, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_how_exposures_arrive() -> None:
    month = list(steady(30 * PER_DAY, random.Random(1)))
    assert month == sorted(month)
    assert len(month) == 30 * PER_DAY
    assert month[-1] == pytest.approx(30 * 86_400, rel=0.05)
    assert list(downlink(3)) == [0.0, 0.0, 0.0]
    sent = list(at_once(1000))
    assert sent == sorted(sent)
    assert len(sent) == 1000


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 300), max_size=120).map(sorted),
    st.integers(1, 30),
    st.builds(
        Limits,
        account=st.integers(2, 20),
        puts=st.integers(10, 60),
        gets=st.integers(8, 60),
        split_after=st.sampled_from([3.0, math.inf]),
        attempts=st.integers(1, 5),
    ),
    st.lists(st.floats(0, 400), max_size=20).map(tuple),
)
def test_nothing_is_lost_and_no_limit_is_passed(
    arriving: list[float], concurrency: int, limits: Limits, kills: tuple[float, ...]
) -> None:
    setup = Setup((ONE,), concurrency=concurrency, kills=kills, visibility=20)
    found = simulate(arriving, setup, limits)
    assert found.complete + found.failed == found.exposures == len(arriving)
    assert found.most_at_once <= min(concurrency, limits.account)
    assert found.complete <= found.invocations <= setup.receives * len(arriving)
    if arriving:
        assert found.seconds >= arriving[-1] - arriving[0] - 1e-6
    assert found.usd >= found.complete * (ONE.usd() - ONE.parts()["Lambda"])


# The command


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["cost", *words])
    return " ".join(capsys.readouterr().out.split())


def test_the_command_says_what_a_million_cost_and_how_long_they_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = told(capsys, "--exposures", "5000", "--concurrency", "100")
    one = measured().of_size(92_000_000)
    assert f"S3 PUT {5000 * one.parts()['S3 PUT']:,.4f}" in text
    assert "in all, without storage" in text
    assert "100 at the same time, 100 cold starts." in text


def test_for_machines_it_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "--exposures", "50", "--size", "839", "--arrive", "downlink", "--json")
    found: dict[str, Any] = json.loads(text)
    assert Outcome(**found["outcome"]).complete == 50
    assert found["invocation"]["size"] == 839_000_000


def test_an_account_that_gives_less_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "--exposures", "500", "--account", "10", "--concurrency", "50")
    assert "Lambda did not take" in text


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


def test_one_exposure_of_a_steady_stream_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "--exposures", "1", "--arrive", "steady", "--json")
    assert json.loads(text)["outcome"]["complete"] == 1


def test_nothing_that_could_never_begin_is_simulated() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        simulate([0.0], Setup((ONE,)), replace(AWS, account=5, others=5))


def test_the_client_asks_as_often_as_it_is_set() -> None:
    s3 = client("s3", PATIENT)
    assert s3.meta.config.retries["total_max_attempts"] == AWS.attempts


@pytest.fixture
def deployed(aws: LocalAws) -> Iterator[None]:
    parameters = {"Memory": "1024", "ScienceEncoding": "float32", "BackfillConcurrency": "7"}
    with stack_of_outputs(aws, "filling", [], **parameters):
        yield


def test_a_stacks_own_settings_are_taken(
    deployed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, "--stack", "filling", "--exposures", "100")
    assert "float32, with 1024 MB of memory on arm64, at most 7 at a time" in text
    assert "with 512 MB" in told(capsys, "--stack", "filling", "--memory", "512")
