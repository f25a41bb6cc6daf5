"""Make the bundle: wheels for the target, less what the function never reads, and its own code.

Neither the target's Python nor its processor is needed: the wheels are only unpacked. The same lock
file and code give the same bundle. Where the target's Python is at hand, the modules are compiled,
too: /var/task cannot be written to, so that every cold start would compile them anew.
"""

import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = [
    "ARCHITECTURES",
    "LOCK",
    "PYTHON",
    "REPROCESS_LOCK",
    "build",
    "digest",
    "is_left_out",
    "target_python",
]

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


PROJECT = Path(__file__).parents[2]
LOCK = Path(__file__).with_name("requirements.lock")
REPROCESS_LOCK = Path(__file__).with_name("reprocess.lock")
"""The same, and what infra/reprocess needs beside."""
ARCHITECTURES = {"arm64": "aarch64", "x86_64": "x86_64"}
"""Lambda's names, and those of wheels."""

_CODE = ("core", "handler")
_MANYLINUX = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
"""What Lambda's Amazon Linux 2023 (glibc 2.34) runs, newest first."""

_LEFT_OUT = (
    # Made by Python or an installer, and different every time.
    "*/__pycache__/*",
    "*.pyc",
    "bin/*",
    "*.dist-info/RECORD",
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "*.dist-info/sboms/*",
    # For developing with the packages, not for running them.
    "*/tests/*",
    "*/test/*",
    "*/testing/data/*",
    "*.pyi",
    "*/py.typed",
    "*.a",
    "*.h",
    "*.c",
    "*.pyx",
    "*.pxd",
    "numpy/f2py/*",
    "numpy/_core/include/*",
    "numpy/_pyinstaller/*",
    "pip/*",
    # Data that is read for other services, observatories and purposes than the function's.
    "botocore/data/*/*/*",
    "boto3/data/*",
    "boto3/examples/*",
    "astropy/utils/iers/data/*",
    "astropy_iers_data/data/*",
)
"""Patterns of paths below the bundle; the first that matches decides, after `_KEPT`."""
_KEPT = (
    "astropy/tests/*.py",  # imported by astropy itself
    "botocore/data/s3/*",
    "botocore/data/events/*",
    "botocore/data/sqs/*",
)
_TIME = 1_640_995_200  # 2022-01-01, the year of JWST's first light; what zip can hold
_READABLE = 0o644


def build(architecture: str, target: Path, packages: Iterable[str] = (), lock: Path = LOCK) -> bool:
    """Make the bundle in a directory.

    Parameters
    ----------
    architecture : str
        ``arm64`` or ``x86_64``.
    target : `pathlib.Path`
        The directory; what it holds is replaced.
    packages : iterable of str
        Directories of further packages of the project, and modules beside them.
    lock : `pathlib.Path`
        What to install, with digests.

    Returns
    -------
    bool
        Whether the modules could be compiled.

    Raises
    ------
    subprocess.CalledProcessError
        If pip cannot install what the lock file names.
    """
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    _install(architecture, target, lock)
    for package in (*_CODE, *packages):
        if (PROJECT / package).is_dir():
            shutil.copytree(PROJECT / package, target / package)
        else:
            shutil.copy(PROJECT / package, target / package)
    _leave_out(target)
    is_compiled = _compile(target)
    _make_alike(target)
    return is_compiled


def is_left_out(name: str) -> bool:
    """Say whether a path below the bundle is left out.

    Parameters
    ----------
    name : str
        The path, with slashes.
    """
    wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in _KEPT)
    return not wanted and any(fnmatch.fnmatchcase(name, pattern) for pattern in _LEFT_OUT)


def digest(bundle: Path) -> str:
    """Return the SHA-256 of all paths and contents of a bundle."""
    whole = hashlib.sha256()
    for path in _files(bundle):
        whole.update(path.relative_to(bundle).as_posix().encode() + b"\0")
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _install(architecture: str, target: Path, lock: Path) -> None:
    """Unpack wheels; pip checks them against the digests of the lock file."""
    platforms = [f"{tag}_{ARCHITECTURES[architecture]}" for tag in _MANYLINUX]
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"),
        *("--requirement", str(lock), "--require-hashes", "--no-deps", "--no-compile"),
        *("--target", str(target), "--only-binary", ":all:"),
        *("--implementation", "cp", "--python-version", PYTHON),
        "--ignore-requires-python",  # pip looks at the Python that runs it, not at the target's
        *(word for platform in platforms for word in ("--platform", platform)),
    ]
    subprocess.run(command, check=True)  # noqa: S603


def _leave_out(bundle: Path) -> None:
    for path in _files(bundle):
        if is_left_out(path.relative_to(bundle).as_posix()):
            path.unlink()
    for folder in sorted(bundle.rglob("*/"), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def _compile(bundle: Path) -> bool:
    """Compile the modules, to be used unseen: one process, for the same files every time."""
    python = target_python()
    if python is None:
        return False
    command = [
        str(python),
        "-m",
        "compileall",
        "-q",
        "-j",
        "1",
        "-s",
        str(bundle),
        "-p",
        "/var/task",
    ]
    subprocess.run([*command, "--invalidation-mode", "unchecked-hash", str(bundle)], check=True)  # noqa: S603
    return True


def _make_alike(bundle: Path) -> None:
    """Give every file the same time and mode; the archive of the same files is the same then."""
    for path in (*_files(bundle), *bundle.rglob("*/")):
        if path.is_file():
            path.chmod(_READABLE)
        os.utime(path, (_TIME, _TIME))


def _files(bundle: Path) -> Iterator[Path]:
    return iter(sorted(path for path in bundle.rglob("*") if path.is_file()))
