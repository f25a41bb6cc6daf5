"""The commands of docs/how-to/use-products.md do what the page says."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from tests.conftest import PROJECT, Harness
from tests.jwst import Jwst

BLOCKS = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "using.md").read_text(), re.DOTALL)


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


def test_docs_show_how_to_drop_known_ids(
    function: Harness, exposure: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    function.upload(exposure, "x_uncal.fits")
    event = {"detail": function.run("x_uncal.fits")}
    (block,) = (block for block in BLOCKS if "known" in block)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102
    known: set[str] = set()
    capsys.readouterr()
    for _ in range(2):
        names["handle"](event, known)
    assert capsys.readouterr().out.splitlines() == [
        f"dq_init/x_dq_init.fits {event['detail']['flags']['doNotUseFraction']}"
    ]


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
