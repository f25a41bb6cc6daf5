"""Objects in S3 that others replace, delete or archive while the function uses them."""

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from core.errors import InputRejected, TransientFailure
from core.product import Form
from handler import process
from handler.s3.objects import ObjectStore, S3Location
from infra.aws import ledger_in, read_entry
from infra.demo.local_aws import PRODUCTS, RAW
from tests.conftest import Harness, created

KEY = "2023/jw01_uncal.fits"


@pytest.fixture(params=list(Form), ids=str)
def make_function(make_function: Any, request: pytest.FixtureRequest) -> Any:
    """A factory of functions with either form of product."""
    return lambda *options: make_function(*options).with_settings(form=request.param)


def entry_of(function: Harness) -> Any:
    product = S3Location(PRODUCTS, function.product_key())
    return read_entry(function.aws.client("s3"), ledger_in(PRODUCTS), product)


def archive(function: Harness, bucket: str, key: str) -> None:
    s3 = function.aws.client("s3")
    found = s3.get_object(Bucket=bucket, Key=key)
    content, metadata = found["Body"].read(), found["Metadata"]
    s3.put_object(Bucket=bucket, Key=key, Body=content, Metadata=metadata, StorageClass="GLACIER")


def test_product_that_was_not_replaced_is_not_the_new_one(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)

    def slow(params: Any, **_: Any) -> None:
        if function.product_key() in params["url_path"]:
            raise ClientError({"Error": {"Code": "SlowDown", "Message": "slow"}}, "PutObject")

    function.function.s3.meta.events.register("before-call.s3.PutObject", slow)
    with pytest.raises(TransientFailure, match=r"SlowDown.*: the product was not written"):
        function.run(KEY, onExisting="replace")


def test_product_of_another_writer_is_not_published_as_ours(
    function: Harness, exposure: bytes
) -> None:
    s3 = function.aws.client("s3")
    status = {"Status": "Suspended"}
    s3.put_bucket_versioning(Bucket=PRODUCTS, VersioningConfiguration=status)
    seen: list[str] = []

    def overtake(params: Any, **_: Any) -> None:
        if params["Key"] == function.product_key():
            seen.append(params["Key"])
            if len(seen) == 2:  # after it was written
                s3.put_object(Bucket=PRODUCTS, Key=params["Key"], Body=b"another")

    function.function.s3.meta.events.register("provide-client-params.s3.HeadObject", overtake)
    function.upload(exposure, KEY)
    try:
        with pytest.raises(TransientFailure, match="was replaced after it was written; retry"):
            function.run(KEY)
    finally:
        s3.put_bucket_versioning(Bucket=PRODUCTS, VersioningConfiguration={"Status": "Enabled"})


@pytest.mark.parametrize("was_published", [False, True])
@pytest.mark.parametrize("gone", ["exposure", "user DQ"])
def test_product_is_published_although_its_input_is_gone(
    gone: str,
    was_published: bool,
    function: Harness,
    exposure: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function.upload(exposure, KEY)
    user_dq = BytesIO()
    fits.PrimaryHDU(np.ones((64, 64), np.int32)).writeto(user_dq)
    function.upload(user_dq.getvalue(), "dq.fits")
    asked = {"userSuppliedDq": f"s3://{RAW}/dq.fits"} if gone == "user DQ" else {}
    body = json.dumps({"bucket": RAW, "key": KEY, **asked})
    with monkeypatch.context() as patched:
        if not was_published:
            patched.setattr("handler.process.publish_event", unavailable)
        assert function.run_batch(body, identifier="m1") == ["m1"] * (not was_published)
    removed = KEY if gone == "exposure" else "dq.fits"
    function.aws.client("s3").delete_object(Bucket=RAW, Key=removed)
    assert function.run_batch(body, identifier="m1", deliveries=2) == []
    assert [detail["status"] for detail in function.announcements()] == ["Complete"]
    assert entry_of(function).failure is None


def test_product_is_not_published_for_a_damaged_newer_exposure(
    function: Harness, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = created(KEY, function.upload(exposure, KEY))
    with monkeypatch.context() as patched:
        patched.setattr("handler.process.publish_event", unavailable)
        assert function.run_batch(body, identifier="m1") == ["m1"]
    function.upload(b"no FITS", KEY)
    assert function.run_batch(body, identifier="m1", deliveries=2) == []
    assert [detail["error"] for detail in function.announcements()] == ["InputRejected"]
    assert entry_of(function).result is None


@pytest.mark.parametrize(
    "fields",
    [
        {"userSuppliedDq": f"s3://{RAW}/missing.fits"},
        {"versionId": "no-such-version"},
        {"onExisting": "error", "userSuppliedDq": f"s3://{RAW}/missing.fits"},
    ],
)
def test_other_request_of_the_same_cause_is_rejected(
    fields: dict[str, str], function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY, cause="execution")
    with pytest.raises(InputRejected):
        function.run(KEY, cause="execution", **fields)


def test_failure_after_a_deleted_result_is_published_once(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    body = json.dumps({"bucket": RAW, "key": KEY})
    assert function.run_batch(body, identifier="m1") == []
    function.aws.client("s3").delete_object(Bucket=PRODUCTS, Key=function.product_key())
    function.upload(b"no FITS", KEY)
    for deliveries in (2, 3):
        assert function.run_batch(body, identifier="m1", deliveries=deliveries) == []
    statuses = [detail["status"] for detail in function.announcements()]
    assert statuses == ["Complete", "Failed"]


def test_entry_whose_key_is_refused_counts_as_empty(function: Harness) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "KeyTooLongError"}}, "GetObject")

    store = ObjectStore(function.aws.client("s3"))
    store.client.meta.events.register("before-call.s3.GetObject", refuse)
    product = S3Location(PRODUCTS, function.product_key())
    assert function.function.ledger.entry(product, store).stored is None


