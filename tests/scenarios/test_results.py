"""Results of events that repeat, are late, are out of order, or have unusual options."""

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import ClientError

from core.errors import InputRejected, ReferenceUnavailable, TransientFailure
from core.product import Encoding, Form
from handler.ledger import Entry
from handler.s3.objects import S3Location, StoredObject
from infra.demo.local_aws import PRODUCTS, RAW
from tests.conftest import UNFINISHED, Harness, created
from tests.samples.mirror import CONTEXT

KEY = "2023/jw01_uncal.fits"
OTHER_MASK = "s3://crds-mirror/references/jwst/nircam/jwst_nircam_mask_9001.fits"


@pytest.fixture(params=list(Form), ids=str)
def make_function(make_function: Any, request: pytest.FixtureRequest) -> Any:
    """A factory of functions with either form of product."""
    return lambda *options: make_function(*options).with_settings(form=request.param)


def newer(exposure: bytes) -> bytes:
    return exposure[:-1] + b"\1"


def published(function: Harness) -> list[tuple[str, str]]:
    """Status and id of the events since the last call."""
    return [(detail["status"], detail["id"]) for detail in function.announcements()]


def statuses(function: Harness) -> list[str]:
    return [status for status, _ in published(function)]


def versions(function: Harness) -> int:
    found = function.aws.client("s3").list_object_versions(Bucket=PRODUCTS, Prefix="dq_init/")
    return len(found.get("Versions", []))


def metadata(function: Harness, name: str = "2023/jw01") -> dict[str, str]:
    key = function.product_key(name)
    return function.aws.client("s3").head_object(Bucket=PRODUCTS, Key=key)["Metadata"]


def without_bus(function: Harness) -> Harness:
    """The same function, while EventBridge rejects every event."""
    events = function.aws.client("events")
    bus = type(function.function.bus)("default", events)

    def refuse(**_: Any) -> tuple[Any, dict[str, Any]]:
        answer = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "X", "ErrorMessage": "down"}]}
        return type("Response", (), {"status_code": 200})(), answer

    events.meta.events.register("before-call.events.PutEvents", refuse)
    return function.with_services(bus=bus)


def test_inputs_of_one_name_in_two_folders_are_two_products(
    function: Harness, exposure: bytes
) -> None:
    for folder in ("a", "b", "a"):
        function.upload(exposure, f"{folder}/jw01_uncal.fits")
        assert function.run_batch(created(f"{folder}/jw01_uncal.fits")) == []
    names = ("a/jw01", "b/jw01")
    assert function.products() == {function.product_key(name) for name in names}
    for name in names:
        assert metadata(function, name)["input-key"] == f"{name}_uncal.fits"


