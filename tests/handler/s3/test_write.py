"""The end of an upload: what went wrong is told, what is there is looked at, nothing is left."""

import base64
import time
import zlib
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from core.errors import TransientFailure
from handler.s3.blocks import Blocks
from handler.s3.objects import S3Location
from handler.s3.write import crc32_of
from infra.demo.local_aws import MIRROR, PRODUCTS
from infra.demo.samples.exposures import write_exposure
from infra.demo.samples.modes import MODES
from tests.conftest import Harness

MODE = {mode.name: mode for mode in MODES}
KEY = "2023/jw01_uncal.fits"
MIB = 1024 * 1024


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "as asked"}}, "any")


def fail(function: Harness, operation: str, raised: Exception, after: bool = False) -> None:
    """Let an operation fail: before it is sent, or by losing the answer to what was done."""

    def hook(**_: Any) -> None:
        raise raised

    moment = "after-call" if after else "before-call"
    function.function.s3.meta.events.register(f"{moment}.s3.{operation}", hook)


def uploads(function: Harness) -> list[Any]:
    return function.aws.client("s3").list_multipart_uploads(Bucket=PRODUCTS).get("Uploads", [])


@pytest.mark.parametrize(
    "lost",
    [error("NoSuchUpload"), error("PreconditionFailed"), error("InternalError"), ConnectionClosedError(endpoint_url="x")],
    ids=lambda raised: type(raised).__name__ if not isinstance(raised, ClientError) else str(raised)[19:33],
)  # fmt: skip
def test_a_completion_whose_answer_was_lost_is_a_product(
    lost: Exception, function: Harness, large: bytes
) -> None:
    """botocore sends it again, and is told that there is no such upload."""
    function.upload(large, KEY)
    fail(function, "CompleteMultipartUpload", lost, after=True)
    detail = function.run(KEY)
    assert detail["status"] == "Complete"
    assert len(function.product(detail)) == detail["output"]["bytes"]


def test_a_put_whose_answer_was_lost_is_a_product(function: Harness, tmp_path: Any) -> None:
    write_exposure(MODE["nircam-sub64p"], tmp_path / "x.fits")
    function.upload(tmp_path / "x.fits", KEY)
    lost = iter([ConnectionClosedError(endpoint_url="x")])

    def lose(**_: Any) -> None:
        for raised in lost:
            raise raised

    function.function.s3.meta.events.register("after-call.s3.PutObject", lose)
    assert function.run(KEY)["status"] == "Complete"


def test_a_conflict_with_nothing_there_is_tried_again(function: Harness, large: bytes) -> None:
    function.upload(large, KEY)
    fail(function, "CompleteMultipartUpload", error("ConditionalRequestConflict"))
    with pytest.raises(TransientFailure, match=r"not written: .*ConditionalRequestConflict"):
        function.run(KEY)
    assert (function.products(), uploads(function)) == (set(), [])


def test_an_abort_that_fails_does_not_hide_what_went_wrong(
    function: Harness, large: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    function.upload(large, KEY)
    fail(function, "UploadPart", error("SlowDown"))
    fail(function, "AbortMultipartUpload", error("NoSuchUpload"))
    with pytest.raises(TransientFailure, match="SlowDown"):
        function.run(KEY)
    assert "could not be aborted" in caplog.text


def test_an_input_that_is_replaced_before_its_copy_gives_no_mixed_product(
    function: Harness, large: bytes
) -> None:
    """moto, as Ceph, heeds no condition of a copy."""
    function.upload(large, KEY)
    other = large.replace(large[20_000:20_100], bytes(100))

    def replace(**_: Any) -> None:
        time.sleep(2)  # what is read of the input was read by then
        function.upload(other, KEY)

    function.function.s3.meta.events.register("before-call.s3.UploadPartCopy", replace)
    with pytest.raises(TransientFailure, match=r"was replaced (while it was copied|meanwhile)"):
        function.run(KEY)
    assert (function.products(), uploads(function)) == (set(), [])


@pytest.mark.parametrize(
    "code", ["AccessDenied", "ConditionalRequestConflict", "SlowDown", "InternalError"]
)
def test_a_block_that_cannot_be_had_only_costs_an_upload(
    code: str, function: Harness, large: bytes
) -> None:
    prefix = S3Location(MIRROR, f"blocks-{code.lower()}")
    function = function.with_services(blocks=Blocks(prefix, 16 * MIB, 4 * MIB))
    function.upload(large, KEY)

    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params.get("Key", "").startswith(prefix.key):
            raise error(code)

    hooks = function.function.s3.meta.events
    for operation in ("CreateMultipartUpload", "HeadObject"):
        hooks.register(f"provide-client-params.s3.{operation}", refuse)
        detail = function.run(KEY, onExisting="replace")
        hooks.unregister(f"provide-client-params.s3.{operation}", refuse)
        assert detail["status"] == "Complete"
        assert detail["function"]["bytesSent"] > 24 * MIB


def test_invocations_that_make_the_same_block_at_once_all_use_it(
    function: Harness, large: bytes
) -> None:
    """One wins; the others are told 412 or 409, and look."""
    prefix = S3Location(MIRROR, "blocks-at-once")
    function = function.with_services(blocks=Blocks(prefix, 16 * MIB, 4 * MIB))
    function.upload(large, KEY)
    fail(function, "CompleteMultipartUpload", error("ConditionalRequestConflict"), after=True)
    first = function.run(KEY)
    assert first["status"] == "Complete"
    assert first["function"]["bytesSent"] < 38 * MIB, "the block was used"


def test_crc32_of_pieces_is_that_of_the_whole() -> None:
    expected = base64.b64encode(zlib.crc32(b"abc").to_bytes(4, "big")).decode()
    assert crc32_of([b"a", memoryview(b"bc")]) == expected
