import io
import json
import time
from contextlib import redirect_stdout
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from core.errors import InputRejected, ReferenceUnavailable, TransientFailure
from core.product import Encoding
from handler.s3.objects import ObjectStore, S3Location
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalContext
from tests.conftest import Harness, created
from tests.samples.mirror import CONTEXT

KEY = "2023/jw01_uncal.fits"
PRODUCT = "dq_init/2023/jw01_dq_init.fits"


def test_bad_message_of_a_batch_does_not_stop_the_others(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, "a b+c_uncal.fits")
    function.upload(b"no FITS", "bad_uncal.fits")
    assert (
        function.run_batch("{broken", created("bad_uncal.fits"), created("a b+c_uncal.fits")) == []
    )
    assert function.products() == {"dq_init/a b+c_dq_init.fits"}
    statuses = [(d["status"], d["error"]) for d in function.announcements()]
    assert statuses == [("Failed", "InputRejected")] * 2 + [("Complete", None)]


def test_transient_failure_is_redelivered_and_not_published(
    function: Harness, exposure: bytes, make_function: Any
) -> None:
    empty = make_function("an-empty-mirror")
    function.upload(exposure, KEY)
    for deliveries in (1, 2, 6, 100):  # no number of them means anything
        again = empty.run_batch(created(KEY), identifier="m1", deliveries=deliveries)
        assert again == ["m1"]
    assert function.announcements() == []


def test_direct_request_without_retries_publishes_its_failure(
    make_function: Any, exposure: bytes
) -> None:
    empty = make_function("an-empty-mirror")
    empty.upload(exposure, KEY)
    with pytest.raises(ReferenceUnavailable):
        empty.run(KEY, retried=True)
    assert empty.announcements() == []
    with pytest.raises(ReferenceUnavailable):
        empty.run(KEY)
    assert [d["error"] for d in empty.announcements()] == ["ReferenceUnavailable"]


@pytest.mark.parametrize(
    "nonsense", [None, 5, "text", [], {}, {"Records": [1]}, {"Records": 5, "key": None}]
)
def test_unreadable_message_is_published_as_failed(nonsense: Any, function: Harness) -> None:
    assert function.run_batch(json.dumps(nonsense)) == []
    (detail,) = function.announcements()
    assert (detail["error"], detail["input"]) == ("InputRejected", None)
    assert json.dumps(nonsense) in detail["reason"]


@pytest.mark.parametrize("records", [{}, {"a": 1}, 5, [5], [[]]])
def test_invocation_with_unreadable_records_is_rejected(
    records: Any, function: Harness, entry: ModuleType
) -> None:
    with pytest.raises(InputRejected, match="S3 notification"):
        entry.lambda_handler({"Records": records}, LocalContext("request-1"))
    assert [d["error"] for d in function.announcements()] == ["InputRejected"]


def test_invocation_without_records_answers_nothing(function: Harness, entry: ModuleType) -> None:
    assert entry.lambda_handler({"Records": []}, LocalContext("request-1")) == {}
    assert function.announcements() == []


def test_unreadable_messages_of_one_error_have_different_ids(function: Harness) -> None:
    function.run_batch("{broken", "{broken")
    function.run_batch("{broken", identifier="redelivered")
    function.run_batch("{broken", identifier="redelivered")
    ids = [detail["id"] for detail in function.announcements()]
    assert len(ids) == 4
    assert len(set(ids)) == 3


