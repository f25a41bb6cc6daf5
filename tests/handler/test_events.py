import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import InputRejected
from core.product import NO_MASK, Form
from handler.events import ExposureRequest, Mode, OnExisting, decode, read_request, split
from handler.s3.objects import S3Location

EVENTS = Path(__file__).parents[1] / "events"
VERSION = "096fKKXTRTtl3on89fVO.nfljtsv6qko"


def requests_in(event: Any) -> list[ExposureRequest]:
    return [read_request(part) for part in split(event)]


def event(name: str) -> dict[str, Any]:
    return json.loads((EVENTS / f"{name}.json").read_text())


def test_key_of_an_s3_notification_is_form_decoded() -> None:
    (request,) = requests_in(event("s3-notification"))
    assert request.source == S3Location("raw-exposures", "2023/a b+c %d_uncal.fits", VERSION)


def test_key_of_an_eventbridge_event_is_verbatim() -> None:
    (request,) = requests_in(event("eventbridge-object-created"))
    assert request.source == S3Location("raw-exposures", "2023/a b+c %d_uncal.fits", VERSION)


def test_event_without_version_names_none() -> None:
    created = event("eventbridge-object-created")
    del created["detail"]["object"]["version-id"]
    assert requests_in(created)[0].source.version_id is None


def test_notification_with_three_records_is_split() -> None:
    notification = event("s3-notification")
    notification["Records"] *= 3
    assert len(requests_in(decode(json.dumps(notification)))) == 3


@pytest.mark.parametrize(
    "nothing",
    [
        event("s3-test-event"),
        {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete"}]},
        {"source": "aws.s3", "detail-type": "Object Deleted"},
    ],
)
def test_event_without_new_object_is_ignored(nothing: dict[str, Any]) -> None:
    assert requests_in(nothing) == []


def test_direct_request_with_every_field_is_read() -> None:
    (request,) = requests_in(
        {
            "bucket": "raw",
            "key": "a b_uncal.fits",
            "versionId": "v1",
            "context": "jwst_1321.pmap",
            "mask": "s3://masks/my mask.fits",
            "userSuppliedDq": "s3://masks/user.fits",
            "onExisting": "error",
            "outputKey": "elsewhere/out.fits",
            "form": "assembled",
            "cause": "execution-1",
            "retried": True,
            "reportOnly": True,
        }
    )
    assert request == ExposureRequest(
        S3Location("raw", "a b_uncal.fits", "v1"),
        "jwst_1321.pmap",
        S3Location("masks", "my mask.fits"),
        S3Location("masks", "user.fits"),
        OnExisting.ERROR,
        "elsewhere/out.fits",
        Form.ASSEMBLED,
        cause="execution-1",
        mode=Mode.REPORT,
    )


def test_direct_request_may_name_no_mask() -> None:
    assert requests_in({"bucket": "b", "key": "k", "mask": "N/A"})[0].mask == NO_MASK


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "bucket is missing"),
        ({"bucket": "b"}, "key is missing"),
        ({"bucket": "b", "key": ""}, "key is ''"),
        ({"bucket": "b", "key": 5}, "key is '5', expected text"),
        ({"bucket": "b", "key": "k\ud800"}, "key is not UTF-8 text"),
        ({"bucket": "b", "key": "k" * 1025}, "key has 1025 bytes .*expected at most 1024"),
        ({"bucket": "b", "key": "k", "outputKey": "é" * 600}, "outputKey has 1200 bytes"),
        (
            {"bucket": "b", "key": "k", "mask": "s3://masks/mäsk.fits"},
            "expected ASCII: R_MASK holds it",
        ),
        ({"bucket": "b", "key": "k", "retried": "yes"}, "retried is 'yes', expected true or false"),
        (None, "event: is not a JSON object"),
        ([], "event: is not a JSON object"),
        ({"Records": [1]}, "S3 notification: lacks bucket.name or object.key"),
        ({"Records": {}}, "S3 notification: lacks bucket.name or object.key"),
        ({"Records": 1}, "S3 notification: lacks bucket.name or object.key"),
        (
            {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": 5}}}]},
            "S3 notification: ",
        ),
        (
            {
                "source": "aws.s3",
                "detail-type": "Object Created",
                "detail": {"bucket": {"name": "b"}, "object": {"key": 5}},
            },
            "key is '5', expected text",
        ),
        (
            {"source": "jwst.dq_init", "detail": {"status": "Complete"}},
            "Complete names no failed request, expected a Failed event",
        ),
        (
            {"bucket": "b", "key": "k", "msak": "N/A"},
            "unknown fields 'msak', expected bucket, key, ",
        ),
        (
            {"bucket": "b", "key": "k", "mask": "/etc/passwd"},
            "mask: '/etc/passwd': expected s3://bucket/key",
        ),
        ({"bucket": "b", "key": "k", "context": "../x.pmap"}, "context is '../x.pmap'"),
        (
            {"bucket": "b", "key": "k", "onExisting": "ask"},
            "onExisting is 'ask', expected one of skip",
        ),
        ({"Records": [{"eventName": "ObjectCreated:Put", "s3": {}}]}, "S3 notification: lacks"),
        (
            {"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {}}},
            "EventBridge event: lacks bucket.name",
        ),
    ],
)
def test_unreadable_request_is_rejected(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputRejected, match=message):
        requests_in(bad)


