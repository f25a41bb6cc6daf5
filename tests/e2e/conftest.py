from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.e2e.stack import Stack, deployed
from tests.samples.exposures import write_exposure
from tests.samples.modes import MODES


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The built template, deployed once for all tests."""
    interpreter = PROJECT / ".venv-ministack" / "bin" / "python"
    with deployed(interpreter, PROJECT / ".venv-tools" / "bin" / "sam") as running:
        yield running


@pytest.fixture(scope="session")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small exposure of every mode."""
    folder, found = tmp_path_factory.mktemp("exposures"), {}
    for mode in MODES:
        path = Path(folder, f"{mode.name}_uncal.fits")
        write_exposure(mode, path)
        if path.stat().st_size < 20_000_000:
            found[mode.name] = path.read_bytes()
    return found