def test_bad_record_does_not_stop_the_others(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    good = {"s3": {"bucket": {"name": RAW}, "object": {"key": KEY}}}
    absent = {"s3": {"bucket": {"name": RAW}, "object": {"key": "absent_uncal.fits"}}}
    body = json.dumps({"Records": [{"s3": {}}, absent, good]})
    assert function.run_batch(body, identifier="m1") == []
    details = function.announcements()
    assert [d["status"] for d in details] == ["Failed", "Failed", "Complete"]
    assert [d["cause"] for d in details] == ["m1/1", "m1/2", "m1/3"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_throttled_record_with_a_bad_one_is_redelivered(
    order: tuple[int, int], function: Harness, exposure: bytes
) -> None:
    """The message must not count as done, or the good exposure is lost."""
    function.upload(exposure, KEY)
    records = [
        {"s3": {"bucket": {"name": RAW}, "object": {"key": k}}} for k in (KEY, "no_uncal.fits")
    ]
    body = json.dumps({"Records": [records[number] for number in order]})

    def throttle(params: dict[str, Any], **_: Any) -> None:
        if params["Key"] == KEY:
            raise ClientError({"Error": {"Code": "SlowDown"}}, "GetObject")

    hooks = function.function.s3.meta.events
    hooks.register("provide-client-params.s3.GetObject", throttle)
    assert function.run_batch(body, identifier="m1") == ["m1"]
    hooks.unregister("provide-client-params.s3.GetObject", throttle)
    assert function.run_batch(body, identifier="m1", deliveries=2) == []
    results = [(d["status"], d["error"]) for d in function.announcements()]
    assert sorted(results, key=str) == [("Complete", None), ("Failed", "InputRejected")]


@pytest.mark.parametrize("kept", [0, 1, -1])
def test_short_answer_to_a_ranged_read_is_retried(
    kept: int, function: Harness, exposure: bytes
) -> None:
    """A server that answers fewer bytes must not truncate a product."""
    function.upload(exposure, KEY)
    later = ObjectStore(function.function.s3).begin(S3Location(RAW, KEY), 2880, InputRejected)

    def shorten(parsed: dict[str, Any], **_: Any) -> None:
        if "Body" not in parsed:
            return
        content = parsed["Body"].read()
        parsed["Body"] = StreamingBody(BytesIO(content[:kept]), len(content[:kept]))

    hooks = function.function.s3.meta.events
    hooks.register("after-call.s3.GetObject", shorten)
    with pytest.raises(TransientFailure, match=r"S3 returned \d+ bytes, expected \d+"):
        function.run(KEY)
    with pytest.raises(TransientFailure, match=r"S3 returned \d+ bytes, expected 5000"):
        later.read(2880, 5000)
    hooks.unregister("after-call.s3.GetObject", shorten)
    assert function.products() == set()
    assert function.run(KEY)["status"] == "Complete"


def test_unreadable_event_is_published_and_raised(function: Harness) -> None:
    with pytest.raises(InputRejected, match="bucket is missing"):
        function.run_event({"key": "x"})
    (detail,) = function.announcements()
    assert (detail["status"], detail["input"]) == ("Failed", None)


def test_s3_test_event_is_ignored(function: Harness) -> None:
    body = (Path(__file__).parents[1] / "events" / "s3-test-event.json").read_text()
    assert function.run_batch(body) == []
    assert function.run_event(json.loads(body)) == {}
    assert function.announcements() == []


def test_event_of_a_replaced_version_is_skipped(function: Harness, exposure: bytes) -> None:
    version = function.upload(exposure, KEY)
    function.upload(exposure[:-1] + b"\1", KEY)
    newer = function.run(KEY)
    detail = function.run_event(json.loads(created(KEY, version)))
    assert detail["status"] == "Skipped"
    assert "superseded" in detail["reason"]
    assert function.product(newer)
    answer = function.aws.client("s3").head_object(Bucket=PRODUCTS, Key=newer["output"]["key"])
    assert answer["VersionId"] == newer["output"]["versionId"]


def test_event_without_version_is_compared_by_etag(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    etag = function.aws.client("s3").head_object(Bucket=RAW, Key=KEY)["ETag"].strip('"')
    event = json.loads(created(KEY))
    event["detail"]["object"]["etag"] = etag
    function.upload(exposure[:-1] + b"\1", KEY)
    function.run(KEY)
    assert "superseded" in function.run_event(event)["reason"]


def test_upload_withdrawn_before_its_event_loses_nothing(
    function: Harness, exposure: bytes
) -> None:
    first = function.upload(exposure, KEY)
    second = function.upload(exposure[:-1] + b"\1", KEY)
    early = function.run_event(json.loads(created(KEY, first)))
    assert (early["status"], early["input"]["versionId"]) == ("Complete", second)
    function.aws.client("s3").delete_object(Bucket=RAW, Key=KEY, VersionId=second)
    late = function.run_event(json.loads(created(KEY, second)))
    assert (late["status"], late["input"]["versionId"]) == ("Complete", first)


def test_failure_of_a_withdrawn_upload_is_published(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    second = function.upload(exposure[:-1] + b"\1", KEY)
    function.aws.client("s3").delete_object(Bucket=RAW, Key=KEY, VersionId=second)
    broken = function.with_settings(context="jwst_0001.pmap")
    assert broken.run_batch(created(KEY, second), identifier="m1") == ["m1"]
    assert broken.run_unfinished(created(KEY, second), identifier="m1") == []
    assert [d["error"] for d in function.announcements()] == ["ReferenceUnavailable"]


def test_upload_withdrawn_after_its_product_is_replaced_again(
    function: Harness, exposure: bytes
) -> None:
    first = function.upload(exposure, KEY)
    second = function.upload(exposure[:-1] + b"\1", KEY)
    function.run(KEY)
    function.aws.client("s3").delete_object(Bucket=RAW, Key=KEY, VersionId=second)
    again = function.run(KEY)
    assert (again["status"], again["input"]["versionId"]) == ("Complete", first)


def test_old_version_is_processed_to_its_output_key(function: Harness, exposure: bytes) -> None:
    version = function.upload(exposure, KEY)
    function.upload(b"replaced by nonsense", KEY)
    detail = function.run(KEY, versionId=version, outputKey="dq_init/old/x.fits")
    assert (detail["input"]["versionId"], detail["status"]) == (version, "Complete")


def test_event_describes_the_exposure_and_its_flags(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    detail = function.run(KEY)
    assert detail["exposure"] == {
        "instrument": "NIRCAM",
        "detector": "NRCB1",
        "exposureType": "NRC_IMAGE",
        "subarray": "SUB64P",
        "kind": "ramp",
        "shape": [3, 5, 64, 64],
        "warning": None,
    }
    flags = detail["flags"]
    assert flags["pixels"] == 64 * 64
    assert 0 < flags["doNotUse"] == flags["byMnemonic"]["DO_NOT_USE"]["pixels"]
    assert flags["doNotUseFraction"] == flags["doNotUse"] / flags["pixels"]


def test_repeated_event_is_skipped_without_writing(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY)
    again = function.run(KEY)
    assert again["status"] == "Skipped"
    assert "was published as Complete by AWS request request-1" in again["reason"]
    assert again["output"] == first["output"]
    assert again["function"]["bytesSent"] == 0
    assert [d["status"] for d in function.announcements()] == ["Complete", "Skipped"]


@pytest.mark.parametrize("change", ["input", "mask", "encoding", "user DQ"])
def test_product_of_other_provenance_is_replaced(
    change: str, function: Harness, exposure: bytes
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
            assert detail["flags"]["byMnemonic"]["SATURATED"]["pixels"] == 64 * 64
    assert detail["status"] == "Complete"


def test_request_for_no_mask_skips_the_step(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    detail = function.run(KEY, mask="N/A", outputKey="dq_init/elsewhere/x.fits")
    assert detail["reference"] == {
        "mask": None, "sha1": None, "context": CONTEXT, "mirror": f"s3://{MIRROR}", "warning": None,
    }  # fmt: skip
    assert detail["flags"]["byMnemonic"] == {}
    assert function.products("dq_init/elsewhere/") == {"dq_init/elsewhere/x.fits"}
    assert fits.getheader(BytesIO(function.product(detail)))["S_DQINIT"] == "SKIPPED"


def test_requested_mask_is_used_and_named(
    function: Harness, exposure: bytes, sample_cache: Path
) -> None:
    function.upload(exposure, KEY)
    usual = function.run(KEY)
    mask = f"s3://{MIRROR}/references/jwst/nircam/jwst_nircam_mask_9001.fits"
    detail = function.run(KEY, mask=mask)
    assert detail["reference"]["mask"] == mask
    assert fits.getheader(BytesIO(function.product(detail)))["R_MASK"] == mask
    assert detail["flags"] != usual["flags"]


def test_requested_mask_of_another_detector_gives_a_warning(
    function: Harness, exposure: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    function.upload(exposure, KEY)
    folder = f"s3://{MIRROR}/references/jwst/nircam"
    detail = function.run(KEY, mask=f"{folder}/jwst_nircam_mask_9001.fits")
    warning = detail["reference"]["warning"]
    assert "is of NIRCAM NRCA1" in warning
    assert warning.endswith("is of NIRCAM NRCB1; the mask is used")
    assert warning in caplog.text
    detail = function.run(KEY, mask=f"{folder}/jwst_nircam_mask_9002.fits", onExisting="replace")
    assert detail["reference"]["warning"] is None
    assert {event["reference"]["warning"] for event in function.announcements()} == {warning, None}


def test_float32_product_holds_the_same_numbers(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    native = fits.getdata(BytesIO(function.product(function.run(KEY))), "SCI")
    detail = function.with_settings(encoding=Encoding.FLOAT32).run(KEY)
    converted = fits.getdata(BytesIO(function.product(detail)), "SCI")
    assert converted.dtype == np.dtype(">f4")
    assert np.array_equal(native, converted)


def test_provenance_is_in_the_object_metadata(function: Harness, exposure: bytes) -> None:
    version = function.upload(exposure, KEY)
    detail = function.run(KEY)
    answer = function.aws.client("s3").head_object(Bucket=PRODUCTS, Key=detail["output"]["key"])
    assert answer["ContentType"] == "application/fits"
    assert answer["Metadata"]["input-version"] == version
    assert answer["Metadata"]["input-etag"] == detail["input"]["etag"].strip('"')
    assert answer["Metadata"]["mask-sha1"] == detail["reference"]["sha1"]
    assert answer["Metadata"]["mask"] == "crds://jwst_nircam_mask_9002.fits"
    assert answer["Metadata"]["input-key"] == KEY
    assert answer["Metadata"]["cause"] == "request-1"
    assert answer["Metadata"]["crds-context"] == CONTEXT


@pytest.mark.slow
def test_mask_is_fetched_once_per_container(
    function: Harness, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY)["function"]["bytesReceived"]
    second = function.run(KEY, onExisting="replace")["function"]["bytesReceived"]
    assert first - second > 4_000_000
    function.function.references.masks._in_memory.clear()  # a new process in the same /tmp
    third = function.run(KEY, onExisting="replace")["function"]["bytesReceived"]
    assert third == pytest.approx(second, abs=1000), "the ledger's entry, and no mask"


def test_mask_damaged_in_tmp_is_fetched_again(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY)
    masks = function.function.references.masks
    masks._in_memory.clear()
    (kept,) = masks.cache.glob("*.fits")
    kept.write_bytes(bytes(kept.stat().st_size))
    again = function.run(KEY, onExisting="replace")
    assert again["flags"] == first["flags"]


def test_input_replaced_while_read_leaves_no_product(function: Harness, large: bytes) -> None:
    function.upload(large, KEY)
    s3 = function.aws.client("s3")

    def replace(params: dict[str, Any], **_: Any) -> None:
        """Replace the exposure after its headers were read."""
        if params["Key"] == KEY and not params["Range"].startswith("bytes=0-"):
            s3.put_object(Bucket=RAW, Key=KEY, Body=large[:-1] + b"\1")

    function.function.s3.meta.events.register("before-parameter-build.s3.GetObject", replace)
    with pytest.raises(TransientFailure, match="replaced meanwhile"):
        function.run(KEY)
    assert function.products() == set()


def test_handler_reads_its_environment_and_logs_json(
    function: Harness, exposure: bytes, monkeypatch: pytest.MonkeyPatch, entry: ModuleType
) -> None:
    function.upload(exposure, KEY)
    stdout, began = io.StringIO(), time.perf_counter()
    for handler in entry.logger.handlers:
        monkeypatch.setattr(handler, "stream", stdout)
    with redirect_stdout(stdout):
        detail = entry.lambda_handler({"bucket": RAW, "key": KEY}, LocalContext("request-7"))
    assert detail["function"]["requestId"] == "request-7"
    assert 0 < detail["function"]["durationSeconds"] <= time.perf_counter() - began
    lines = [json.loads(line) for line in stdout.getvalue().splitlines()]
    logged = [line for line in lines if "level" in line]
    assert {line["function_request_id"] for line in logged} == {"request-7"}
    assert logged[-1]["exposure"].startswith(f"s3://{RAW}/{KEY}")
    assert logged[-1]["mask"] == "crds://jwst_nircam_mask_9002.fits"
    warned = [line for line in logged if line["level"] == "WARNING"]
    assert any("NOISY" in line["message"] for line in warned)
    (measured,) = [line for line in lines if "_aws" in line]
    assert measured["service"] == "dq_init"
    assert measured["Complete"] == [1.0]
    sets = measured["_aws"]["CloudWatchMetrics"][0]["Dimensions"]
    assert sets == [["service"]]
