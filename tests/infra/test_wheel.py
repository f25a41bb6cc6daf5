"""An installation by ``pip install .`` works outside the clone."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from core import __version__
from infra.__main__ import COMMANDS
from infra.cli import OPTIONAL
from tests.conftest import PROJECT


def build(source: Path, target: Path) -> Path:
    """Build wheel and sdist of a source tree; the network is not used."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(target)],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        check=True,
        capture_output=True,
    )
    return target


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and the sdist of the clone."""
    return build(PROJECT, tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="module")
def installed(archives: Path) -> Path:
    """The content of the wheel, outside the clone."""
    (wheel,) = archives.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(archives / "installed")  # noqa: S202
    return archives / "installed"


def run(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_module_of_the_wheel_can_be_imported(installed: Path) -> None:
    paths = [path.relative_to(installed) for path in installed.rglob("*.py")]
    names = sorted(
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in paths
        if path.name != "__main__.py" or path.parent != Path("infra")
    )
    assert "handler.app" in names
    assert "infra.mirror.sync" in names
    code = "import importlib, sys; [importlib.import_module(n) for n in sys.argv[1:]]; import core; print(core.__file__)"
    done = run(installed, "-c", code, *names)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))


@pytest.mark.slow
def test_sdist_builds_the_same_wheel_and_sdist(archives: Path, tmp_path: Path) -> None:
    (sdist,) = archives.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    again = build(source, tmp_path / "again")
    for path in (sdist, *archives.glob("*.whl")):
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_wheel_has_type_hints_and_no_tests_or_bundle(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if path.is_dir()} - {
        "core",
        "handler",
        "infra",
    } == {f"jwst_dq_init_lambda-{__version__}.dist-info"}
    assert {path.parent.name for path in installed.rglob("py.typed")} == {
        "core",
        "handler",
        "infra",
    }
    assert not (installed / "infra" / "bundle").exists()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["infra", "infra.demo"])
def test_programs_of_the_wheel_start(program: str, installed: Path) -> None:
    done = run(installed, "-m", program, "--help")
    assert done.returncode == 0, done.stderr


WITHOUT = """
import sys
absent = sys.argv[1].split(",")
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
import runpy
module, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command_without_the_extras_says_what_to_install(command: str, installed: Path) -> None:
    done = run(installed, "-c", WITHOUT, "rich,duckdb", "infra", command, "--help")
    if done.returncode:
        (line,) = done.stderr.splitlines()
        assert re.search(rf"^{command}: .*-m pip install '(rich|duckdb)>=", line)


@pytest.mark.parametrize(
    ("command", "package"), [("status", "rich"), ("reprocess", "rich"), ("reprocess", "duckdb")]
)
def test_missing_package_of_an_extra_is_named(command: str, package: str, installed: Path) -> None:
    done = run(installed, "-c", WITHOUT, package, "infra", command, "--help")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{command}: Python package {package}: not installed")


@pytest.mark.slow
def test_demo_without_its_extra_says_what_to_install(installed: Path) -> None:
    done = run(installed, "-c", WITHOUT, "moto", "infra.demo")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "moto: not installed" in line


def test_missing_core_dependency_is_a_traceback(installed: Path) -> None:
    done = run(installed, "-c", WITHOUT, "numpy", "infra.demo")
    assert "Traceback" in done.stderr, "an incomplete installation is not a missing extra"


def test_optional_packages_equal_the_extras() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = {
        requirement
        for requirements in project["optional-dependencies"].values()
        for requirement in requirements
        if not requirement.startswith(project["name"])
    }
    assert set(OPTIONAL.values()) == wanted


def test_docs_name_every_extra() -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    text = (PROJECT / "docs" / "developing.md").read_text()
    assert all(f"`{name}`" in text for name in extras)
