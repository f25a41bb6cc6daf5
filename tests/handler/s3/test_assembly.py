"""Products that S3 assembles: equal bytes, few of them uploaded; faults leave nothing behind."""

import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import ClientError

from core.errors import TransientFailure
from core.layout import Repeated
from core.product import Encoding
from handler.s3.assembly import Assembly
from handler.s3.blocks import Blocks
from handler.s3.objects import ObjectStore, S3Location
from handler.s3.write import MultipartUpload
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW
from tests.conftest import Harness
from tests.products import undated
from tests.samples.exposures import asdf_hdu, primary_header
from tests.samples.modes import MODES

MODE = {mode.name: mode for mode in MODES}
KEY = "2023/jw01_uncal.fits"
MIB = 1024 * 1024
BLOCKS = S3Location(MIRROR, "blocks")


def exposure(mode: str, shape: tuple[int, ...], *extra: Any, **header: Any) -> bytes:
    primary = primary_header(MODE[mode])
    primary.update(header)
    sci = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    hdus = [fits.PrimaryHDU(header=primary), fits.ImageHDU(sci, name="SCI"), *extra, asdf_hdu()]
    buffer = BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def full_frame() -> bytes:
    """25 MB of SCI; GROUPDQ is 13 MB."""
    return exposure("nircam-full", (1, 3, 2048, 2048))


def small_blocks() -> Blocks:
    """Return blocks that are used for products as small as those of the tests."""
    return Blocks(BLOCKS, block_bytes=16 * MIB, min_repeated_bytes=8 * MIB)


@pytest.fixture
def with_blocks(make_function: Any) -> Iterator[Harness]:
    function = make_function().with_services(blocks=small_blocks())
    yield function
    forget_blocks(function)


def block_keys(function: Harness) -> list[str]:
    found = function.aws.client("s3").list_objects_v2(Bucket=MIRROR, Prefix="blocks/")
    return [item["Key"] for item in found.get("Contents", [])]


def forget_blocks(function: Harness) -> None:
    for key in block_keys(function):
        function.aws.client("s3").delete_object(Bucket=MIRROR, Key=key)


@pytest.fixture
def streamed(function: Harness) -> Callable[[], bytes]:
    """Return a function that writes the same product and uploads every byte of it."""

    def make(**fields: Any) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("handler.s3.assembly.SMALLEST_SOURCE", 10**15)
            return function.product(function.run(KEY, onExisting="replace", **fields))

    return make


SHAPES = {
    "nircam-full": (1, 3, 2048, 2048),
    "niriss-soss": (2, 20, 256, 2048),
    "niriss-superstripe": (40, 8, 256, 208),
    "fgs1-id-image": (1, 3, 2048, 2024),
    "miri-full": (2, 6, 1024, 1032),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", SHAPES)
def test_assembled_and_uploaded_products_are_equal(
    mode: str, with_blocks: Harness, streamed: Callable[[], bytes]
) -> None:
    content = exposure(mode, SHAPES[mode])
    with_blocks.upload(content, KEY)
    detail = with_blocks.run(KEY)
    assembled = with_blocks.product(detail)
    assert block_keys(with_blocks)
    assert detail["output"]["bytes"] == len(assembled)
    again = with_blocks.run(KEY, onExisting="replace")
    assert again["function"]["bytesSent"] < len(assembled) / 2
    assert undated(assembled) == undated(with_blocks.product(again))
    assert undated(assembled) == undated(streamed())


def test_science_pixels_do_not_pass_through_the_function(
    with_blocks: Harness, full_frame: bytes
) -> None:
    with_blocks.upload(full_frame, KEY)
    with_blocks.run(KEY)
    moved = with_blocks.run(KEY, onExisting="replace")["function"]
    assert moved["bytesReceived"] < 6 * MIB
    assert moved["bytesSent"] < 5 * MIB + 17 * MIB


def test_groupdq_without_blocks_is_uploaded(function: Harness, full_frame: bytes) -> None:
    function.upload(full_frame, KEY)
    moved = function.run(KEY)["function"]
    assert moved["bytesSent"] > 3 * 2048 * 2048
    assert block_keys(function) == []


def test_float32_is_uploaded_and_its_groupdq_copied(
    with_blocks: Harness, full_frame: bytes
) -> None:
    function = with_blocks.with_settings(encoding=Encoding.FLOAT32)
    function.upload(full_frame, KEY)
    product = function.product(function.run(KEY))
    with fits.open(BytesIO(product)) as after, fits.open(BytesIO(full_frame)) as before:
        assert np.array_equal(after["SCI"].data, before["SCI"].data)
        assert after["SCI"].data.dtype == np.dtype(">f4")
    assert block_keys(function)


@pytest.mark.slow
def test_existing_groupdq_is_merged_and_uploaded(with_blocks: Harness) -> None:
    shape = (1, 3, 2048, 2048)
    present = np.random.default_rng(2).integers(0, 2, shape, dtype=np.uint8) * 4
    content = exposure("nircam-full", shape, fits.ImageHDU(present, name="GROUPDQ"))
    with_blocks.upload(content, KEY)
    product = with_blocks.product(with_blocks.run(KEY))
    with fits.open(BytesIO(product)) as hdus:
        bad = (hdus["PIXELDQ"].data & 1).astype(np.uint8)
        assert np.array_equal(hdus["GROUPDQ"].data, present | bad)
    assert block_keys(with_blocks) == []


@pytest.mark.slow
def test_exposures_with_the_same_planes_share_a_block(
    with_blocks: Harness, full_frame: bytes
) -> None:
    for number in range(2):
        with_blocks.upload(full_frame, f"jw0{number}_uncal.fits")
        with_blocks.run(f"jw0{number}_uncal.fits")
    assert len(block_keys(with_blocks)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("checksum", ["FULL_OBJECT", "COMPOSITE"])
def test_another_container_uses_the_existing_block(
    checksum: str, with_blocks: Harness, full_frame: bytes
) -> None:
    def change_checksum(parsed: dict[str, Any], **_: Any) -> None:
        """Some servers return a composite checksum although FULL_OBJECT was requested."""
        if checksum == "COMPOSITE" and "ChecksumCRC32" in parsed:
            parsed |= {"ChecksumCRC32": "A4eAOw==-8", "ChecksumType": "COMPOSITE"}

    with_blocks.function.s3.meta.events.register("after-call.s3.HeadObject", change_checksum)
    with_blocks.upload(full_frame, KEY)
    first = with_blocks.run(KEY)["function"]["bytesSent"]
    with_blocks = with_blocks.with_services(blocks=small_blocks())
    second = with_blocks.run(KEY, onExisting="replace")["function"]["bytesSent"]
    assert first - second == 16 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "short", "overwritten"])
