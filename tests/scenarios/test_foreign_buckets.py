"""Exposures in buckets of other accounts, read and copied as their policies allow."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import boto3
import pytest

from core.errors import TransientFailure
from handler.s3.objects import enable_requester_pays
from handler.services import S3_CONFIG
from infra.demo.local_aws import LocalAws
from tests.conftest import Harness, empty_bucket
from tests.model_of_s3.foreign import ForeignBucket
from tests.model_of_s3.proxy import Proxy, proxy_of
from tests.products import undated

ARCHIVE = "stpubdata"
KEY = "jwst/public/jw02733/jw02733001001/jw02733001001_02101_00001_nrca1_uncal.fits"
PRODUCT = f"dq_init/{KEY.replace('_uncal', '_dq_init')}"


@pytest.fixture(scope="module")
def proxy(aws: LocalAws) -> Iterator[Proxy]:
    aws.client("s3").create_bucket(Bucket=ARCHIVE)
    with proxy_of(aws.endpoint) as running:
        yield running
    empty_bucket(aws.client("s3"), ARCHIVE)
    aws.client("s3").delete_bucket(Bucket=ARCHIVE)


@pytest.fixture
def archive(proxy: Proxy) -> ForeignBucket:
    proxy.foreign[ARCHIVE] = ForeignBucket()
    return proxy.foreign[ARCHIVE]


@pytest.fixture
def through(function: Harness, proxy: Proxy) -> Harness:
    """The function, which sees the archive as another account's."""
    s3 = boto3.client("s3", endpoint_url=proxy.endpoint, region_name="us-east-1", config=S3_CONFIG)
    changed = replace(function.function, s3=s3, sqs=partial(function.aws.client, "sqs"))
    return replace(function, function=changed)


def put(function: Harness, content: bytes, key: str = KEY) -> None:
    function.aws.client("s3").put_object(Bucket=ARCHIVE, Key=key, Body=content)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["exposure", "large"])
def test_exposure_of_another_account_gives_the_same_product(
    size: str,
    function: Harness,
    through: Harness,
    archive: ForeignBucket,
    request: pytest.FixtureRequest,
) -> None:
    content = request.getfixturevalue(size)
    function.upload(content, KEY)
    own = undated(function.product(function.run(KEY)))
    put(function, content)
    detail = through.run_event({"bucket": ARCHIVE, "key": KEY, "onExisting": "replace"})
    assert (detail["status"], detail["output"]["key"]) == ("Complete", PRODUCT)
    assert detail["input"]["bucket"] == ARCHIVE
    assert undated(function.product(detail)) == own
    assert archive.refused == []


def test_exposure_of_another_account_is_processed_once(
    through: Harness, archive: ForeignBucket, exposure: bytes
) -> None:
    put(through, exposure)
    statuses = [through.run_event({"bucket": ARCHIVE, "key": KEY})["status"] for _ in range(2)]
    assert statuses == ["Complete", "Skipped"]


def test_missing_key_of_an_unlisted_bucket_says_so(
    through: Harness, archive: ForeignBucket
) -> None:
    with pytest.raises(TransientFailure, match="without s3:ListBucket, S3 answers 403"):
        through.run_event({"bucket": ARCHIVE, "key": KEY.replace("00001", "00009")})


def test_version_that_may_not_be_read_names_the_action(
    through: Harness, archive: ForeignBucket, exposure: bytes
) -> None:
    put(through, exposure)
    with pytest.raises(TransientFailure, match="s3:GetObjectVersion, if a version is named"):
        through.run_event({"bucket": ARCHIVE, "key": KEY, "versionId": "x"})


@pytest.mark.parametrize("size", ["exposure", "large"])
def test_requester_pays_for_listed_buckets_only(
    size: str, through: Harness, archive: ForeignBucket, request: pytest.FixtureRequest
) -> None:
    put(through, request.getfixturevalue(size))
    archive.requester_pays = True
    with pytest.raises(TransientFailure, match="REQUESTER_PAYS_BUCKETS"):
        through.run_event({"bucket": ARCHIVE, "key": KEY})
    enable_requester_pays(through.function.s3, {ARCHIVE})
    assert through.run_event({"bucket": ARCHIVE, "key": KEY})["status"] == "Complete"
    archive.is_listed = True
    assert through.function.s3.list_objects_v2(Bucket=ARCHIVE)["KeyCount"] >= 1
