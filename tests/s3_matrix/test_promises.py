"""The promises of S3 that the function relies on, tried on the S3 of the tests."""

import os
import uuid
from collections.abc import Iterator

import pytest

from handler.s3.objects import S3Location
from infra.demo.local_aws import PRODUCTS, LocalAws
from tests.s3_matrix.promises import PROMISES, Promise, Scratch

BROKEN_BY_MOTO = {
    "completion with If-Match replaces only what was found",
    "of completions at once one wins",
    "copies are pinned to the object that was found",
    "what arrives with another CRC-32 is refused",
}
"""docs/s3-servers.md; whatever else is broken on another server is a failure of its own."""


@pytest.fixture(scope="module")
def scratch(aws: LocalAws) -> Iterator[Scratch]:
    made = Scratch(S3Location(PRODUCTS, f"promises-{uuid.uuid4().hex[:8]}"), aws.client("s3"))
    yield made
    made.remove()
    left = made.client.list_object_versions(Bucket=PRODUCTS, Prefix=f"{made.prefix.key}/")
    assert not left.get("Versions"), "nothing of a trial stays"


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.name)
def test_promise_is_kept(promise: Promise, scratch: Scratch) -> None:
    if "S3_OF_TESTS" not in os.environ and promise.name in BROKEN_BY_MOTO:
        pytest.skip("moto does not keep it: docs/s3-servers.md")
    assert promise.is_kept(scratch), promise.otherwise
