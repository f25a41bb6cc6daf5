"""Golden cases: the function chooses the mask and the product that `jwst` 3.0.0 made."""

from pathlib import Path
from typing import Any

import pytest

from core.product import Encoding
from infra.demo.local_aws import MIRROR, LocalAws, copy_cache
from tests.conformance.cases import Case
from tests.conformance.golden import product_differences, read_golden, refusal_difference
from tests.conformance.matrix import MASKS, MATRIX_RULES
from tests.conformance.odd import ODD, write_inputs
from tests.conformance.ours import Ours
from tests.samples.masks import write_mask
from tests.samples.mirror import write_rules, write_server_config

EXPLAINED = {odd.what for odd in ODD if odd.on_purpose}
RULED = [
    line
    for line in read_golden()[1]
    if line["case"]["by"] == "rules" and line["odd"] not in EXPLAINED
]


@pytest.fixture(scope="module")
def ours(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Ours:
    cache = tmp_path_factory.mktemp("golden")
    write_rules(cache, rules=MATRIX_RULES)
    (mask,) = (mask for mask in MASKS if mask.detector == "NRCB1")
    write_mask(mask, cache / "references" / "jwst" / "nircam" / mask.name)
    write_server_config(cache)
    copy_cache(cache, aws.client("s3"), MIRROR, "golden/")
    return Ours.of(aws, tmp_path_factory.mktemp("scratch"), "golden")


@pytest.mark.parametrize("line", RULED, ids=lambda line: line["odd"])
def test_golden_case_by_rules_gives_what_jwst_makes(
    line: dict[str, Any], ours: Ours, tmp_path: Path
) -> None:
    folder, path = tmp_path / "case", tmp_path / "product.fits"
    write_inputs(line["odd"], line["case"], folder)
    for encoding in Encoding:
        product = ours.product(folder, Case(**line["case"]), encoding)
        if isinstance(product, str):
            assert not refusal_difference(line, product)
        else:
            path.write_bytes(product)
            assert product_differences(line, path, encoding is Encoding.NATIVE) == []
