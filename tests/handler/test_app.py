import io
import json
from contextlib import redirect_stdout
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.errors import InputRejected, TransientFailure
from core.product import Encoding
from handler import process
from handler.settings import OnExisting
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalContext
from infra.demo.samples.exposures import write_exposure
from infra.demo.samples.mirror import CONTEXT
from infra.demo.samples.modes import MODES
from tests.conftest import Function

MODE = {mode.name: mode for mode in MODES}
KEY = "2023/jw01_uncal.fits"


@pytest.fixture(scope="module")
def exposure(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("exposure") / "x_uncal.fits"
    write_exposure(MODE["nircam-sub64p"], path)
    return path.read_bytes()


def created(key: str, version: str | None = None) -> str:
    entity = {"key": key} | ({"version-id": version} if version else {})
    detail = {"bucket": {"name": RAW}, "object": entity}
    return json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})


def test_a_batch_with_one_bad_message_finishes_the_others(
    function: Function, exposure: bytes
) -> None:
    function.upload(exposure, "a b+c_uncal.fits")
    function.upload(b"no FITS", "bad_uncal.fits")
    answer = function.run_batch("{broken", created("bad_uncal.fits"), created("a b+c_uncal.fits"))
    assert answer == {"batchItemFailures": []}
    assert function.products() == {"dq_init/a b+c_dq_init.fits"}
    statuses = [(d["status"], d["error"]) for d in function.announcements()]
    assert statuses == [("Failed", "InputRejected")] * 2 + [("Complete", None)]


def test_what_a_retry_may_help_is_delivered_again(
    function: Function, exposure: bytes, make_function: Any
) -> None:
    empty = make_function("an-empty-mirror")
    function.upload(exposure, KEY)
    assert empty.run_batch(created(KEY)) == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
    assert function.announcements() == []
    assert empty.run_batch(created(KEY), delivery=5)["batchItemFailures"]
    assert [d["error"] for d in function.announcements()] == ["ReferenceUnavailable"]


def test_an_event_that_cannot_be_read_is_announced_and_raised(function: Function) -> None:
    with pytest.raises(InputRejected, match="bucket is missing"):
        function.run_event({"key": "x"})
    (detail,) = function.announcements()
    assert (detail["status"], detail["input"]) == ("Failed", None)


def test_a_test_message_of_s3_asks_for_nothing(function: Function) -> None:
    body = (Path(__file__).parents[1] / "events" / "s3-test-event.json").read_text()
    assert function.run_batch(body) == {"batchItemFailures": []}
    assert function.run_event(json.loads(body)) == {}
    assert function.announcements() == []


def test_an_event_of_a_version_that_was_replaced_is_skipped(
    function: Function, exposure: bytes
) -> None:
    version = function.upload(exposure, KEY)
    function.upload(exposure[:-1] + b"\1", KEY)
    newer = function.run(KEY)
    detail = function.run_event(json.loads(created(KEY, version)))
    assert detail["status"] == "Skipped"
    assert "superseded" in detail["reason"]
    assert function.product(newer)
    answer = function.aws.client("s3").head_object(Bucket=PRODUCTS, Key=newer["output"]["key"])
    assert answer["VersionId"] == newer["output"]["versionId"]