def test_product_of_another_input_needs_replace(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.upload(newer(exposure), "other_uncal.fits")
    function.run(KEY)
    message = (
        r"is of s3://raw-exposures/2023/jw01_uncal.fits, .* s3://raw-exposures/other_uncal.fits"
    )
    with pytest.raises(InputRejected, match=message):
        function.run("other_uncal.fits", outputKey=function.product_key())
    assert versions(function) == 1
    function.run("other_uncal.fits", outputKey=function.product_key(), onExisting="replace")
    assert metadata(function)["input-key"] == "other_uncal.fits"


def test_foreign_object_needs_replace(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.aws.client("s3").put_object(
        Bucket=PRODUCTS, Key=function.product_key(), Body=b"a person's notes"
    )
    with pytest.raises(InputRejected, match="is not a product of this software"):
        function.run(KEY)
    assert function.run_batch(created(KEY)) == [], "no retry would help"
    assert versions(function) == 1


def test_repeated_event_is_skipped_and_a_redelivery_silent(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run_batch(created(KEY), identifier="m1")
    function.run_batch(created(KEY), identifier="m2")
    function.run_batch(created(KEY), identifier="m1", deliveries=2)
    assert statuses(function) == ["Complete", "Skipped"]
    assert versions(function) == 1


def test_redelivered_repeated_event_is_skipped_with_one_id(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run_batch(created(KEY), identifier="m1")
    for _ in range(2):
        function.run_batch(created(KEY), identifier="m2")
    complete, *skipped = published(function)
    assert complete[0] == "Complete"
    assert len(set(skipped)) == 1


def test_rebuilt_product_after_deletion_is_a_new_result(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.run_batch(created(KEY))
    function.aws.client("s3").delete_object(Bucket=PRODUCTS, Key=function.product_key())
    function.run_batch(created(KEY))
    first, second = published(function)
    assert (first[0], second[0]) == ("Complete", "Complete")
    assert first[1] != second[1]


def test_mask_that_is_rolled_back_is_a_new_result(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    function.run(KEY, mask=OTHER_MASK)
    function.run(KEY, onExisting="replace")
    ids = published(function)
    assert [status for status, _ in ids] == ["Complete"] * 3
    assert len(set(ids)) == 3


def test_results_without_versions_differ_by_time(function: Harness, exposure: bytes) -> None:
    s3 = function.aws.client("s3")
    status = {"Status": "Suspended"}
    s3.put_bucket_versioning(Bucket=PRODUCTS, VersioningConfiguration=status)
    try:
        function.upload(exposure, KEY)
        detail = function.run(KEY)
        assert detail["output"]["versionId"] is None
        assert detail["output"]["lastModified"]
        assert function.run(KEY)["status"] == "Skipped"
        again = function.run(KEY, onExisting="replace")
        assert again["id"] != detail["id"]
    finally:
        s3.put_bucket_versioning(Bucket=PRODUCTS, VersioningConfiguration={"Status": "Enabled"})


@pytest.mark.slow
def test_product_is_complete_after_the_bus_was_down(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    silent = without_bus(function)
    for deliveries in range(1, 7):
        assert silent.run_batch(created(KEY), identifier="m1", deliveries=deliveries) == ["m1"]
    assert versions(function) == 1, "it was made once"
    assert silent.run_unfinished(created(KEY), identifier="m1") == ["m1"], "looked at later again"
    assert function.run_unfinished(created(KEY), identifier="m1") == []
    (detail,) = function.announcements()
    assert detail["status"] == "Complete"
    assert detail["flags"]["doNotUse"] > 0
    assert detail["exposure"]["detector"] == "NRCB1"
    assert function.run_batch(created(KEY), identifier="m2") == []
    assert statuses(function) == ["Skipped"]


def test_repeated_event_is_skipped_after_the_bus_was_down(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run_batch(created(KEY), identifier="m1")
    without_bus(function).run_batch(created(KEY), identifier="m2")
    function.run_unfinished(created(KEY), identifier="m2")
    assert set(statuses(function)) == {"Complete", "Skipped"}


@pytest.mark.slow
def test_unfinished_message_fails_with_its_last_reason(
    make_function: Any, function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    empty = make_function("an-empty-mirror")
    empty.upload(exposure, KEY)
    assert empty.run_batch(created(KEY), identifier="m1") == ["m1"]
    assert empty.run_unfinished(created(KEY), identifier="m1") == []
    (detail,) = empty.announcements()
    assert (detail["status"], detail["error"]) == ("Failed", "ReferenceUnavailable")
    assert "server_config" in detail["reason"]
    assert detail["request"] == {"bucket": RAW, "key": KEY}
    empty.run_unfinished(created(KEY), identifier="m1")
    assert published(empty) == [], "the same result is published once"
    failed = {"source": "jwst.dq_init", "detail": detail}
    assert function.run_batch(json.dumps(failed)) == [], "redriven after the mirror was repaired"
    assert statuses(function) == ["Complete"]


def test_message_whose_attempts_were_killed_fails(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    assert function.run_unfinished(created(KEY)) == []
    (detail,) = function.announcements()
    assert (detail["status"], detail["error"]) == ("Failed", "TransientFailure")
    assert "no attempt left a reason" in detail["reason"]
    assert versions(function) == 0, "it only looks"


@pytest.mark.slow
def test_failure_is_published_despite_an_older_product(
    make_function: Any, function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    function.announcements()
    broken = make_function("an-empty-mirror")
    broken.upload(exposure, KEY)
    function.run(KEY)
    function.announcements()
    broken.run_batch(created(KEY), identifier="m1")
    broken.run_unfinished(created(KEY), identifier="m1")
    assert [d["error"] for d in function.announcements()] == ["ReferenceUnavailable"]


def test_unfinished_message_of_a_replaced_input_is_skipped(
    function: Harness, exposure: bytes
) -> None:
    version = function.upload(exposure, KEY)
    function.upload(newer(exposure), KEY)
    function.run_unfinished(created(KEY, version))
    assert statuses(function) == ["Skipped"]


@pytest.mark.slow
def test_retry_of_error_or_replace_keeps_its_own_product(
    function: Harness, exposure: bytes
) -> None:
    """As Lambda repeats an invocation, or Step Functions a task whose answer was lost."""
    function.upload(exposure, KEY)
    for wanted in ("error", "replace"):
        request = {"bucket": RAW, "key": KEY, "onExisting": wanted, "cause": f"execution-{wanted}"}
        silent = without_bus(function)
        with pytest.raises(TransientFailure, match="rejected the event"):
            silent.run_event(request)
        before = versions(function)
        first, second = function.run_event(request), function.run_event(request)
        assert first["status"] == second["status"] == "Complete"
        assert first["id"] == second["id"]
        assert versions(function) == before, "the product was not made once more"
        assert statuses(function) == ["Complete"]
    with pytest.raises(InputRejected, match="onExisting=error forbids replacing it"):
        function.run(KEY, onExisting="error")
    assert function.run(KEY, onExisting="replace")["status"] == "Complete"
    assert versions(function) == 3


def test_older_version_never_replaces_a_newer_product(function: Harness, exposure: bytes) -> None:
    s3 = function.aws.client("s3")
    version = function.upload(exposure, KEY)

    def earlier(parsed: dict[str, Any], **_: Any) -> None:
        """moto's clock has whole seconds; real versions are further apart."""
        if parsed.get("VersionId") == version:
            parsed["LastModified"] = parsed["LastModified"].replace(year=2023)

    for operation in ("HeadObject", "GetObject"):
        function.function.s3.meta.events.register(f"after-call.s3.{operation}", earlier)
    function.upload(newer(exposure), KEY)
    current = function.run(KEY)
    old = function.run(KEY, versionId=version)
    assert old["status"] == "Skipped"
    assert "is of a newer version" in old["reason"]
    assert metadata(function)["input-version"] == current["input"]["versionId"]
    beside = function.run(KEY, versionId=version, outputKey="dq_init/old/x.fits")
    assert (beside["status"], beside["input"]["versionId"]) == ("Complete", version)
    s3.delete_object(Bucket=PRODUCTS, Key=function.product_key())
    assert function.run(KEY, versionId=version)["status"] == "Complete"
    function.run_batch(created(KEY))
    assert metadata(function)["input-version"] == current["input"]["versionId"]


def test_event_with_version_null_is_processed(function: Harness, exposure: bytes) -> None:
    """S3's name for what was written before its bucket had versions."""
    s3 = function.aws.client("s3")
    s3.put_bucket_versioning(Bucket=RAW, VersioningConfiguration={"Status": "Suspended"})
    try:
        s3.put_object(Bucket=RAW, Key=KEY, Body=exposure)
        function.run_batch(created(KEY, "null"))
        assert statuses(function) == ["Complete"]
    finally:
        s3.put_bucket_versioning(Bucket=RAW, VersioningConfiguration={"Status": "Enabled"})


@pytest.mark.parametrize(
    "key",
    [
        "folder/ jw01_uncal.fits",
        "folder with blanks /jw01 +%20&=é_uncal.fits".replace("é", "e"),
        " /jw01_uncal.fits",
        "größe/" + "x" * 900 + "/jw01_uncal.fits",
    ],
)
def test_input_with_an_unusual_key_is_recognised(
    key: str, function: Harness, exposure: bytes
) -> None:
    """S3 trims the blanks at the ends of metadata, takes ASCII only, and 2 KB in all."""
    function.upload(exposure, key)
    assert function.run(key)["status"] == "Complete"
    assert function.run(key)["status"] == "Skipped"


@pytest.mark.parametrize(
    "entry", [b"", b"no JSON", b"{}", b'{"result": {"id": 5}, "catalogue": 1, "failure": []}']
)
def test_unreadable_ledger_entry_counts_as_empty(
    entry: bytes, function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY)
    ledger = f"dq_ledger/{function.product_key()}.json"
    function.aws.client("s3").put_object(Bucket=PRODUCTS, Key=ledger, Body=entry)
    again = function.run(KEY)
    assert (again["status"], again["id"]) == ("Complete", first["id"])
    assert function.run(KEY)["status"] == "Skipped", "the entry was rewritten"


def test_entry_of_a_newer_release_is_read(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    s3, ledger = function.aws.client("s3"), f"dq_ledger/{function.product_key()}.json"
    entry = json.loads(s3.get_object(Bucket=PRODUCTS, Key=ledger)["Body"].read())
    entry["news"] = entry["result"]["news"] = entry["result"]["function"]["news"] = 1
    s3.put_object(Bucket=PRODUCTS, Key=ledger, Body=json.dumps(entry))
    assert function.run(KEY)["status"] == "Skipped"


def test_ledger_holds_parameters_window_and_digest(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    detail = function.run(KEY)
    s3, ledger = function.aws.client("s3"), f"dq_ledger/{function.product_key()}.json"
    entry = json.loads(s3.get_object(Bucket=PRODUCTS, Key=ledger)["Body"].read())
    assert entry["result"] == detail
    assert entry["failure"] is None
    row = entry["catalogue"]
    assert row["window"] == [1851, 1817, 64, 64]
    assert row["parameters"]["META.INSTRUMENT.DETECTOR"] == "NRCB1"
    assert row["parameters"]["META.OBSERVATION.DATE"]
    assert len(row["planes_sha256"]) == 64


def test_unwritable_ledger_fails_no_exposure(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    s3 = function.aws.client("s3")
    nowhere = type(function.function.ledger)(
        type(function.settings.mirror)("no-such-bucket", "ledger")
    )
    function = function.with_services(ledger=nowhere, s3=s3)
    first, second = function.run(KEY), function.run(KEY)
    assert first["status"] == second["status"] == "Complete"
    assert first["id"] == second["id"]


def test_new_context_with_the_same_mask_changes_nothing(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    assert function.run(KEY, context=CONTEXT)["status"] == "Skipped"
    assert versions(function) == 1


def test_other_encoding_rebuilds_the_product(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    assert function.with_settings(encoding=Encoding.FLOAT32).run(KEY)["status"] == "Complete"
    assert versions(function) == 2


@pytest.mark.parametrize(
    "asked",
    [{"onExisting": "replace"}, {"mask": "N/A"}, {}],
    ids=["replace", "a mask", "the rules' choice"],
)
def test_report_of_killed_attempts_ignores_an_older_product(
    asked: dict[str, str], function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.with_settings(encoding=Encoding.FLOAT32).run(KEY)
    function.announcements()
    body = json.dumps({"bucket": RAW, "key": KEY, **asked})
    assert function.run_unfinished(body) == []
    assert statuses(function) == ["Failed"]


@pytest.mark.parametrize("bucket", ["a b", "arn:aws:s3::123456789012:accesspoint/x.mrap"])
def test_report_publishes_its_own_failure(bucket: str, function: Harness) -> None:
    body = json.dumps({"bucket": bucket, "key": KEY})
    assert function.run_batch(body, identifier="m1") == [], "no retry would help"
    assert function.run_unfinished(body, identifier="m1") == []
    details = function.announcements()
    assert {d["error"] for d in details} == {"InputRejected"}
    assert len({d["id"] for d in details}) == 1


def test_existing_product_is_published_with_its_own_mask(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    without_bus(function).run_batch(created(KEY), identifier="m1")
    function.run_unfinished(created(KEY), identifier="m1")
    (detail,) = function.announcements()
    assert detail["reference"]["mask"] == "crds://jwst_nircam_mask_9002.fits"
    assert detail["reference"]["context"] == CONTEXT


def entry_of(function: Harness) -> dict[str, Any]:
    found = function.aws.client("s3").get_object(
        Bucket=PRODUCTS, Key=f"dq_ledger/{function.product_key()}.json"
    )
    return json.loads(found["Body"].read())


def test_failure_keeps_the_last_result_in_the_ledger(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    detail = function.run(KEY)
    with pytest.raises(InputRejected):
        function.run(KEY, onExisting="error")
    entry = entry_of(function)
    assert entry["failure"]["error"] == "InputRejected"
    assert (entry["result"], entry["catalogue"] is None) == (detail, False)


def test_older_result_does_not_replace_a_newer_entry(function: Harness, exposure: bytes) -> None:
    """The first writer publishes late; meanwhile the product is rebuilt and published."""
    function.upload(exposure, KEY)
    bus = type(function.function.bus)("default", function.aws.client("events"))
    slow = function.with_services(bus=bus)
    newer_results: list[dict[str, Any]] = []

    def meanwhile(**_: Any) -> None:
        if not newer_results:
            newer_results.append({})
            newer_results[0] = function.run(KEY, onExisting="replace")

    bus.client.meta.events.register("before-call.events.PutEvents", meanwhile)
    slow.run(KEY)
    assert entry_of(function)["result"]["id"] == newer_results[0]["id"]


def throttle(function: Harness, operation: str, key: str) -> None:
    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params.get("Key", "").startswith(key):
            raise ClientError({"Error": {"Code": "SlowDown"}}, operation)

    function.function.s3.meta.events.register(f"provide-client-params.s3.{operation}", refuse)


def test_reason_of_an_attempt_is_recorded(
    make_function: Any, function: Harness, exposure: bytes
) -> None:
    throttled = make_function()
    function.upload(exposure, KEY)
    throttle(throttled, "HeadObject", "dq_init/")
    body = json.dumps({"bucket": RAW, "key": KEY, "cause": "a name of their own"})
    assert throttled.run_batch(body, identifier="m1") == ["m1"]
    function.run_unfinished(body, identifier="m1")
    (detail,) = function.announcements()
    assert "SlowDown" in detail["reason"]
    assert detail["cause"] == "a name of their own"


def test_product_deleted_while_rebuilt_is_built_by_a_retry(
    function: Harness, exposure: bytes
) -> None:
    """S3 answers If-Match with 404 then."""
    function.upload(exposure, KEY)
    function.run(KEY)
    s3 = function.aws.client("s3")

    def delete(params: dict[str, Any], **_: Any) -> None:
        if params["Key"] == function.product_key():
            s3.delete_object(Bucket=PRODUCTS, Key=function.product_key())
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "PutObject")

    hooks = function.function.s3.meta.events
    hooks.register("provide-client-params.s3.PutObject", delete)
    with pytest.raises(TransientFailure, match="not written"):
        function.run(KEY, mask=OTHER_MASK)
    hooks.unregister("provide-client-params.s3.PutObject", delete)
    assert function.run(KEY, mask=OTHER_MASK)["status"] == "Complete"


def test_name_that_no_header_can_hold_is_rejected(function: Harness, exposure: bytes) -> None:
    nameless = exposure.replace(b"FILENAME=", b"XILENAME=")
    for content in (exposure, nameless):
        function.upload(content, "café_uncal.fits")
        assert function.run_batch(created("café_uncal.fits")) == []
    assert [d["error"] for d in function.announcements()] == ["InputRejected"] * 2


def test_recorded_failure_is_removed_after_success(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    s3, entry = function.aws.client("s3"), f"dq_ledger/{function.product_key()}.json"
    content = json.loads(s3.get_object(Bucket=PRODUCTS, Key=entry)["Body"].read())
    content["failure"] = {"cause": "m", "error": "TransientFailure", "reason": "r", "at": "t"}
    s3.put_object(Bucket=PRODUCTS, Key=entry, Body=json.dumps(content))
    assert function.run(KEY)["status"] == "Skipped"
    after = json.loads(s3.get_object(Bucket=PRODUCTS, Key=entry)["Body"].read())
    assert after == {**content, "failure": None}


def masks_of(function: Harness) -> tuple[str, str]:
    found = metadata(function)
    return found["mask"].rpartition("/")[2], found["pinned"]


RULES, MINE = "jwst_nircam_mask_9002.fits", "jwst_nircam_mask_9001.fits"


@pytest.mark.slow
def test_upload_event_delivered_again_keeps_a_pinned_product(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run_batch(created(KEY), identifier="m1")
    assert masks_of(function) == (RULES, "false")
    function.run(KEY, mask=OTHER_MASK, onExisting="replace")
    assert masks_of(function) == (MINE, "true")
    function.announcements()
    function.run_batch(created(KEY), identifier="m1", deliveries=2)
    function.run(KEY, context=CONTEXT)
    function.run_unfinished(created(KEY), identifier="m2")
    assert masks_of(function) == (MINE, "true")
    details = function.announcements()
    assert [detail["status"] for detail in details] == ["Skipped"] * 3
    assert all(d["reason"].startswith("pinned: s3://products/dq_init") for d in details)
    assert all("onExisting=replace" in d["reason"] for d in details)


def test_request_for_another_mask_keeps_a_pinned_product(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY, mask=OTHER_MASK)
    assert function.run(KEY, mask="N/A")["status"] == "Skipped"
    assert function.run(KEY, mask=OTHER_MASK)["status"] == "Skipped"
    assert masks_of(function) == (MINE, "true")


def test_skip_names_what_a_product_is_pinned_to(function: Harness, exposure: bytes) -> None:
    flags = BytesIO()
    fits.PrimaryHDU(np.full((64, 64), 2, np.int32)).writeto(flags)
    function.upload(flags.getvalue(), "user.fits")
    function.upload(exposure, KEY)
    advice = "; onExisting=replace replaces it"
    function.run(KEY, mask=OTHER_MASK)
    assert function.run(KEY)["reason"].endswith(f"(mask {OTHER_MASK}){advice}")
    user_dq = f"s3://{RAW}/user.fits"
    function.run(KEY, mask=OTHER_MASK, userSuppliedDq=user_dq, onExisting="replace")
    reason = function.run(KEY)["reason"]
    assert reason.endswith(f"(mask {OTHER_MASK} and user-supplied DQ){advice}")


def test_skipped_pinned_product_clears_an_earlier_failure(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY, mask=OTHER_MASK)
    with pytest.raises(ReferenceUnavailable):
        function.run(KEY, context="jwst_7777.pmap")
    assert entry_of(function)["failure"]
    assert function.run(KEY)["status"] == "Skipped"
    entry = entry_of(function)
    assert (entry["failure"], entry["result"]["status"]) == (None, "Complete")


def test_report_of_a_replaced_upload_keeps_the_newer_failure(
    function: Harness, exposure: bytes
) -> None:
    earlier = function.upload(exposure, KEY)
    later = function.upload(newer(exposure), KEY)
    broken = function.with_settings(context="jwst_7777.pmap")
    assert broken.run_batch(created(KEY, later), identifier="m2") == ["m2"]
    assert function.run_unfinished(created(KEY, earlier), identifier="m1") == []
    assert entry_of(function)["failure"]["cause"] == "m2"
    assert function.run_unfinished(created(KEY, later), identifier="m2") == []
    superseded, failed = function.announcements()
    assert (superseded["status"], failed["error"]) == ("Skipped", "ReferenceUnavailable")


def test_warning_about_the_mask_is_published_after_a_kill(
    function: Harness, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.upload(exposure, KEY)
    body = json.dumps({"bucket": RAW, "key": KEY, "mask": OTHER_MASK})
    with monkeypatch.context() as patched:
        patched.setattr("handler.process.publish_event", killed)
        with pytest.raises(KeyboardInterrupt):
            function.run_batch(body, identifier="m1")
    assert function.run_batch(body, identifier="m1", deliveries=2) == []
    (detail,) = function.announcements()
    assert "is of NIRCAM NRCA1" in detail["reference"]["warning"]


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("asked", [{}, {"mask": "N/A"}])
def test_replace_unpins_unless_it_names_a_mask(
    asked: dict[str, str], function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY, mask=OTHER_MASK)
    function.run(KEY, onExisting="replace", **asked)
    assert masks_of(function) == (("A", "true") if asked else (RULES, "false"))


def test_new_version_replaces_a_pinned_product(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    function.run(KEY, mask=OTHER_MASK)
    version = function.upload(newer(exposure), KEY)
    function.run_batch(created(KEY, version))
    assert masks_of(function) == (RULES, "false")


@pytest.mark.parametrize("asked", [{}, {"mask": OTHER_MASK}])
def test_ledger_rebuilt_from_the_product_keeps_its_pin(
    asked: dict[str, str], function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY, cause="the job", **asked)
    before = entry_of(function)
    assert before["catalogue"]["pinned"] is bool(asked)
    function.aws.client("s3").delete_object(
        Bucket=PRODUCTS, Key=f"dq_ledger/{function.product_key()}.json"
    )
    function.run_event({"bucket": RAW, "key": KEY, "cause": "the job", "reportOnly": True})
    after = entry_of(function)
    assert after["catalogue"] == before["catalogue"]
    assert after["result"]["id"] == before["result"]["id"]


@pytest.mark.parametrize(
    ("asked", "pinned"), [({}, False), ({"mask": "N/A"}, True), ({"userSuppliedDq": "s3://b/k"}, True)]
)  # fmt: skip
def test_entry_without_a_pin_is_read_by_its_request(
    asked: dict[str, str], pinned: bool, function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    content = entry_of(function)
    content["result"]["request"] |= asked
    del content["catalogue"]["pinned"]
    stored = StoredObject(S3Location(PRODUCTS, "x"), "e", 1, {})
    row = Entry.from_json(json.dumps(content).encode(), stored).catalogue
    assert row is not None
    assert row.pinned is pinned


def two_versions_of_one_second(function: Harness, exposure: bytes) -> tuple[str, str]:
    first, second = function.upload(exposure, KEY), function.upload(newer(exposure), KEY)

    def same(parsed: dict[str, Any], **_: Any) -> None:
        if parsed.get("VersionId") in {first, second}:
            parsed["LastModified"] = parsed["LastModified"].replace(year=2023, second=0)

    for operation in ("HeadObject", "GetObject"):
        function.function.s3.meta.events.register(f"after-call.s3.{operation}", same)
    return first, second


def test_older_version_of_one_second_is_superseded(function: Harness, exposure: bytes) -> None:
    first, second = two_versions_of_one_second(function, exposure)
    function.run(KEY)
    old = function.run(KEY, versionId=first)
    assert (old["status"], "is of a newer version" in old["reason"]) == ("Skipped", True)
    assert metadata(function)["input-version"] == second


def test_current_version_of_one_second_replaces_the_older(
    function: Harness, exposure: bytes
) -> None:
    first, second = two_versions_of_one_second(function, exposure)
    assert function.run(KEY, versionId=first)["status"] == "Complete"
    assert function.run(KEY, versionId=second)["status"] == "Complete"
    assert metadata(function)["input-version"] == second
    function.run_unfinished(json.dumps({"bucket": RAW, "key": KEY, "versionId": first}))
    assert statuses(function) == ["Complete", "Complete", "Skipped"]


@pytest.mark.parametrize("mask", [OTHER_MASK, "N/A"])
def test_mask_with_an_unknown_context_is_rejected(
    mask: str, function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    with pytest.raises(ReferenceUnavailable, match=r"jwst_123456789\.pmap"):
        function.run(KEY, mask=mask, context="jwst_123456789.pmap")
    assert function.products() == set()


def test_rejected_exposure_is_published_once_per_cause(function: Harness) -> None:
    """Delivered again, moved to another queue, or reported: one result."""
    function.upload(b"no FITS", KEY)
    body = json.dumps({"bucket": RAW, "key": KEY, "cause": "execution"})
    for _ in range(2):
        assert function.run_batch(body) == []
    assert function.run_unfinished(body) == []
    with pytest.raises(InputRejected):
        function.run_event(json.loads(body))
    assert function.run_event({**json.loads(body), "reportOnly": True})["status"] == "Failed"
    (detail,) = function.announcements()
    assert detail["error"] == "InputRejected"
    assert entry_of(function)["failure"]["published"] is True
    failed = json.dumps({"source": "jwst.dq_init", "detail": detail})
    function.run_batch(failed)
    assert statuses(function) == ["Failed"], "an operator has sent it again"


def test_report_ignores_why_another_request_was_rejected(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.upload(b"no FITS", "flags.fits")
    with pytest.raises(InputRejected):
        function.run(KEY, cause="another", userSuppliedDq=f"s3://{RAW}/flags.fits")
    function.run_unfinished(created(KEY), identifier="m1")
    first, second = function.announcements()
    assert (first["cause"], first["error"]) == ("another", "InputRejected")
    assert (second["cause"], second["error"]) == ("m1", "TransientFailure")
    assert "no attempt left a reason" in second["reason"]


def test_failure_that_the_bus_refused_is_published_later(function: Harness) -> None:
    function.upload(b"no FITS", KEY)
    assert without_bus(function).run_batch(created(KEY), identifier="m1") == ["m1"]
    assert entry_of(function)["failure"]["published"] is False
    function.run_unfinished(created(KEY), identifier="m1")
    assert statuses(function) == ["Failed"]


def test_report_names_what_is_missing_if_others_failed_since(
    make_function: Any, function: Harness, exposure: bytes
) -> None:
    """The ledger holds one reason: a second request for the exposure replaces the first."""
    function.upload(exposure, KEY)
    empty = make_function("an-empty-mirror")
    empty.upload(exposure, KEY)
    for cause in ("backfill", "execution"):
        empty.run_batch(json.dumps({"bucket": RAW, "key": KEY, "cause": cause}))
    for cause in ("backfill", "execution"):
        empty.run_unfinished(json.dumps({"bucket": RAW, "key": KEY, "cause": cause}))
    details = empty.announcements()
    assert {d["error"] for d in details} == {"ReferenceUnavailable"}
    assert [d["cause"] for d in details] == ["backfill", "execution"]


def test_report_gives_the_last_reason_in_the_ledger(
    make_function: Any, function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    empty = make_function("an-empty-mirror")
    empty.upload(exposure, KEY)
    empty.run_batch(created(KEY), identifier="m1")
    function.run_unfinished(created(KEY), identifier="m2")
    assert [d["error"] for d in function.announcements()] == ["ReferenceUnavailable"]


def test_long_cause_is_recognised_by_the_report(function: Harness, exposure: bytes) -> None:
    """The product's metadata hold a digest of a cause of more than 512 characters."""
    function.upload(exposure, KEY)
    body = json.dumps({"bucket": RAW, "key": KEY, "onExisting": "replace", "cause": "c" * 600})
    assert without_bus(function).run_batch(body, identifier="m1") == ["m1"]
    function.aws.client("s3").delete_object(Bucket=RAW, Key=KEY)
    function.run_unfinished(body, identifier="m1")
    assert statuses(function) == ["Complete"]


@pytest.mark.parametrize("status", ["Complete", "Skipped"])
def test_undelivered_result_is_published_as_it_was(
    status: str, function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    function.run(KEY)
    details = {detail["status"]: detail for detail in function.announcements()}
    body = json.dumps({"source": "jwst.dq_init", "detail": details[status]})
    for queue in ("", UNFINISHED):
        assert function.run_batch(body, queue=queue) == []
    assert function.announcements() == [details[status]] * 2


def test_ledger_entry_of_any_size_is_not_read(function: Harness, exposure: bytes) -> None:
    """An entry is 4 KB; a writer of a larger one must not fill the function's memory."""
    function.upload(exposure, KEY)
    product = function.run(KEY)["output"]["bytes"]
    content = {**entry_of(function), "news": "x" * 256 * 1024}
    s3, ledger = function.aws.client("s3"), f"dq_ledger/{function.product_key()}.json"
    s3.put_object(Bucket=PRODUCTS, Key=ledger, Body=json.dumps(content))
    again = function.run(KEY)
    assert again["status"] == "Complete", "it counts as none"
    assert again["function"]["bytesReceived"] <= len(exposure) + product + 256 * 1024
    assert "news" not in entry_of(function)


@pytest.mark.parametrize(
    "card",
    ["1E999", "-1E999", "9" * 60],
    ids=["infinite", "negative", "huge"],
)
def test_value_that_is_unusable_is_left_out_of_the_row(
    card: str, function: Harness, exposure: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    function.upload(exposure, KEY)
    function.run(KEY)
    whole = entry_of(function)["catalogue"]["parameters"]
    at = exposure.index(b"GROUPGAP=")
    damaged = exposure[:at] + f"GROUPGAP= {card}".encode().ljust(80) + exposure[at + 80 :]
    function.upload(damaged, KEY)
    assert function.run(KEY)["status"] == "Complete"
    found = entry_of(function)["catalogue"]["parameters"]
    assert found == {n: v for n, v in whole.items() if n != "META.EXPOSURE.GROUPGAP"}
    assert ("META.EXPOSURE.GROUPGAP is " in caplog.text) == card.isdecimal()  # else no integer
