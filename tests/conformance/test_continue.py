"""The code of docs/continue-with-jwst.md, where jwst is installed (``make conformance``)."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from infra.demo.samples import write_server_config
from tests.conformance.cases import write_case
from tests.conformance.matrix import matrix
from tests.jwst import CONTINUE, Jwst
from tests.samples.mirror import write_rules

ROOT = Path(__file__).parents[2]
JWST = ROOT / ".venv-jwst" / "bin" / "python"
PAGE = ROOT / "docs" / "continue-with-jwst.md"

pytestmark = pytest.mark.skipif(not JWST.exists(), reason="make .venv-jwst/done installs jwst")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which all code of the page has run, with a rate image of the raw file."""
    folder = tmp_path_factory.mktemp("page") / "case"
    window = ["NIRCam", "NRCB1", "NRCB1_SUB64P", 1851, 1817, 64, 64]
    case = next(case for row, case in matrix([window]) if case.name == "ramp-nrcb1-sub64p")
    mask = {"shape": [64, 64], "header": {"INSTRUME": "NIRCAM"}, "style": "own"}
    mask["header"] |= {name: case.header[name] for name in ("SUBSTRT1", "SUBSTRT2")}
    mask["header"] |= {"SUBSIZE1": 64, "SUBSIZE2": 64}
    write_case(replace(case, mask=mask, by="mask"), folder)
    shutil.copy(folder / "exposure_uncal.fits", folder / "x_uncal.fits")
    shutil.copy(folder / "mask.fits", folder / "jwst_nircam_mask_0033.fits")
    product, *of_jwst = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(product, {})  # noqa: S102  # the code of the page
    cache = folder / "cache"
    write_rules(cache)
    write_server_config(cache)
    raw = (
        "from jwst.pipeline import Detector1Pipeline\n"
        'Detector1Pipeline.call("x_uncal.fits", output_file="raw", save_results=True)\n'
    )
    Jwst(JWST, CONTINUE, cache).run(folder, code="\n".join([*of_jwst, raw]))
    return folder


@pytest.mark.parametrize("made", ["x_rate.fits", "x_steps_rate.fits"])
def test_rate_image_of_product_equals_that_of_raw(folder: Path, made: str) -> None:
    with fits.open(folder / made) as ours, fits.open(folder / "raw_rate.fits") as theirs:
        assert np.isfinite(theirs["SCI"].data).any()
        assert (theirs["DQ"].data & 1).any()
        for name in ("SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE"):
            assert np.array_equal(ours[name].data, theirs[name].data, equal_nan=True), name


@pytest.mark.parametrize(
    ("made", "status"), [("x_rate.fits", "SKIPPED"), ("x_steps_rate.fits", "COMPLETE")]
)
def test_rate_image_says_what_became_of_dq_init(folder: Path, made: str, status: str) -> None:
    assert fits.getval(folder / made, "S_DQINIT") == status
