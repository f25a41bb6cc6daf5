"""TARGET_PYTHON names the Python of the bundle."""

import sys
from pathlib import Path

import pytest

from infra.bundle import __main__ as program
from infra.bundle.build import PYTHON, target_python


def interpreter(folder: Path, version: str) -> Path:
    """Write a program that prints a Python version."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def test_target_python_accepts_the_right_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = interpreter(tmp_path, PYTHON)
    monkeypatch.setenv("TARGET_PYTHON", str(named))
    assert target_python() == named


@pytest.mark.parametrize(
    ("version", "found"), [("3.9", "Python 3.9"), (None, "not a Python that runs")]
)
def test_target_python_rejects_another_version(
    version: str | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = interpreter(tmp_path, version) if version else tmp_path / "absent"
    monkeypatch.setenv("TARGET_PYTHON", str(named))
    monkeypatch.setattr(sys, "argv", ["infra.bundle", "python"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    expected = f"infra.bundle: TARGET_PYTHON={named}: {found}, expected Python {PYTHON}"
    assert str(ended.value.code).startswith(expected)