@pytest.mark.parametrize("remembered", [True, False])
def test_damaged_block_is_replaced(
    damage: str, remembered: bool, with_blocks: Harness, full_frame: bytes
) -> None:
    with_blocks.upload(full_frame, KEY)
    good = with_blocks.product(with_blocks.run(KEY))
    (key,) = block_keys(with_blocks)
    s3 = with_blocks.aws.client("s3")
    whole = s3.get_object(Bucket=MIRROR, Key=key)
    content, metadata = whole["Body"].read(), whole["Metadata"]
    s3.delete_object(Bucket=MIRROR, Key=key, VersionId=whole["VersionId"])
    if damage == "short":
        s3.put_object(Bucket=MIRROR, Key=key, Body=content[:-1], Metadata=metadata)
    if damage == "overwritten":
        s3.put_object(Bucket=MIRROR, Key=key, Body=bytes(len(content)), Metadata=metadata)
    if not remembered:
        with_blocks = with_blocks.with_services(blocks=small_blocks())
    for _ in range(2):
        again = with_blocks.run(KEY, onExisting="replace")
        assert undated(good) == undated(with_blocks.product(again))
    last = with_blocks.run(KEY, onExisting="replace")["function"]
    assert last["bytesSent"] < 17 * MIB + 5 * MIB, "the block was replaced"


def failing(operation: str, number: int, code: str) -> Callable[..., None]:
    """Return a hook that fails the n-th call of an operation."""
    calls = iter(range(1, 10_000))
    lock = threading.Lock()

    def fail(**_: Any) -> None:
        with lock:
            if next(calls) == number:
                raise ClientError({"Error": {"Code": code, "Message": "on purpose"}}, operation)

    return fail


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "number"),
    [("UploadPart", 1), ("UploadPart", 2), ("UploadPartCopy", 1), ("CompleteMultipartUpload", 1), ("GetObject", 4)],
)  # fmt: skip
def test_failed_part_leaves_neither_product_nor_upload(
    operation: str, number: int, function: Harness, full_frame: bytes
) -> None:
    function.upload(full_frame, KEY)
    fail = failing(operation, number, "SlowDown")
    function.function.s3.meta.events.register(f"before-call.s3.{operation}", fail)
    with pytest.raises(TransientFailure, match="SlowDown"):
        function.run(KEY)
    assert function.products() == set()
    assert "Uploads" not in function.aws.client("s3").list_multipart_uploads(Bucket=PRODUCTS)
    assert function.run(KEY)["status"] == "Complete"


