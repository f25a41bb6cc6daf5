"""The function under plain moto in process, as most people test code that uses AWS."""

import json
import tempfile
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import numpy as np
import pytest
from astropy.io import fits
from moto import mock_aws

from handler import app
from infra.demo.local_aws import LocalContext, copy_cache
from tests.conftest import forget

pytestmark = pytest.mark.slow

RAW, PRODUCTS, MIRROR = "mocked-raw", "mocked-products", "mocked-mirror"
KEY, PRODUCT = "a/x_uncal.fits", "dq_init/a/x_dq_init.fits"


@pytest.fixture
def mocked(
    sample_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ModuleType]:
    """The function's entry, and buckets of moto's."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("OUTPUT_BUCKET", PRODUCTS)
    monkeypatch.setenv("CRDS_MIRROR", f"s3://{MIRROR}")
    monkeypatch.setenv("LEDGER_URI", f"s3://{PRODUCTS}/dq_ledger")
    mock = mock_aws()
    mock.start(reset=False)  # the embedded AWS of other tests lives in this process, too
    try:
        s3 = boto3.client("s3")
        for bucket in (RAW, PRODUCTS, MIRROR):
            s3.create_bucket(Bucket=bucket)
        copy_cache(sample_cache, s3, MIRROR)
        forget()
        yield app
        for bucket in (RAW, PRODUCTS, MIRROR):
            for item in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
                s3.delete_object(Bucket=bucket, Key=item["Key"])
            s3.delete_bucket(Bucket=bucket)
    finally:
        forget()
        mock.stop(remove_data=False)


def get(key: str) -> bytes:
    content: bytes = boto3.client("s3").get_object(Bucket=PRODUCTS, Key=key)["Body"].read()
    return content


def run(mocked: ModuleType, **fields: Any) -> dict[str, Any]:
    request = {"bucket": RAW, "key": KEY, **fields}
    identifier = str(uuid.uuid4())  # a repeated one would be a retry of the same cause
    detail: dict[str, Any] = mocked.lambda_handler(request, LocalContext(identifier))
    return detail


@pytest.mark.parametrize("encoding", ["native", "float32"])
@pytest.mark.parametrize("size", ["exposure", "large"])
def test_exposure_under_mock_aws_becomes_a_product(
    size: str,
    encoding: str,
    mocked: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("SCIENCE_ENCODING", encoding)
    content = request.getfixturevalue(size)
    boto3.client("s3").put_object(Bucket=RAW, Key=KEY, Body=content)
    detail = run(mocked)
    assert detail["status"] == "Complete"
    with fits.open(BytesIO(get(PRODUCT))) as after, fits.open(BytesIO(content)) as before:
        assert after[0].header["S_DQINIT"] == "COMPLETE"
        assert np.array_equal(after["SCI"].data, before["SCI"].data)
        assert np.count_nonzero(after["PIXELDQ"].data & 1) == detail["flags"]["doNotUse"]
        assert after["GROUPDQ"].data.any()
    assert json.loads(get(f"dq_ledger/{PRODUCT}.json"))["result"]["id"] == detail["id"]
    assert run(mocked)["status"] == "Skipped"


def test_blocks_under_mock_aws_are_copied(
    mocked: ModuleType, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DQ_BLOCK_URI", f"s3://{PRODUCTS}/dq_blocks")
    blocks = mocked.services_from_environment().blocks
    blocks.block_bytes, blocks.min_repeated_bytes = 16 << 20, 4 << 20
    boto3.client("s3").put_object(Bucket=RAW, Key=KEY, Body=large)
    first = run(mocked)
    again = run(mocked, onExisting="replace")
    assert again["flags"] == first["flags"]
    assert first["function"]["bytesSent"] - again["function"]["bytesSent"] == 16 << 20


def test_sqs_batch_under_mock_aws_is_answered(mocked: ModuleType, exposure: bytes) -> None:
    boto3.client("s3").put_object(Bucket=RAW, Key=KEY, Body=exposure)
    record = {"s3": {"bucket": {"name": RAW}, "object": {"key": KEY}}}
    message = {
        "messageId": "m1",
        "body": json.dumps({"Records": [record]}),
        "eventSource": "aws:sqs",
    }
    answer = mocked.lambda_handler({"Records": [message]}, LocalContext("request"))
    assert answer == {"batchItemFailures": []}
    assert fits.getheader(BytesIO(get(PRODUCT)))["S_DQINIT"] == "COMPLETE"