def test_where_versions_are_not_named_the_etag_tells(function: Function, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    etag = function.aws.client("s3").head_object(Bucket=RAW, Key=KEY)["ETag"].strip('"')
    event = json.loads(created(KEY))
    event["detail"]["object"]["etag"] = etag
    function.upload(b"replaced by nonsense", KEY)
    assert "superseded" in function.run_event(event)["reason"]


def test_an_old_version_is_processed_to_a_place_of_its_own(
    function: Function, exposure: bytes
) -> None:
    version = function.upload(exposure, KEY)
    function.upload(b"replaced by nonsense", KEY)
    detail = function.run(KEY, versionId=version, outputKey="old/x.fits")
    assert (detail["input"]["versionId"], detail["status"]) == (version, "Complete")


def test_a_repeated_event_is_skipped_without_work(function: Function, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY)
    again = function.run(KEY)
    assert again["status"] == "Skipped"
    assert "made from the same input and mask" in again["reason"]
    assert again["output"] == first["output"]
    assert again["function"]["bytesSent"] == 0
    assert [d["status"] for d in function.announcements()] == ["Complete", "Skipped"]


def test_on_existing_decides(function: Function, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY)
    replaced = function.run(KEY, onExisting="replace")
    assert replaced["status"] == "Complete"
    assert replaced["output"]["versionId"] != first["output"]["versionId"]
    with pytest.raises(InputRejected, match="was made from the same input and mask"):
        function.with_settings(on_existing=OnExisting.ERROR).run(KEY)


@pytest.mark.parametrize("change", ["input", "mask", "encoding", "user DQ"])
def test_a_product_of_something_else_is_replaced(
    change: str, function: Function, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    match change:
        case "input":
            function.upload(exposure[:-1] + b"\0", KEY)
            detail = function.run(KEY)
        case "mask":
            detail = function.run(KEY, mask="N/A")
        case "encoding":
            detail = function.with_settings(encoding=Encoding.FLOAT32).run(KEY)
        case _:
            flags = BytesIO()
            fits.PrimaryHDU(np.full((64, 64), 2, np.int32)).writeto(flags)
            function.upload(flags.getvalue(), "user.fits")
            detail = function.run(KEY, userSuppliedDq=f"s3://{RAW}/user.fits")
            assert detail["flags"]["byMnemonic"]["SATURATED"] == 64 * 64
    assert detail["status"] == "Complete"


def test_no_mask_for_the_asking(function: Function, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    detail = function.run(KEY, mask="N/A", outputKey="elsewhere/x.fits")
    assert detail["reference"] == {
        "mask": None, "sha1": None, "context": CONTEXT, "mirror": f"s3://{MIRROR}",
    }  # fmt: skip
    assert detail["flags"]["byMnemonic"] == {}
    assert function.products("elsewhere/") == {"elsewhere/x.fits"}
    assert fits.getheader(BytesIO(function.product(detail)))["S_DQINIT"] == "SKIPPED"


def test_a_mask_of_the_request_is_used_and_named(
    function: Function, exposure: bytes, sample_cache: Path
) -> None:
    function.upload(exposure, KEY)
    usual = function.run(KEY)
    mask = f"s3://{MIRROR}/references/jwst/nircam/jwst_nircam_mask_9001.fits"
    detail = function.run(KEY, mask=mask)
    assert detail["reference"]["mask"] == mask
    assert fits.getheader(BytesIO(function.product(detail)))["R_MASK"] == mask
    assert detail["flags"] != usual["flags"]


def test_float32_products_hold_the_same_numbers(function: Function, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    native = fits.getdata(BytesIO(function.product(function.run(KEY))), "SCI")
    detail = function.with_settings(encoding=Encoding.FLOAT32).run(KEY)
    converted = fits.getdata(BytesIO(function.product(detail)), "SCI")
    assert converted.dtype == np.dtype(">f4")
    assert np.array_equal(native, converted)


def test_provenance_is_in_the_objects_metadata(function: Function, exposure: bytes) -> None:
    version = function.upload(exposure, KEY)
    detail = function.run(KEY)
    answer = function.aws.client("s3").head_object(Bucket=PRODUCTS, Key=detail["output"]["key"])
    assert answer["ContentType"] == "application/fits"
    assert answer["Metadata"]["input-version"] == version
    assert answer["Metadata"]["input-etag"] == detail["input"]["etag"].strip('"')
    assert answer["Metadata"]["mask-sha1"] == detail["reference"]["sha1"]
    assert answer["Metadata"]["mask"] == "crds://jwst_nircam_mask_9002.fits"
    assert answer["Metadata"]["crds-context"] == CONTEXT


def test_a_mask_is_fetched_once_per_container(
    function: Function, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY)["function"]["bytesReceived"]
    second = function.run(KEY, onExisting="replace")["function"]["bytesReceived"]
    assert first - second > 16_000_000
    function.services.references.masks._in_memory.clear()  # a new process in the same /tmp
    assert function.run(KEY, onExisting="replace")["function"]["bytesReceived"] == second


def test_a_mask_that_was_damaged_in_tmp_is_fetched_again(
    function: Function, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY)
    masks = function.services.references.masks
    masks._in_memory.clear()
    (kept,) = masks.cache.glob("*.fits")
    kept.write_bytes(bytes(kept.stat().st_size))
    again = function.run(KEY, onExisting="replace")
    assert again["flags"] == first["flags"]


def test_an_input_replaced_while_it_is_read_leaves_no_product(
    function: Function, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.aws.client("s3").put_bucket_versioning(
        Bucket=RAW, VersioningConfiguration={"Status": "Suspended"}
    )
    try:
        function.aws.client("s3").put_object(Bucket=RAW, Key=KEY, Body=exposure)
        original = process.write

        def replace_first(layout: Any, source: Any, *arguments: Any) -> Any:
            s3 = function.aws.client("s3")
            s3.put_object(Bucket=RAW, Key=KEY, Body=exposure[:-1] + b"\1")
            return original(layout, source, *arguments)

        monkeypatch.setattr(process, "write", replace_first)
        with pytest.raises(TransientFailure, match="replaced meanwhile"):
            function.run(KEY)
    finally:
        function.aws.client("s3").put_bucket_versioning(
            Bucket=RAW, VersioningConfiguration={"Status": "Enabled"}
        )
    assert function.products() == set()


def test_the_entry_reads_its_environment_and_logs_json(
    function: Function, exposure: bytes, monkeypatch: pytest.MonkeyPatch, entry: ModuleType
) -> None:
    function.upload(exposure, KEY)
    stdout = io.StringIO()
    for handler in entry.logger.handlers:
        monkeypatch.setattr(handler, "stream", stdout)
    with redirect_stdout(stdout):
        detail = entry.lambda_handler({"bucket": RAW, "key": KEY}, LocalContext("request-7"))
    assert detail["function"]["requestId"] == "request-7"
    lines = [json.loads(line) for line in stdout.getvalue().splitlines()]
    logged = [line for line in lines if "level" in line]
    assert {line["function_request_id"] for line in logged} == {"request-7"}
    assert logged[-1]["exposure"].startswith(f"s3://{RAW}/{KEY}")
    assert logged[-1]["mask"] == "crds://jwst_nircam_mask_9002.fits"
    warned = [line for line in logged if line["level"] == "WARNING"]
    assert any("NOISY" in line["message"] for line in warned)
    (measured,) = [line for line in lines if "_aws" in line]
    assert (measured["instrument"], measured["detector"]) == ("NIRCAM", "NRCB1")
    assert measured["Processed"] == [1.0]
    sets = measured["_aws"]["CloudWatchMetrics"][0]["Dimensions"]
    assert sorted(map(sorted, sets)) == [["detector", "instrument", "service"], ["service"]]
