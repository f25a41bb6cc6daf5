"""The number of S3 requests for one exposure, which decides its cost."""

from collections import Counter
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from handler.s3.assembly import plan_parts
from handler.s3.blocks import Blocks
from handler.s3.objects import S3Location
from infra.demo.local_aws import PRODUCTS
from tests.conftest import Harness
from tests.handler.s3.test_parts import full_frame
from tests.samples.exposures import asdf_hdu, primary_header, write_exposure
from tests.samples.modes import MODES

MODE = {mode.name: mode for mode in MODES}
KEY = "2023/jw01_uncal.fits"
GETS = {"HeadObject", "GetObject"}


@pytest.fixture
def counted(function: Harness) -> Counter[str]:
    """Return the S3 operations of the function."""
    found: Counter[str] = Counter()
    hooks = function.function.s3.meta.events
    hooks.register("before-call.s3", lambda model, **_: found.update([model.name]))
    return found


def classes(counted: Counter[str]) -> tuple[int, int]:
    """Return the number of PUT-class and GET-class requests since the last call."""
    gets = sum(count for name, count in counted.items() if name in GETS)
    puts = sum(counted.values()) - gets
    counted.clear()
    return puts, gets


def exposure_of(groups: int) -> bytes:
    sci = np.zeros((1, groups, 2048, 2048), np.uint16)
    buffer = BytesIO()
    primary = fits.PrimaryHDU(header=primary_header(MODE["nircam-full"]))
    fits.HDUList([primary, fits.ImageHDU(sci, name="SCI"), asdf_hdu()]).writeto(buffer)
    return buffer.getvalue()


def test_small_exposure_takes_two_puts(
    function: Harness, counted: Counter[str], tmp_path: Any
) -> None:
    write_exposure(MODE["nircam-sub64p"], tmp_path / "x.fits")
    for number in range(3):
        function.upload(tmp_path / "x.fits", f"{number}_uncal.fits")
    function.run("0_uncal.fits")
    counted.clear()
    function.run("1_uncal.fits")
    assert classes(counted) == (2, 2), (
        "the product, the ledger; HEAD of the product, GET of the exposure"
    )
    function.run("1_uncal.fits")
    assert classes(counted) == (0, 3), "a repeated event reads the ledger"
    function.run("1_uncal.fits", onExisting="replace")
    assert classes(counted) == (2, 3), "an existing entry is read and replaced"


@pytest.mark.slow
def test_exposure_of_92_mb_takes_at_most_nine_puts(
    function: Harness, counted: Counter[str]
) -> None:
    function = function.with_services(blocks=Blocks(S3Location(PRODUCTS, "dq_blocks")))
    content = exposure_of(11)
    for number in range(2):
        function.upload(content, f"{number}_uncal.fits")
    function.run("0_uncal.fits")
    counted.clear()
    function.run("1_uncal.fits")
    puts, gets = classes(counted)
    assert puts <= 9
    assert gets <= 4


def test_plans_of_large_exposures_limit_their_puts() -> None:
    """Creating and completing the upload and the ledger add three to the parts."""
    assert len(plan_parts(full_frame(100))) + 3 <= 20
    assert len(plan_parts(full_frame(500))) + 3 <= 58
