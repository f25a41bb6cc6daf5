"""Conflicts and failures of writes: the right error is raised, and nothing is left behind."""

import base64
import zlib
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from core.errors import InputRejected, TransientFailure
from handler.s3.blocks import Blocks
from handler.s3.objects import S3Location
from handler.s3.write import crc32_of
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalContext
from tests.conftest import Harness
from tests.samples.exposures import write_exposure
from tests.samples.modes import MODES

MODE = {mode.name: mode for mode in MODES}
KEY = "2023/jw01_uncal.fits"
MIB = 1024 * 1024


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "on purpose"}}, "any")


def fail(function: Harness, operation: str, raised: Exception, after: bool = False) -> None:
    """Fail an operation before it is sent, or by losing its response."""

    def hook(**_: Any) -> None:
        raise raised

    moment = "after-call" if after else "before-call"
    function.function.s3.meta.events.register(f"{moment}.s3.{operation}", hook)


def uploads(function: Harness) -> list[Any]:
    return function.aws.client("s3").list_multipart_uploads(Bucket=PRODUCTS).get("Uploads", [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost",
    [error("NoSuchUpload"), error("PreconditionFailed"), error("InternalError"), ConnectionClosedError(endpoint_url="x")],
    ids=lambda raised: type(raised).__name__ if not isinstance(raised, ClientError) else str(raised)[19:33],
)  # fmt: skip
def test_completion_with_lost_response_is_a_product(
    lost: Exception, function: Harness, large: bytes
) -> None:
    """botocore sends the completion again, and S3 answers NoSuchUpload."""
    function.upload(large, KEY)
    fail(function, "CompleteMultipartUpload", lost, after=True)
    detail = function.run(KEY)
    assert detail["status"] == "Complete"
    assert len(function.product(detail)) == detail["output"]["bytes"]
    assert uploads(function) == []


def test_upload_of_a_rejected_exposure_is_aborted(function: Harness, large: bytes) -> None:
    """The upload is started while the planes are made."""
    function.upload(large, KEY)
    function.upload(b"no FITS", "dq.fits")
    with pytest.raises(InputRejected, match=r"dq\.fits"):
        function.run(KEY, userSuppliedDq=f"s3://{RAW}/dq.fits")
    assert uploads(function) == []


def test_put_with_lost_response_is_a_product(function: Harness, tmp_path: Any) -> None:
    write_exposure(MODE["nircam-sub64p"], tmp_path / "x.fits")
    function.upload(tmp_path / "x.fits", KEY)
    lost = iter([ConnectionClosedError(endpoint_url="x")])

    def lose(**_: Any) -> None:
        for raised in lost:
            raise raised

    function.function.s3.meta.events.register("after-call.s3.PutObject", lose)
    assert function.run(KEY)["status"] == "Complete"


def test_conflict_without_an_object_is_transient(function: Harness, large: bytes) -> None:
    function.upload(large, KEY)
    fail(function, "CompleteMultipartUpload", error("ConditionalRequestConflict"))
    with pytest.raises(TransientFailure, match=r"ConditionalRequestConflict.*was not written"):
        function.run(KEY)
    assert (function.products(), uploads(function)) == (set(), [])


def test_failed_abort_does_not_hide_the_first_error(
    function: Harness, large: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    function.upload(large, KEY)
    fail(function, "UploadPart", error("SlowDown"))
    fail(function, "AbortMultipartUpload", error("InternalError"))
    with pytest.raises(TransientFailure, match="SlowDown"):
        function.run(KEY)
    assert "could not be aborted" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", ["AccessDenied", "ConditionalRequestConflict", "SlowDown", "InternalError"]
)
def test_block_that_cannot_be_written_is_uploaded(
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


@pytest.mark.slow
def test_block_written_by_two_invocations_is_used(function: Harness, large: bytes) -> None:
    """One succeeds; the others get 412 or 409 and read the block again."""
    prefix = S3Location(MIRROR, "blocks-at-once")
    function = function.with_services(blocks=Blocks(prefix, 16 * MIB, 4 * MIB))
    function.upload(large, KEY)
    fail(function, "CompleteMultipartUpload", error("ConditionalRequestConflict"), after=True)
    first = function.run(KEY)
    assert first["status"] == "Complete"
    assert first["function"]["bytesSent"] < 38 * MIB, "the block was used"


def test_parts_are_sent_in_one_piece(function: Harness, entry: ModuleType, large: bytes) -> None:
    """botocore turns bytes into a file, which urllib3 reads and sends 16 KB at a time."""
    bodies: list[object] = []

    def note(request: Any, **_: Any) -> None:
        bodies.append(request.body)

    events = entry.services_from_environment().s3.meta.events
    for operation in ("PutObject", "UploadPart"):
        events.register(f"before-send.s3.{operation}", note)
    function.upload(large, KEY)
    entry.lambda_handler({"bucket": RAW, "key": KEY}, LocalContext("in-one-piece"))
    assert len(bodies) > 1
    assert {type(body) for body in bodies} == {bytes}
    product = function.aws.client("s3").head_object(Bucket=PRODUCTS, Key=function.product_key())
    assert product["ContentType"] == "application/fits"


def test_crc32_of_pieces_is_that_of_the_whole() -> None:
    expected = base64.b64encode(zlib.crc32(b"abc").to_bytes(4, "big")).decode()
    assert crc32_of([b"a", memoryview(b"bc")]) == expected
