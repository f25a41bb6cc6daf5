"""Products have the same bytes on moto and on another S3."""

from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws, copy_cache
from tests.conftest import Harness
from tests.products import undated
from tests.samples.exposures import sample_name, write_exposure
from tests.samples.modes import MODES, Mode


@pytest.fixture(scope="module")
def moto(aws: LocalAws, sample_cache: Path) -> Any:
    """The S3 of the embedded AWS itself."""
    client = boto3.client("s3", endpoint_url=aws.endpoint, region_name="us-east-1")
    copy_cache(sample_cache, client, MIRROR)
    return client


def on_moto(function: Harness, moto: Any, cache: Path) -> Harness:
    made = function.function.references.of(function.settings.mirror, cache, moto)
    return function.with_services(s3=moto, references=made)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_product_has_the_same_bytes(
    mode: Mode, function: Harness, moto: Any, tmp_path: Path
) -> None:
    path = tmp_path / sample_name(mode)
    write_exposure(mode, path)
    function.upload(path, path.name)
    here = function.product(function.run(path.name))
    moto.put_object(Bucket=RAW, Key=path.name, Body=path.read_bytes())
    detail = on_moto(function, moto, tmp_path).run(path.name)
    there = moto.get_object(Bucket=PRODUCTS, Key=detail["output"]["key"])["Body"].read()
    assert undated(here) == undated(there)
