"""The function with form=virtual: one small object, which expands to the assembled product."""

import io
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.errors import InputRejected
from core.product import Encoding, Form
from infra.demo.local_aws import PRODUCTS
from tests.conftest import Harness
from tests.products import expand, undated
from tests.samples.exposures import write_exposure
from tests.samples.modes import MODES

KEY = "2023/jw01_uncal.fits"
VIRTUAL = "dq_init/2023/jw01_dq_init_virtual.fits"
ASSEMBLED = "dq_init/2023/jw01_dq_init.fits"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_virtual_product_expands_to_the_assembled_one(
    mode: Any, encoding: Encoding, function: Harness, tmp_path: Any
) -> None:
    function = function.with_settings(encoding=encoding)
    write_exposure(mode, tmp_path / "x.fits")
    exposure = (tmp_path / "x.fits").read_bytes()
    function.upload(exposure, KEY)
    detail = function.run(KEY, form="virtual")
    assert detail["output"]["key"] == VIRTUAL
    assert detail["output"]["form"] == "virtual"
    virtual = function.product(detail)
    assembled = function.run(KEY)
    assert assembled["output"]["form"] == "assembled"
    assert assembled["flags"] == detail["flags"]
    assert undated(expand(virtual, exposure)) == undated(function.product(assembled))
    assert {a["output"]["key"] for a in function.announcements()} == {VIRTUAL, ASSEMBLED}


def test_virtual_product_is_small_and_one_put(function: Harness, large: bytes) -> None:
    function.upload(large, KEY)
    requests: list[str] = []
    function.function.s3.meta.events.register(
        "before-call.s3", lambda model, **_: requests.append(model.name)
    )
    detail = function.run(KEY, form="virtual")
    assert requests.count("PutObject") == 2  # the product and its ledger entry
    assert not {"CreateMultipartUpload", "UploadPart"} & set(requests)
    assert detail["output"]["bytes"] < len(large) / 20


def test_form_of_the_settings_is_the_default(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    virtual = function.with_settings(form=Form.VIRTUAL)
    assert virtual.run(KEY)["output"]["key"] == VIRTUAL
    assert virtual.run(KEY, form="assembled")["output"]["key"] == ASSEMBLED
    named = virtual.run(KEY, outputKey="dq_init/other_dq_init_virtual.fits")
    assert named["request"]["outputKey"] == "dq_init/other_dq_init_virtual.fits"


@pytest.mark.parametrize(
    "fields",
    [
        {"form": "zipped"},
        {"form": "virtual", "outputKey": "dq_init/x_dq_init.fits"},
        {"form": "assembled", "outputKey": "dq_init/x_virtual.fits"},
    ],
)
def test_wrong_form_is_rejected(fields: dict[str, str], function: Harness) -> None:
    with pytest.raises(InputRejected, match="form is"):
        function.run(KEY, **fields)


def test_repeated_request_keeps_a_virtual_product(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY, form="virtual")
    again = function.run(KEY, form="virtual")
    assert again["status"] == "Skipped"
    # Without its ledger entry, the product is read and published once more, under its id.
    s3 = function.aws.client("s3")
    (entry,) = (
        item["Key"] for item in s3.list_objects_v2(Bucket=PRODUCTS, Prefix="dq_ledger/")["Contents"]
    )
    s3.delete_object(Bucket=PRODUCTS, Key=entry)
    once_more = function.run(KEY, form="virtual")
    assert once_more["status"] == "Complete"
    for part in ("id", "flags", "exposure", "output"):
        assert once_more[part] == first[part]


def test_exhausted_virtual_product_is_reported(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    first = function.run(KEY, form="virtual", cause="the same")
    s3 = function.aws.client("s3")
    (entry,) = (
        item["Key"] for item in s3.list_objects_v2(Bucket=PRODUCTS, Prefix="dq_ledger/")["Contents"]
    )
    s3.delete_object(Bucket=PRODUCTS, Key=entry)
    s3.delete_object(Bucket="raw-exposures", Key=KEY)
    reported = function.run(KEY, form="virtual", cause="the same", reportOnly=True)
    assert (reported["status"], reported["id"]) == ("Complete", first["id"])
    assert reported["exposure"] == first["exposure"]


def test_flags_of_a_virtual_product_are_an_image(function: Harness, exposure: bytes) -> None:
    function.upload(exposure, KEY)
    virtual = function.product(function.run(KEY, form="virtual"))
    whole = function.product(function.run(KEY))
    with fits.open(io.BytesIO(virtual)) as small, fits.open(io.BytesIO(whole)) as expected:
        np.testing.assert_array_equal(small["PIXELDQ"].data, expected["PIXELDQ"].data)
        assert small[0].header["R_MASK"] == expected[0].header["R_MASK"]
