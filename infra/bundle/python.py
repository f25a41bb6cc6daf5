"""Where the Python that Lambda runs lies on this machine, if it does."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PYTHON", "target_python"]

PYTHON = "3.13"
"""The version; the template names it, too."""


def target_python() -> Path | None:
    """Find an interpreter: what TARGET_PYTHON names, else on the path or among pyenv's.

    Returns
    -------
    `pathlib.Path` or None
        The first one that is what it says.

    Raises
    ------
    FileNotFoundError
        If TARGET_PYTHON names something else.
    """
    named = os.environ.get("TARGET_PYTHON")
    if named:
        found = _version(Path(named))
        if found != PYTHON:
            what = f"Python {found}" if found else "no Python that runs"
            raise FileNotFoundError(
                f"TARGET_PYTHON={named}: {what}, expected Python {PYTHON}; correct or unset it"
            )
        return Path(named)
    return next((path for path in _candidates() if _version(path) == PYTHON), None)


def _candidates() -> Iterator[Path]:
    on_path = shutil.which(f"python{PYTHON}")
    if on_path:
        yield Path(on_path)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(root.glob(f"versions/{PYTHON}*/bin/python"), reverse=True)


def _version(python: Path) -> str | None:
    """Major and minor version; None for what does not run, as pyenv's shims of absent versions."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        command = [str(python), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