@pytest.mark.slow
def test_at_most_two_parts_are_uploaded_at_once(
    function: Harness, full_frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is held in memory."""
    monkeypatch.setattr("handler.s3.assembly.SMALLEST_SOURCE", 10**15)  # upload every byte
    lock, third = threading.Lock(), threading.Event()
    running: list[str] = []
    numbers: list[int] = []

    def begin(**_: Any) -> None:
        with lock:
            running.append("part")
            numbers.append(len(running))
            if len(running) > 2:
                third.set()
        third.wait(0.3)

    events = function.function.s3.meta.events
    events.register("before-call.s3.UploadPart", begin)
    events.register("after-call.s3.UploadPart", lambda **_: running.pop())
    function.upload(full_frame, KEY)
    function.run(KEY)
    assert len(numbers) >= 3
    assert max(numbers) <= 2


@pytest.mark.slow
def test_two_concurrent_invocations_write_one_product(
    function: Harness, full_frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.upload(full_frame, KEY)
    both, one_by_one = threading.Barrier(2), threading.Lock()
    original = Assembly.write

    def together(*arguments: Any) -> Any:
        both.wait(timeout=60)
        with one_by_one:  # unlike S3, moto does not check the condition and write in one step
            return original(*arguments)

    monkeypatch.setattr(Assembly, "write", together)
    details: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: details.append(function.run(KEY))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [detail["status"] for detail in details] == ["Complete", "Complete"]
    assert len({detail["id"] for detail in details}) == 1, "both publish one result"
    versions = function.aws.client("s3").list_object_versions(Bucket=PRODUCTS, Prefix="dq_init/")[
        "Versions"
    ]
    assert len(versions) == 1
    assert "Uploads" not in function.aws.client("s3").list_multipart_uploads(Bucket=PRODUCTS)


@pytest.mark.slow
@pytest.mark.parametrize("replacement", [b"newer", None])
def test_input_replaced_while_it_is_copied_gives_no_product(
    replacement: bytes | None,
    function: Harness,
    full_frame: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function.upload(full_frame, KEY)
    original, s3 = MultipartUpload.copy, function.aws.client("s3")

    def overtaken(upload: Any, *arguments: Any) -> Any:
        if replacement is None:
            s3.delete_object(Bucket=RAW, Key=KEY)
        else:
            s3.put_object(Bucket=RAW, Key=KEY, Body=replacement)
        return original(upload, *arguments)

    monkeypatch.setattr(MultipartUpload, "copy", overtaken)
    with pytest.raises(TransientFailure, match=rf"s3://{RAW}/{KEY}: "):
        function.run(KEY)
    assert function.products() == set()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=PRODUCTS)


@pytest.mark.slow
def test_other_product_written_meanwhile_is_not_replaced(
    function: Harness, full_frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.upload(full_frame, KEY)
    original = Assembly.write

    def overtaken(assembly: Any, target: Any, *arguments: Any) -> Any:
        function.aws.client("s3").put_object(
            Bucket=PRODUCTS, Key=target.location.key, Body=b"newer", Metadata={"input-etag": "x"}
        )
        return original(assembly, target, *arguments)

    monkeypatch.setattr(Assembly, "write", overtaken)
    with pytest.raises(
        TransientFailure, match=r"PreconditionFailed.*: the product was not written"
    ):
        function.run(KEY)
    (key,) = function.products()
    answer = function.aws.client("s3").get_object(Bucket=PRODUCTS, Key=key)
    assert answer["Body"].read() == b"newer"


@pytest.mark.slow
def test_block_does_not_depend_on_the_number_of_groups(function: Harness) -> None:
    """One plane repeats itself: exposures of any number of groups share one block of 64 MiB."""
    store = ObjectStore(function.aws.client("s3"))
    blocks = Blocks(S3Location(PRODUCTS, "dq_blocks"))
    plane = np.arange(4 * MIB, dtype=np.uint8).reshape(1, -1)
    extents = [
        blocks.extent(Repeated(plane, groups, integrations), store)
        for groups, integrations in ((5, 1), (100, 1), (10, 40))
    ]
    found = [extent.source for extent in extents if extent and extent.source]
    assert [block.location for block in found] == [found[0].location] * 3
    assert {block.size for block in found} == {64 * MIB}


@pytest.mark.slow
def test_encrypted_buckets_work_with_part_copies(function: Harness, full_frame: bytes) -> None:
    s3 = function.aws.client("s3")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    for bucket in (RAW, PRODUCTS):
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    try:
        function.upload(full_frame, KEY)
        detail = function.run(KEY)
        head = s3.head_object(Bucket=PRODUCTS, Key=detail["output"]["key"])
    finally:
        for bucket in (RAW, PRODUCTS):
            s3.delete_bucket_encryption(Bucket=bucket)
    assert head["ServerSideEncryption"] == "aws:kms"
    assert detail["function"]["bytesSent"] < detail["output"]["bytes"]


@pytest.mark.slow
def test_copies_are_pinned_to_the_inputs_etag(function: Harness, full_frame: bytes) -> None:
    seen: list[dict[str, Any]] = []
    function.function.s3.meta.events.register(
        "provide-client-params.s3.UploadPartCopy", lambda params, **_: seen.append(params)
    )
    function.upload(full_frame, KEY)
    detail = function.run(KEY)
    assert seen
    for params in seen:
        assert params["CopySource"] == f"{RAW}/{KEY}", "no s3:GetObjectVersion is needed"
        assert params["CopySourceIfMatch"] == detail["input"]["etag"]