def unavailable(*_: Any) -> None:
    raise TransientFailure("EventBridge is down")


@pytest.mark.parametrize("first", ["older", "newer"])
def test_failure_of_a_replaced_upload_does_not_stay(
    first: str, function: Harness, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = created(KEY, function.upload(exposure, KEY))
    newer: list[str] = []
    summary = process.exposure_summary

    def overtaken(*arguments: Any) -> Any:
        if not newer:
            newer.append(created(KEY, function.upload(exposure + bytes(2880), KEY)))
            if first == "newer":
                assert function.run_batch(newer[0], identifier="newer") == []
            raise TransientFailure("the object was replaced meanwhile; retry")
        return summary(*arguments)

    monkeypatch.setattr(process, "exposure_summary", overtaken)
    assert function.run_batch(older, identifier="older") == ["older"]
    if first == "older":
        assert function.run_batch(newer[0], identifier="newer") == []
    assert function.run_batch(older, identifier="older", deliveries=2) == []
    assert [detail["status"] for detail in function.announcements()] == ["Complete", "Skipped"]
    entry = entry_of(function)
    assert (entry.result.cause, entry.failure) == ("newer", None)


def test_failure_after_the_result_of_its_cause_is_not_recorded(
    function: Harness, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS may deliver a message twice at the same time."""
    body = created(KEY, function.upload(exposure, KEY))
    summary = process.exposure_summary
    inner: list[list[str]] = []

    def twice(*arguments: Any) -> Any:
        if not inner:
            inner.append([])
            inner[0] = function.run_batch(body, identifier="m1")
            raise TransientFailure("slow; retry")
        return summary(*arguments)

    monkeypatch.setattr(process, "exposure_summary", twice)
    assert function.run_batch(body, identifier="m1") == ["m1"]
    assert inner == [[]]
    assert (entry_of(function).result.cause, entry_of(function).failure) == ("m1", None)


def test_archived_ledger_entry_is_replaced(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    archive(function, PRODUCTS, f"dq_ledger/{function.product_key()}.json")
    assert [function.run(KEY)["status"] for _ in range(2)] == ["Complete", "Skipped"]


def test_archived_product_does_not_reject_its_exposure(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    function.aws.client("s3").delete_object(
        Bucket=PRODUCTS, Key=f"dq_ledger/{function.product_key()}.json"
    )
    archive(function, PRODUCTS, function.product_key())
    with pytest.raises(TransientFailure, match=f"{function.product_key()}.*is archived"):
        function.run(KEY)


def test_damaged_answer_to_an_abort_does_not_hide_the_failure(
    function: Harness, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(**_: Any) -> None:
        raise ResponseParserError("invalid XML received")

    def rejected(*_: Any) -> None:
        raise InputRejected("does not fit")

    function.function.s3.meta.events.register("before-call.s3.AbortMultipartUpload", damaged)
    monkeypatch.setattr(process, "initialize", rejected)
    function.upload(large, KEY)
    with pytest.raises(InputRejected, match="does not fit"):
        function.run(KEY)
