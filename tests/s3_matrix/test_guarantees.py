"""Tests of the guarantees of S3 that the function relies on."""

import os
import uuid
from collections.abc import Iterator

import pytest

from handler.s3.objects import S3Location
from infra.demo.local_aws import PRODUCTS, LocalAws
from tests.s3_matrix.guarantees import GUARANTEES, Guarantee, Scratch

BROKEN_BY_MOTO = {
    "completion with If-Match replaces only what was found",
    "of concurrent completions one succeeds",
    "CopySourceIfMatch copies only the object that was found",
    "a body with another CRC-32 is refused",
}
"""See docs/reference/s3-servers.md. Other failures fail the test."""


@pytest.fixture(scope="module")
def scratch(aws: LocalAws) -> Iterator[Scratch]:
    made = Scratch(S3Location(PRODUCTS, f"guarantees-{uuid.uuid4().hex[:8]}"), aws.client("s3"))
    yield made
    made.remove()
    left = made.client.list_object_versions(Bucket=PRODUCTS, Prefix=f"{made.prefix.key}/")
    assert not left.get("Versions"), "every trial is removed"


@pytest.mark.parametrize("guarantee", GUARANTEES, ids=lambda guarantee: guarantee.name)
def test_guarantee_is_kept(guarantee: Guarantee, scratch: Scratch) -> None:
    if "S3_OF_TESTS" not in os.environ and guarantee.name in BROKEN_BY_MOTO:
        pytest.skip("moto does not keep it: docs/reference/s3-servers.md")
    assert guarantee.is_kept(scratch), guarantee.otherwise