@pytest.mark.parametrize("body", ["", "not JSON", "[" * 100_000])
def test_body_that_is_not_json_is_rejected(body: str) -> None:
    with pytest.raises(InputRejected, match="its body is not JSON"):
        decode(body)


def target(key: str, **fields: Any) -> S3Location:
    return ExposureRequest(S3Location("raw", key, "v1"), **fields).target("products", "dq_init/")


def test_product_keeps_the_folder_of_its_input() -> None:
    assert target("2023/03/jw01_nrca1_uncal.fits").key == "dq_init/2023/03/jw01_nrca1_dq_init.fits"
    assert target("jw01_uncal.fits").key == "dq_init/jw01_dq_init.fits"
    assert target("a/jw01_uncal.fits") != target("b/jw01_uncal.fits")
    assert target("jw01.fits", output_key="dq_init/x.fits") == S3Location(
        "products", "dq_init/x.fits"
    )


@pytest.mark.parametrize("key", ["dq_init/a_uncal.fits", "dq_init/_uncal.fits"])
def test_product_at_an_input_key_is_rejected(key: str) -> None:
    with pytest.raises(InputRejected, match="expected a key that does not end in _uncal"):
        target("jw01_uncal.fits", output_key=key)


@pytest.mark.parametrize("key", ["x.fits", "dq_ledger/x.json", "dq_blocks/1/x", "dq_init/"])
def test_product_outside_the_prefix_is_rejected(key: str) -> None:
    with pytest.raises(InputRejected, match="expected a key below 'dq_init/'"):
        target("jw01_uncal.fits", output_key=key)


def test_product_in_place_of_its_input_is_rejected() -> None:
    request = ExposureRequest(S3Location("raw", "jw01.fits", "v1"), output_key="jw01.fits")
    with pytest.raises(InputRejected, match="expected a key that does not end in _uncal"):
        request.target("raw", "")


def test_key_of_at_most_1024_bytes_is_accepted() -> None:
    key = "dq_init/" + "é" * 508
    (request,) = requests_in({"bucket": "b", "key": key, "outputKey": key})
    assert (request.source.key, request.output_key) == (key, key)
    assert target("jw01_uncal.fits", output_key=key).key == key
    with pytest.raises(InputRejected, match="would have 1025 bytes, expected at most 1024"):
        target("jw01_uncal.fits", output_key=f"{key}x")


@pytest.mark.parametrize(
    "request_",
    [
        ExposureRequest(S3Location("raw", "k_uncal.fits"), mask=NO_MASK),
        ExposureRequest(
            S3Location("raw", "k_uncal.fits", "v1"),
            "jwst_1321.pmap",
            S3Location("masks", "m.fits"),
            S3Location("masks", "user.fits"),
            OnExisting.REPLACE,
            "dq_init/k_virtual.fits",
            Form.VIRTUAL,
        ),
    ],
    ids=["no mask", "every field"],
)
def test_failed_event_is_read_as_its_request(request_: ExposureRequest) -> None:
    failed = {
        "source": "jwst.dq_init",
        "detail": {"status": "Failed", "request": request_.to_direct()},
    }
    assert requests_in(failed) == [request_]


@pytest.mark.parametrize("context", ["latest", "jwst-latest", "jwst-operational", "jwst-build"])
def test_request_takes_the_contexts_that_crds_takes(context: str) -> None:
    request = read_request({"bucket": "b", "key": "k", "context": context})
    assert request.context == context
