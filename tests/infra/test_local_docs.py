"""Every command of docs/laptop.md prints what the page says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.io import fits

from core.flags import PIXEL_FLAGS
from tests.conftest import PROJECT
from tests.jwst import CONTINUE, Jwst

PAGE = (PROJECT / "docs" / "laptop.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAME = "jw01234_nrcb1_uncal.fits"


@pytest.fixture
def folder(
    exposure: bytes, sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with the files that the page names, and the program on the path."""
    program = tmp_path / "bin" / "dq-init"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m infra "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    shell = tmp_path / "shell"
    (shell / "night").mkdir(parents=True)
    (shell / NAME).write_bytes(exposure)
    for keyword in ("TFRAME", "TGROUP"):  # seconds; the later steps of jwst need them
        fits.setval(shell / NAME, keyword, value=10.7)
    (shell / "exposure_uncal.fits").write_bytes(exposure)
    for name in (NAME, "jw01235_nrcb1_uncal.fits"):
        (shell / "night" / name).write_bytes(exposure)
    (shell / "crds_cache").symlink_to(sample_cache)
    monkeypatch.chdir(shell)
    monkeypatch.setenv("CRDS_PATH", "crds_cache")
    return shell


def masked(text: str) -> list[str]:
    """Lines without numbers and the order of processes."""
    return sorted(re.sub(r"\d+", "0", line.rstrip()) for line in text.splitlines())


@pytest.mark.slow
def test_commands_print_what_the_page_says(folder: Path) -> None:
    """One shell runs them all, except the installation, which test_wheel covers."""
    blocks = [block for block in CONSOLE if "pip install" not in block]
    assert len(blocks) == len(CONSOLE) - 1
    commands = [re.findall(r"^\$ (.*)$", block, re.MULTILINE) for block in blocks]
    script = "\necho -----\n".join("\n".join(lines) for lines in commands)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    for block, printed in zip(blocks, done.stdout.split("-----\n"), strict=True):
        said = "".join(line for line in block.splitlines(True) if not line.startswith("$ "))
        assert masked(printed) == masked(said)


def test_page_lists_every_option_of_strun() -> None:
    for option in ("override_mask", "user_supplied_dq", "skip", "save_results", "suffix"):
        assert f"`--{option}" in PAGE


@pytest.mark.slow
def test_flags_are_read_with_astropy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["dq-init", "run", NAME], check=True, capture_output=True)
    (block,) = (block for block in PYTHON if "astropy" in block)
    exec(block, {})  # noqa: S102
    dq = fits.getdata("jw01234_nrcb1_dq_init.fits", "PIXELDQ")
    assert capsys.readouterr().out == f"{int((dq & 1).sum())}\n"


@pytest.mark.slow
def test_product_is_used_with_jwst(
    folder: Path, sample_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = PROJECT / ".venv-jwst" / "bin" / "python"
    if not interpreter.exists():
        pytest.skip("jwst is not installed: make conformance installs it")
    subprocess.run(["dq-init", "run", NAME], check=True, capture_output=True)
    monkeypatch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", "true")
    pipeline, steps, flags = (block for block in PYTHON if "jwst" in block.partition("\n\n")[0])
    code = (
        f"{pipeline}\nprint(rate.meta.cal_step.ramp_fit, rate.meta.cal_step.dq_init)\n"
        f"{steps}\nprint(result.meta.cal_step.superbias, result.meta.cal_step.dq_init)\n{flags}"
    )
    printed = Jwst(interpreter, CONTINUE, sample_cache).run(folder, code=code).splitlines()
    dq = fits.getdata("jw01234_nrcb1_dq_init.fits", "PIXELDQ")
    names = sorted(name for name, bit in PIXEL_FLAGS.items() if (dq & bit).any())
    assert printed[-3:] == ["COMPLETE SKIPPED", "COMPLETE COMPLETE", str(names)]
    assert Path("jw01234_nrcb1_rate.fits").exists()
