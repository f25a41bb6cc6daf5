"""Build the bundle: install wheels for Lambda, add the function's code, remove unused files.

The same lock file and code give the same bundle, on any machine. The modules are compiled if this
machine has Lambda's Python; otherwise every cold start compiles them, because /var/task is
read-only.
"""

import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

PYTHON = "3.13"  # also in the template
PROJECT = Path(__file__).parents[2]
LOCK = Path(__file__).with_name("requirements.lock")
REPROCESS_LOCK = Path(__file__).with_name("reprocess.lock")
ARCHITECTURES = {"arm64": "aarch64", "x86_64": "x86_64"}
"""Architectures in the names of wheels, by Lambda's names for them."""

_CODE = ("core", "handler")
# Lambda's Amazon Linux 2023 has glibc 2.34 and runs wheels of all of these.
_MANYLINUX = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_LEFT_OUT = (
    # Written by Python or an installer, and different every time.
    "*/__pycache__/*", "*.pyc", "bin/*", "*.dist-info/RECORD", "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED", "*.dist-info/direct_url.json", "*.dist-info/sboms/*",
    # For development.
    "*/tests/*", "*/test/*", "*/testing/data/*", "*.pyi", "*/py.typed", "*.a", "*.h", "*.c",
    "*.pyx", "*.pxd", "numpy/f2py/*", "numpy/_core/include/*", "numpy/_pyinstaller/*", "pip/*",
    # Data of AWS services and astronomical tables that the function does not use.
    "botocore/data/*/*/*", "boto3/data/*", "boto3/examples/*", "astropy/utils/iers/data/*",
    "astropy_iers_data/data/*",
)  # fmt: skip
_KEPT = (  # although a pattern above matches
    "astropy/tests/*.py",  # imported by astropy itself
    "botocore/data/s3/*",
    "botocore/data/events/*",
    "botocore/data/sqs/*",
    "botocore/data/sns/*",
)
_TIME = 1_640_995_200  # 2022-01-01; .zip files have no times before 1980


def build(architecture: str, target: Path, packages: Iterable[str] = (), lock: Path = LOCK) -> bool:
    """Build the bundle in the folder `target`, replacing it; return whether it is compiled.

    False if `target_python` returns None. `packages` are further files and folders to copy, as
    paths relative to the project; `lock` is the file that lists the wheels.
    """
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    _install(architecture, target, lock)
    for package in (*_CODE, *packages):
        source = PROJECT / package
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / package)
    for path in _files(target):
        if is_left_out(path.relative_to(target).as_posix()):
            path.unlink()
    for folder in sorted(target.rglob("*/"), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    is_compiled = _compile(target)
    # The same files then give the same .zip archive.
    for path in _files(target):
        path.chmod(0o644)
    for path in target.rglob("*"):
        os.utime(path, (_TIME, _TIME))
    return is_compiled


def is_left_out(name: str) -> bool:
    """Return whether `build`, before it compiles, removes a file of this path in the bundle."""
    kept = any(fnmatch.fnmatchcase(name, pattern) for pattern in _KEPT)
    return not kept and any(fnmatch.fnmatchcase(name, pattern) for pattern in _LEFT_OUT)


def digest(bundle: Path) -> str:
    """Return the SHA-256 (hexadecimal) of all paths and contents of a bundle."""
    whole = hashlib.sha256()
    for path in _files(bundle):
        whole.update(path.relative_to(bundle).as_posix().encode() + b"\0")
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _install(architecture: str, target: Path, lock: Path) -> None:
    platforms = [f"{tag}_{ARCHITECTURES[architecture]}" for tag in _MANYLINUX]
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"),
        *("--requirement", str(lock), "--require-hashes", "--no-deps", "--no-compile"),
        *("--target", str(target), "--only-binary", ":all:"),
        *("--implementation", "cp", "--python-version", PYTHON),
        "--ignore-requires-python",  # pip compares it with the Python that runs pip
        *(word for platform in platforms for word in ("--platform", platform)),
    ]
    subprocess.run(command, check=True)  # noqa: S603


def _compile(bundle: Path) -> bool:
    python = target_python()
    if python is None:
        return False
    command = [
        *(str(python), "-m", "compileall", "-q", "-s", str(bundle), "-p", "/var/task"),
        *("-j", "1"),  # several processes do not give the same files every time
        # The files never change, so that Python need not compare them with their source.
        *("--invalidation-mode", "unchecked-hash", str(bundle)),
    ]
    subprocess.run(command, check=True)  # noqa: S603
    return True


def target_python() -> Path | None:
    """Return the path of a Python of Lambda's version, from PATH or pyenv; None without one.

    The variable TARGET_PYTHON names one instead; `FileNotFoundError` if that is of another version
    or does not run.
    """
    if named := os.environ.get("TARGET_PYTHON"):
        found = _version(Path(named))
        if found != PYTHON:
            what = f"Python {found}" if found else "not a Python that runs"
            raise FileNotFoundError(
                f"TARGET_PYTHON={named}: {what}, expected Python {PYTHON}; correct or unset it"
            )
        return Path(named)
    on_path = shutil.which(f"python{PYTHON}")
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted(root.glob(f"versions/{PYTHON}*/bin/python"), reverse=True)
    return next((path for path in candidates if _version(path) == PYTHON), None)


def _version(python: Path) -> str | None:
    """Return a Python's version, such as 3.13; None if `python` is missing or fails."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        command = [str(python), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None


def _files(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file())
