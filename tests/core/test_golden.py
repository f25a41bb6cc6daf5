"""Golden cases: recorded results of `jwst` 3.0.0, compared without jwst.

tests/handler/crds/test_golden.py replays the cases whose mask the CRDS rules choose.
"""

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.errors import InputRejected, ReferenceUnavailable
from core.fits.hdus import reader_of
from core.fits.pixels import user_dq_image
from core.in_memory import dq_init, read_exposure
from core.mask import Mask
from core.product import Encoding, HeaderValues, compose
from core.step import initialize
from core.virtual import Source, pack
from tests.conformance.cases import Stable
from tests.conformance.golden import (
    golden_cases,
    inputs_digest,
    product_differences,
    read_golden,
    refusal_difference,
)
from tests.conformance.odd import ODD, write_inputs
from tests.products import expand
from tests.samples.mirror import CONTEXT

_, LINES = read_golden()
EXPLAINED = {odd.what for odd in ODD if odd.on_purpose}
REPLAYED = [
    line for line in LINES if line["case"]["by"] != "rules" and line["odd"] not in EXPLAINED
]


def identifier(line: dict[str, Any]) -> str:
    return str(line["odd"] or line["case"]["name"])


def process(case: dict[str, Any], folder: Path, encoding: Encoding) -> bytes:
    contents = {path.stem: path.read_bytes() for path in folder.glob("*.fits")}
    mask = Mask.from_bytes(contents["mask"], "mask.fits") if case["by"] == "mask" else None
    user = user_dq_image(contents["user_dq"], "user_dq.fits") if "user_dq" in contents else None
    label = "crds://mask.fits" if mask else None
    values = HeaderValues("x_dq_init.fits", "2026-11-28T00:00:00.000", "14", CONTEXT, label)
    raw = contents["exposure_uncal"]
    product = dq_init(raw, mask, values, encoding, user)
    assert expand(virtual_product(raw, mask, values, encoding, user), raw) == product
    return product


def virtual_product(
    raw: bytes, mask: Mask | None, values: HeaderValues, encoding: Encoding, user: Any
) -> bytes:
    exposure = read_exposure(raw, "x")
    quality = initialize(exposure, mask, exposure.existing_image(reader_of(raw)), user)
    layout = compose(exposure, quality, values, encoding)
    return pack(layout, Source("raw", "x_uncal.fits", "e", "", len(raw)), exposure)


def wrong_checksums(product: Path) -> list[str]:
    """Return the HDUs whose CHECKSUM or DATASUM is wrong."""
    with fits.open(product) as hdus, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [hdu.name for hdu in hdus if hdu.verify_checksum() == 0 or hdu.verify_datasum() == 0]


def test_golden_file_holds_exactly_the_cases() -> None:
    cases = [(odd, json.loads(json.dumps(asdict(case)))) for odd, case in golden_cases()]
    assert [(line["odd"], line["case"]) for line in LINES] == cases, "run make conformance"


def encodings(line: dict[str, Any]) -> list[Encoding]:
    """Return both encodings for an odd case, one of them for a random case.

    ``make conformance`` compares every case in both.
    """
    both = list(Encoding)
    return both if line["odd"] else [both[line["case"]["seed"] % 2]]


@pytest.mark.parametrize("line", REPLAYED, ids=identifier)
def test_golden_case_equals_the_result_of_jwst(line: dict[str, Any], tmp_path: Path) -> None:
    folder, product = tmp_path / "case", tmp_path / "product.fits"
    write_inputs(line["odd"], line["case"], folder)
    if line["inputs"]:
        assert inputs_digest(folder) == line["inputs"], "golden.jsonl is old; run make conformance"
    for encoding in encodings(line):
        try:
            content = process(line["case"], folder, encoding)
        except (InputRejected, ReferenceUnavailable) as exc:
            message = str(exc)
            assert not refusal_difference(line, message)
        else:
            product.write_bytes(content)
            assert product_differences(line, product, encoding is Encoding.NATIVE) == []
            assert wrong_checksums(product) == []


def test_random_numbers_are_the_same_on_every_platform() -> None:
    assert Stable(1).integers(0, 1000, 4).tolist() == [37, 235, 908, 72]
    assert np.isclose(Stable(1).random(), 0.417022004702574)
