"""Every mode, from the uploaded file to the product and its event, pixel by pixel.

With `../shared/data`, real headers, the real rules of jwst_0541 and a real mask are used as
well; without it the project's own material covers the same modes.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core import __version__
from core.errors import ReferenceUnavailable
from infra.demo.local_aws import MIRROR, copy_cache
from tests.conftest import SHARED, Harness
from tests.reference_step import check_product, expected_image
from tests.samples.exposures import sample_name, write_exposure
from tests.samples.mirror import CONTEXT
from tests.samples.modes import MODES, Mode

pytestmark = pytest.mark.slow

MODELS = {"ramp": "RampModel", "superstripe": "SuperstripeRampModel", "guider": "GuiderRawModel"}
GUIDER_SHAPES = {  # (nints, ngroups) are fewer than in the headers, images are whole
    "fgs_acq1": (6, 2, 128, 128),
    "fgs_acq2": (5, 2, 32, 32),
    "fgs_fineguide": (16, 8, 8, 8),
    "fgs_id-image": (2, 2, 2048, 2024),
    "fgs_id-stack": (2, 2, 2048, 2304),
    "fgs_track": (12, 2, 32, 32),
}

CHOSEN = {
    "nircam-full": "jwst_nircam_mask_9001.fits",
    "niriss-ami": "jwst_niriss_mask_9002.fits",
    "niriss-soss": "jwst_niriss_mask_9001.fits",
    "nirspec-irs2": "jwst_nirspec_mask_9002.fits",
    "nirspec-s1600a1": "jwst_nirspec_mask_9001.fits",
    "miri-full": "jwst_miri_mask_9002.fits",
    "fgs1-id-image": "jwst_fgs_mask_9001.fits",
    "fgs1-id-stack": "jwst_fgs_mask_9002.fits",
}
"""Masks by mode; the rules match on four parameters."""


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_product_of_every_mode_has_the_flags_of_its_mask(
    mode: Mode, function: Harness, sample_cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / sample_name(mode)
    write_exposure(mode, path)
    function.upload(path, path.name)
    detail = function.run(path.name)
    name = detail["reference"]["mask"].removeprefix("crds://")
    assert name == CHOSEN.get(mode.name, name)
    mask = sample_cache / "references" / "jwst" / mode.instrument.lower() / name
    product = function.product(detail)
    image = expected_image(path.read_bytes(), mask)
    check_product(path.read_bytes(), product, image)

    assert [event["status"] for event in function.announcements()] == ["Complete"]
    assert detail["flags"]["doNotUse"] == np.count_nonzero(image & 1)
    assert detail["output"]["bytes"] == len(product)
    header = fits.getheader(BytesIO(product))
    assert header["DATAMODL"] == MODELS[detail["exposure"]["kind"]]
    assert header["FILENAME"] == path.name.replace("_uncal", "_dq_init")
    assert header["R_MASK"] == f"crds://{name}"
    assert header["S_DQINIT"] == "COMPLETE"
    assert header["CRDS_CTX"] == CONTEXT
    assert __version__ in str(header["HISTORY"])


def real_exposure(source: Path, shape: tuple[int, ...], **changes: Any) -> bytes:
    """A real `_uncal` file, its pixels brought back to full size."""
    rng = np.random.default_rng(5)
    with fits.open(source) as hdus:
        hdus["SCI"].data = rng.integers(0, 65536, size=shape, dtype=np.uint16)
        hdus[0].header.update({"NINTS": shape[0], "NGROUPS": shape[1], **changes})
        buffer = BytesIO()
        hdus.writeto(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def real_mirror(real_cache: Path, aws: Any, mirrors: set[str]) -> str:
    prefix = "real/jwst-0541"
    copy_cache(real_cache, aws.client("s3"), MIRROR, f"{prefix}/")
    mirrors.add(prefix)
    return prefix


@pytest.mark.parametrize("groups", [1, 3])
def test_real_headers_real_rules_and_the_real_nircam_mask(
    groups: int, make_function: Any, real_mirror: str, real_cache: Path
) -> None:
    function = make_function(real_mirror)
    source = SHARED / "uncal-headers" / "jw01075001001_03105_00009_nrca3_uncal.fits"
    exposure = real_exposure(source, (1, groups, 2048, 2048), DETECTOR="NRCA1")
    function.upload(exposure, "real_uncal.fits")
    detail = function.run("real_uncal.fits")
    assert detail["reference"]["context"] == "jwst_0541.pmap"
    assert detail["reference"]["mask"] == "crds://jwst_nircam_mask_0033.fits"
    assert detail["reference"]["sha1"] == "708beca28cfd9be44cb24058527142375247b66b"
    # Counted in the file: of the bits that its pixels carry, DQ_DEF names 1, 2 and 16384 alone
    # (bit 1024, DEAD by the standard, is not among them).
    flags = {"DO_NOT_USE": 7401, "RC": 92401, "REFERENCE_PIXEL": 32704}
    counts = detail["flags"]["byMnemonic"]
    assert {name: count["pixels"] for name, count in counts.items()} == flags
    mask = real_cache / "references" / "jwst" / "nircam" / "jwst_nircam_mask_0033.fits"
    check_product(exposure, function.product(detail), expected_image(exposure, mask))


@pytest.mark.parametrize("name", GUIDER_SHAPES)
def test_real_guider_headers(name: str, make_function: Any, tmp_path: Path) -> None:
    source = SHARED / "uncal-headers" / f"{name}_guider1.fits"
    if not source.exists():
        pytest.skip(
            "the real CRDS rules are not here: the fgs1 modes above cover the six guider types"
        )
    function = make_function()
    exposure = real_exposure(source, GUIDER_SHAPES[name])
    function.upload(exposure, f"{name}_uncal.fits")
    detail = function.run(f"{name}_uncal.fits")
    assert detail["exposure"]["kind"] == "guider"
    mask = tmp_path / "mask.fits"
    answer = function.aws.client("s3").get_object(
        Bucket=MIRROR,
        Key=f"references/jwst/fgs/{detail['reference']['mask'].removeprefix('crds://')}",
    )
    mask.write_bytes(answer["Body"].read())
    check_product(exposure, function.product(detail), expected_image(exposure, mask))


def test_real_rules_name_a_mask_that_the_mirror_lacks(make_function: Any, real_mirror: str) -> None:
    function = make_function(real_mirror)
    source = SHARED / "uncal-headers" / "fgs_acq2_guider1.fits"
    function.upload(real_exposure(source, (5, 2, 32, 32)), "g_uncal.fits")
    with pytest.raises(ReferenceUnavailable, match=r"jwst_fgs_mask_0025\.fits.*no such object"):
        function.run("g_uncal.fits")
