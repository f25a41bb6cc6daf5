"""Denied permissions, one action at a time: nothing is lost, and the reason names it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from handler.event import Bus
from handler.s3.blocks import Blocks
from handler.s3.objects import S3Location
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW
from tests.conftest import Harness, created

KEY, PRODUCT = "2023/jw01_uncal.fits", "dq_init/2023/jw01_dq_init.fits"
WRITES = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
BLOCKS = S3Location(PRODUCTS, "dq_blocks")


def denies(client: Any, service: str, operation: str, prefix: str) -> Callable[[], None]:
    """Deny an operation on a key prefix; return a function that allows it again."""
    code = {"s3": "AccessDenied", "events": "AccessDeniedException", "sqs": "AccessDenied"}[service]
    if operation == "HeadObject":
        code = "403"

    def deny(params: dict[str, Any], **_: Any) -> None:
        place = f"{params.get('Bucket')}/{params.get('Key')}"
        if place.startswith(prefix) or service != "s3":
            message = "Forbidden" if code == "403" else "Access Denied"
            error = {"Error": {"Code": code, "Message": message}}
            raise ClientError(error, operation)  # type: ignore[arg-type]

    hook = f"provide-client-params.{service}.{operation}"
    client.meta.events.register(hook, deny)
    return lambda: client.meta.events.unregister(hook, deny)


@pytest.fixture
def role(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "dq-init")
    return "the role of the Lambda function dq-init"


@contextmanager
def denied(function: Harness, operation: str, prefix: str) -> Iterator[None]:
    allow = denies(function.function.s3, "s3", operation, prefix)
    try:
        yield
    finally:
        allow()


def expect_named(detail: dict[str, Any], action: str, where: str, role: str) -> None:
    """The failure names the action, the object and the role."""
    assert (detail["status"], detail["error"]) == ("Failed", "TransientFailure")
    assert f"{action} " in detail["reason"]
    assert f"is denied to {role}" in detail["reason"]
    assert where in detail["reason"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "prefix", "action"),
    [
        ("GetObject", f"{RAW}/", "s3:GetObject"),
        ("GetObject", f"{MIRROR}/config", "s3:GetObject"),
        ("GetObject", f"{MIRROR}/mappings", "s3:GetObject"),
        ("GetObject", f"{MIRROR}/references", "s3:GetObject"),
        ("HeadObject", f"{PRODUCTS}/dq_init", "s3:GetObject"),
        ("PutObject", f"{PRODUCTS}/dq_init", "s3:PutObject"),
    ],
)
def test_denied_call_is_retried_and_named(
    operation: str, prefix: str, action: str, function: Harness, exposure: bytes, role: str
) -> None:
    function.upload(exposure, KEY)
    with denied(function, operation, prefix):
        for deliveries in range(1, 4):
            again = function.run_batch(created(KEY), identifier="m1", deliveries=deliveries)
            assert again == ["m1"]
        assert function.announcements() == []
        assert function.run_unfinished(created(KEY), identifier="m1") == []
        (detail,) = function.announcements()
        expect_named(detail, action, f"s3://{prefix}", role)
    failed = json.dumps({"source": "jwst.dq_init", "detail": detail})
    assert function.run_batch(failed) == []
    assert [d["status"] for d in function.announcements()] == ["Complete"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "action", "where"),
    [
        *((name, "s3:PutObject", f"s3://{PRODUCTS}/dq_init") for name in WRITES if name != "PutObject"),
        ("UploadPartCopy", "s3:GetObject", f"s3://{RAW}/"),
    ],
)  # fmt: skip
def test_denied_multipart_call_is_retried_and_named(
    operation: str, action: str, where: str, function: Harness, large: bytes, role: str
) -> None:
    function.upload(large, KEY)
    with denied(function, operation, f"{PRODUCTS}/dq_init"):
        assert function.run_batch(created(KEY), identifier="m1") == ["m1"]
        assert function.run_unfinished(created(KEY), identifier="m1") == []
    (detail,) = function.announcements()
    expect_named(detail, action, where, role)
    assert "Uploads" not in function.aws.client("s3").list_multipart_uploads(Bucket=PRODUCTS)
    assert function.run_batch(created(KEY)) == []
    assert [d["status"] for d in function.announcements()] == ["Complete"]


def test_denied_abort_is_logged_with_its_action(
    function: Harness, large: bytes, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    function.upload(large, KEY)
    with (
        denied(function, "UploadPart", f"{PRODUCTS}/dq_init"),
        denied(function, "AbortMultipartUpload", f"{PRODUCTS}/dq_init"),
    ):
        assert function.run_batch(created(KEY)) != []
    assert f"s3:AbortMultipartUpload is denied to {role}" in caplog.text
    assert f"s3:PutObject is denied to {role}" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "prefix"),
    [
        ("GetObject", f"{PRODUCTS}/dq_ledger"),
        ("PutObject", f"{PRODUCTS}/dq_ledger"),
        ("HeadObject", f"{PRODUCTS}/dq_blocks"),
        ("CreateMultipartUpload", f"{PRODUCTS}/dq_blocks"),
        ("UploadPart", f"{PRODUCTS}/dq_blocks"),
        ("CompleteMultipartUpload", f"{PRODUCTS}/dq_blocks"),
    ],
)
def test_denied_ledger_or_block_fails_no_exposure(
    operation: str,
    prefix: str,
    function: Harness,
    large: bytes,
    role: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    function = function.with_services(blocks=Blocks(BLOCKS, 16 << 20, 4 << 20))
    function.upload(large, KEY)
    with denied(function, operation, prefix):
        for identifier in ("m1", "m2"):
            assert function.run_batch(created(KEY), identifier=identifier) == []
    details = function.announcements()
    assert {d["status"] for d in details} <= {"Complete", "Skipped"}
    assert len({d["id"] for d in details if d["status"] == "Complete"}) == 1
    assert role in caplog.text


def test_denied_bus_is_retried_and_named(
    function: Harness, exposure: bytes, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    function.upload(exposure, KEY)
    events = function.aws.client("events")
    denying = function.with_services(bus=Bus("the-bus", events))
    allow = denies(events, "events", "PutEvents", "")
    assert denying.run_batch(created(KEY), identifier="m1") == ["m1"]
    assert denying.run_unfinished(created(KEY), identifier="m1") == ["m1"]
    assert (
        f"event bus the-bus: publishing 'DQ Initialization Complete': events:PutEvents is denied to {role}"
        in caplog.text
    )
    allow()
    assert function.run_unfinished(created(KEY), identifier="m1") == []
    assert [d["status"] for d in function.announcements()] == ["Complete"]


def test_denied_visibility_is_named_and_fails_nothing(
    function: Harness, exposure: bytes, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    function.upload(exposure, KEY)
    sqs = function.aws.client("sqs")
    denies(sqs, "sqs", "ChangeMessageVisibility", "")
    function = function.with_services(sqs=lambda: sqs)
    function = function.with_settings(uploaded_queue_url=function.aws.uploads)
    assert function.run_batch(created(KEY)) == []
    assert f"sqs:ChangeMessageVisibility is denied to {role}" in caplog.text
    assert [d["status"] for d in function.announcements()] == ["Complete"]
