"""Killed before and after every call to AWS, the function loses nothing and makes nothing twice."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.demo.local_aws import MIRROR, PRODUCTS
from tests.conftest import UNFINISHED, Harness, created, empty_bucket
from tests.samples.modes import MODES
from tests.scenarios.killed import AGAIN, KILLED, Kill, deliver, first_answers

MODE = {mode.name: mode for mode in MODES}
KEY = "2023/jw01_uncal.fits"
MOST_CALLS = 60


@pytest.fixture
def environment(function: Harness, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The function's environment, in the embedded AWS; a /tmp that holds rules and masks already."""
    return {
        "OUTPUT_BUCKET": PRODUCTS,
        "CRDS_MIRROR": f"s3://{MIRROR}",
        "LEDGER_URI": f"s3://{PRODUCTS}/dq_ledger",
        "UPLOADED_QUEUE_URL": function.aws.uploads,
        "UNFINISHED_QUEUE_ARN": UNFINISHED,
        "AWS_ENDPOINT_URL": function.aws.endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "POWERTOOLS_METRICS_DISABLED": "true",
        "TMPDIR": str(tmp_path_factory.getbasetemp()),
    }


def kills(since: str = "", moments: tuple[str, ...] = ("before", "after")) -> Iterator[Kill]:
    for call in range(1, MOST_CALLS):
        for moment in moments:
            yield Kill(call, moment, since)


def start_anew(function: Harness) -> None:
    """Forget what the kill before this one left."""
    empty_bucket(function.aws.client("s3"), PRODUCTS)
    function.aws.receive(function.aws.announcements)


def product_versions(function: Harness) -> list[Any]:
    s3 = function.aws.client("s3")
    return s3.list_object_versions(Bucket=PRODUCTS, Prefix="dq_init/").get("Versions", [])


def check_once(function: Harness, size: int, kill: Kill) -> None:
    """One whole product, one Complete id, and the ledger knows it."""
    (version,) = product_versions(function)
    assert version["Size"] == size, kill
    details = function.announcements()
    assert {detail["status"] for detail in details} == {"Complete"}, kill
    assert len({detail["id"] for detail in details}) == 1, kill
    assert details[0]["output"]["versionId"] == version["VersionId"], kill
    s3 = function.aws.client("s3")
    ledger = f"dq_ledger/{version['Key']}.json"
    entry = s3.get_object(Bucket=PRODUCTS, Key=ledger)["Body"].read()
    assert json.loads(entry)["result"]["id"] == details[0]["id"], kill


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "since"),
    [
        ("one PUT", ""),
        ("virtual", ""),
        ("multipart", "CreateMultipartUpload"),
        ("block", "CreateMultipartUpload"),
    ],
)
def test_message_killed_anywhere_gives_one_product_and_id(
    path: str, since: str, function: Harness, exposure: bytes, large: bytes, environment: Any
) -> None:
    if path == "block":
        environment["DQ_BLOCK_URI"] = f"s3://{PRODUCTS}/dq_blocks"
    if path == "virtual":
        environment["PRODUCT_FORM"] = "virtual"
    function.upload(exposure if path == "one PUT" else large, KEY)
    assert first_answers(environment, created(KEY), "warm") == 0
    (version,) = product_versions(function)
    assert version["Key"].endswith("_virtual.fits") == (path == "virtual")
    tried = 0
    # After a call is before the next one: both are tried where that is cheap.
    moments = ("before", "after") if path in {"one PUT", "virtual"} else ("after",)
    for kill in kills(since, moments):
        start_anew(function)
        ended = deliver(environment, created(KEY), kill, "m1")
        if ended == 0:  # no call is left at which to kill
            break
        assert ended == KILLED
        assert len(product_versions(function)) <= 1
        assert first_answers(environment, created(KEY), "m1") == 0
        check_once(function, version["Size"], kill)
        tried += 1
    assert tried >= {"one PUT": 12, "virtual": 12, "multipart": 7, "block": 10}[path]


def test_repeated_event_killed_anywhere_is_skipped(
    function: Harness, exposure: bytes, environment: Any
) -> None:
    function.upload(exposure, KEY)
    assert first_answers(environment, created(KEY), "m1") == 0
    function.announcements()
    tried = 0
    for kill in kills(moments=("after",)):
        if deliver(environment, created(KEY), kill, "m2") == 0:
            break
        assert first_answers(environment, created(KEY), "m2") == 0
        details = function.announcements()
        assert {detail["status"] for detail in details} == {"Skipped"}, kill
        assert len({detail["id"] for detail in details}) == 1, kill
        tried += 1
    assert tried >= 4
    assert len(product_versions(function)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("is_made", [True, False])
def test_report_killed_anywhere_gives_one_id(
    is_made: bool, function: Harness, exposure: bytes, environment: Any
) -> None:
    function.upload(exposure, KEY)
    tried = 0
    for kill in kills(moments=("after",)):
        start_anew(function)
        if is_made:  # killed between writing the product and announcing it
            putting = Kill(1, "before", "PutEvents")
            assert deliver(environment, created(KEY), putting, "m1") == KILLED
        ended = deliver(environment, created(KEY), kill, "m1", UNFINISHED)
        if ended == 0:
            break
        assert ended == KILLED
        assert first_answers(environment, created(KEY), "m1", UNFINISHED) == 0
        details = function.announcements()
        assert {d["status"] for d in details} == {"Complete" if is_made else "Failed"}, kill
        assert len({d["id"] for d in details}) == 1, kill
        assert len(product_versions(function)) == is_made
        tried += 1
    assert tried >= (5 if is_made else 7)


@pytest.mark.slow
def test_rejected_message_killed_anywhere_has_one_id(function: Harness, environment: Any) -> None:
    function.upload(b"no FITS", KEY)
    tried = 0
    for kill in kills(moments=("after",)):
        start_anew(function)
        if deliver(environment, created(KEY), kill, "m1") == 0:
            break
        assert first_answers(environment, created(KEY), "m1") == 0
        details = function.announcements()
        assert {d["error"] for d in details} == {"InputRejected"}, kill
        assert len({d["id"] for d in details}) == 1, kill
        tried += 1
    assert tried >= 8


def test_failed_attempt_that_is_killed_records_its_reason(
    function: Harness, exposure: bytes, environment: Any, tmp_path: Path
) -> None:
    function.upload(exposure, KEY)
    environment |= {"CRDS_MIRROR": f"s3://{MIRROR}/not-there", "TMPDIR": str(tmp_path)}
    assert first_answers(environment, created(KEY), "m1") == AGAIN
    assert function.announcements() == []
    assert first_answers(environment, created(KEY), "m1", UNFINISHED) == 0
    assert [d["error"] for d in function.announcements()] == ["ReferenceUnavailable"]
