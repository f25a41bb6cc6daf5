"""The code of docs/how-to/use-products.md and events.md does what the pages say."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.errors import InputRejected
from infra.demo.local_aws import PRODUCTS
from tests.conftest import PROJECT, Harness
from tests.jwst import Jwst

DOCS = PROJECT / "docs" / "how-to"
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "use-products.md").read_text(), re.DOTALL)


def test_docs_show_how_to_read_flags(
    function: Harness, exposure: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    function.upload(exposure, "x_uncal.fits")
    detail = function.run("x_uncal.fits")
    (tmp_path / "x.fits").write_bytes(function.product(detail))
    (block,) = (block for block in BLOCKS if "PIXELDQ" in block)
    names: dict[str, Any] = {}
    capsys.readouterr()
    exec(block.replace("jw..._dq_init.fits", str(tmp_path / "x.fits")), names)  # noqa: S102
    counts = detail["flags"]["byMnemonic"]
    printed = f"{detail['flags']['doNotUse']} {counts['DEAD']['doNotUse']}\n"
    assert capsys.readouterr().out == printed
    assert np.count_nonzero(names["dead"]) == counts["DEAD"]["pixels"]
    assert fits.getval(tmp_path / "x.fits", "S_DQINIT") == "COMPLETE"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tried to parse AWS..SQS..QueuePolicy")  # moto has none
def test_docs_show_how_to_store_each_result_once(
    function: Harness, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template and the code of events.md, on the embedded AWS: an event is published twice."""
    page = (DOCS / "events.md").read_text()
    (template,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    stacks, names = function.aws.client("cloudformation"), {}
    stacks.create_stack(StackName="consumer", TemplateBody=template)
    try:
        (stack,) = stacks.describe_stacks(StackName="consumer")["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        function.upload(exposure, "x_uncal.fits")
        detail = function.run("x_uncal.fits")
        with pytest.raises(InputRejected):
            function.run("none_uncal.fits")
        republish(function, detail)
        exec(code, names)  # noqa: S102
        assert names["consume"](outputs["Results"], outputs["Table"]) == 2
        republish(function, detail)
        assert names["consume"](outputs["Results"], outputs["Table"]) == 0
        rows = function.aws.client("dynamodb").scan(TableName=outputs["Table"])["Items"]
    finally:
        stacks.delete_stack(StackName="consumer")
    complete, failed = sorted(rows, key=lambda row: row["status"]["S"])
    assert complete == {
        "id": {"S": detail["id"]},
        "status": {"S": "Complete"},
        "product": {"S": f"s3://{PRODUCTS}/dq_init/x_dq_init.fits"},
        "doNotUse": {"N": str(detail["flags"]["doNotUse"])},
    }
    assert failed["reason"]["S"].startswith("InputRejected: ")


def republish(function: Harness, detail: dict[str, Any]) -> None:
    """Deliver an event once more, as EventBridge may."""
    entry = {
        "Source": "jwst.dq_init",
        "DetailType": "DQ Initialization Complete",
        "Detail": json.dumps(detail),
    }
    function.aws.client("events").put_events(Entries=[entry])


@pytest.mark.slow
def test_docs_show_how_to_continue_with_jwst(
    function: Harness,
    exposure: bytes,
    sample_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interpreter = PROJECT / ".venv-jwst" / "bin" / "python"
    if not interpreter.exists():
        pytest.skip("jwst is not installed: make conformance installs it")
    function.upload(exposure, "x_uncal.fits")
    (tmp_path / "x_dq_init.fits").write_bytes(function.product(function.run("x_uncal.fits")))
    (block,) = (block for block in BLOCKS if "SaturationStep" in block)
    (tmp_path / "block.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", "true")
    jwst = Jwst(interpreter, Path(__file__).with_name("go_on.py"), sample_cache)
    printed = jwst.run("x_dq_init.fits", "block.py").splitlines()
    assert printed[-2:] == ["COMPLETE COMPLETE COMPLETE", "flags kept"]
