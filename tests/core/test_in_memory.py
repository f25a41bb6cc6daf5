"""The step in memory, as docs/how-to/library.md shows it, gives the product of the function."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.errors import InputRejected
from core.in_memory import dq_init
from core.mask import Mask
from core.product import Encoding, HeaderValues
from tests.conftest import PROJECT, Harness
from tests.products import undated
from tests.samples.exposures import write_exposure
from tests.samples.masks import MASKS, write_mask
from tests.samples.modes import MODES

MODE = next(mode for mode in MODES if mode.name == "nircam-sub64p")
MASK = "jwst_nircam_mask_9002.fits"


@pytest.mark.slow
def test_docs_example_equals_the_product_of_the_function(
    function: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_exposure(MODE, tmp_path / "x_uncal.fits")
    write_mask(next(mask for mask in MASKS if mask.name == MASK), tmp_path / MASK)
    page = (PROJECT / "docs" / "how-to" / "library.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    block = block.replace("jwst_nircam_mask_0033.fits", MASK)
    exec(block.replace("jwst_1321.pmap", "jwst_9001.pmap"), {})  # noqa: S102
    function.upload(tmp_path / "x_uncal.fits", "x_uncal.fits")
    by_function = function.product(function.run("x_uncal.fits"))
    assert undated((tmp_path / "x_dq_init.fits").read_bytes()) == undated(by_function)


def test_pixeldq_of_the_exposure_is_kept(tmp_path: Path) -> None:
    write_exposure(MODE, tmp_path / "x_uncal.fits")
    mine = np.full((64, 64), 1024, np.uint32)
    with fits.open(tmp_path / "x_uncal.fits", mode="append") as hdus:
        hdus.append(fits.ImageHDU(mine, name="PIXELDQ"))
    values = HeaderValues("x_dq_init.fits", "2026-11-25", "14.0.3", "jwst_9001.pmap", None)
    (tmp_path / "y.fits").write_bytes(
        dq_init((tmp_path / "x_uncal.fits").read_bytes(), None, values)
    )
    np.testing.assert_array_equal(fits.getdata(tmp_path / "y.fits", "PIXELDQ"), mine)


@pytest.mark.parametrize("encoding", ["native", "float32", "float"])
def test_encoding_may_be_a_string(encoding: Any, tmp_path: Path) -> None:
    write_exposure(MODE, tmp_path / "x_uncal.fits")
    content = (tmp_path / "x_uncal.fits").read_bytes()
    values = HeaderValues("x_dq_init.fits", "2026-11-25", "14.0.3", "jwst_9001.pmap", None)
    if encoding == "float":
        with pytest.raises(ValueError, match="'float' is not a valid Encoding"):
            dq_init(content, None, values, encoding)
        return
    expected = dq_init(content, None, values, Encoding(encoding))
    assert dq_init(content, None, values, encoding) == expected


def test_mask_without_its_name_is_rejected() -> None:
    values = HeaderValues("x_dq_init.fits", "2026-11-25", "14.0.3", "jwst_9001.pmap", "crds://x")
    with pytest.raises(ValueError, match=r"values\.mask is 'crds://x' without a mask"):
        dq_init(b"", None, values)
    mask = Mask("x", np.zeros((1, 1), np.uint32), "NIRCAM", None)
    with pytest.raises(ValueError, match=r"values\.mask is None with a mask"):
        dq_init(b"", mask, replace(values, mask=None))


def test_file_that_is_not_fits_is_rejected_by_name() -> None:
    values = HeaderValues("x_dq_init.fits", "2026-11-25", "14.0.3", "jwst_9001.pmap", None)
    with pytest.raises(InputRejected, match=r"x_dq_init\.fits"):
        dq_init(b"nothing", None, values)


def test_mask_of_another_detector_is_used_with_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_exposure(MODE, tmp_path / "x_uncal.fits")
    sample = next(mask for mask in MASKS if mask.name == MASK)
    write_mask(replace(sample, detector="NRCA1"), tmp_path / "other.fits")
    values = HeaderValues("x_dq_init.fits", "2026-11-25", "14.0.3", "jwst_9001.pmap", "crds://x")
    mask = Mask.from_bytes((tmp_path / "other.fits").read_bytes(), "other.fits")
    assert dq_init((tmp_path / "x_uncal.fits").read_bytes(), mask, values)
    assert (
        "other.fits: the mask is of NIRCAM NRCA1, but x_dq_init.fits is of NIRCAM NRC"
        in caplog.text
    )
