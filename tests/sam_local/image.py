"""A substitute for AWS's base image of Python 3.13, built from files of this machine.

Python 3.13 with its standard library, AWS's runtime client of the package index, busybox, and the
libraries that they need, laid out as AWS's own image is (aws-lambda-base-images). `sam` adds AWS's
runtime emulator to it automatically, as to AWS's own.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.sam_local.engine import CannotRun, Engine

__all__ = ["NAME", "make_image", "pulled"]

NAME = "public.ecr.aws/lambda/python:3.13-x86_64"
_BUSYBOX = Path("/bin/busybox")
_TOOLS = ("sh", "mv", "chmod", "ls", "cat", "env", "id", "mkdir", "cp", "rm")
_FOLDERS = (
    "bin",
    "etc",
    "tmp",
    "proc",
    "dev",
    "sys",
    "opt",
    "var/task",
    "var/runtime",
    "var/rapid",
)
_LEFT_OUT = (
    "test",
    "tkinter",
    "idlelib",
    "ensurepip",
    "turtledemo",
    "site-packages",
    "config-3.13*",
)
_CLIENT = ("awslambdaric*", "snapshot_restore_py*", "simplejson*", "runtime_client*.so")
_NAMED = ("libgcc_s.so.1", "libstdc++.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1")  # fmt: skip
_LIBRARIES = Path("/lib/x86_64-linux-gnu")
_LOADER = Path("/lib64/ld-linux-x86-64.so.2")
_BOOTSTRAP = """\
#!/bin/sh
export AWS_EXECUTION_ENV=AWS_Lambda_python3.13
exec /var/lang/bin/python3.13 -m awslambdaric "$_HANDLER"
"""
_SETTINGS = (
    "ENV LANG=en_US.UTF-8",
    "ENV PATH=/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "ENV LD_LIBRARY_PATH=/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/opt/lib",
    "ENV LAMBDA_TASK_ROOT=/var/task",
    "ENV LAMBDA_RUNTIME_DIR=/var/runtime",
    "WORKDIR /var/task",
    'ENTRYPOINT ["/lambda-entrypoint.sh"]',
)


def pulled(engine: Engine) -> bool:
    """Pull AWS's own image, if the registry is reachable."""
    return engine.run("docker", "pull", "--quiet", NAME, capture_output=True).returncode == 0


def make_image(engine: Engine, runtime: Path) -> None:
    """Build the substitute for AWS's image.

    Parameters
    ----------
    engine : `~tests.sam_local.engine.Engine`
        Where it goes.
    runtime : `pathlib.Path`
        Interpreter of an environment on Python 3.13 that has awslambdaric.

    Raises
    ------
    CannotRun
        If something of it cannot be had.
    """
    if not _BUSYBOX.exists():
        raise CannotRun("an image is made with busybox (Debian's busybox-static)")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _lay_out(root, runtime)
        changes = [word for setting in _SETTINGS for word in ("--change", setting)]
        with subprocess.Popen(["tar", "-C", name, "-c", "."], stdout=subprocess.PIPE) as packed:
            done = engine.run(
                *("docker", "import", *changes, "-", NAME), stdin=packed.stdout, capture_output=True
            )
        if done.returncode:
            raise CannotRun(f"the image cannot be made: {done.stderr.strip()}")


def _lay_out(root: Path, runtime: Path) -> None:
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(_BUSYBOX, root / "bin" / "busybox")
    for tool in _TOOLS:
        (root / "bin" / tool).symlink_to("busybox")
    packages = _copy_python(root / "var" / "lang", runtime)
    for path in _libraries(root, packages):
        _copy_library(path, root)
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc" / "nsswitch.conf").write_text("hosts: files dns\n")
    for place in (root / "var" / "runtime" / "bootstrap", root / "lambda-entrypoint.sh"):
        place.write_text(_BOOTSTRAP)
        place.chmod(0o755)


def _copy_python(lang: Path, runtime: Path) -> Path:
    """Copy the interpreter, its library and AWS's client; return the path of the packages."""
    asked = "import sys, sysconfig; print(sys.base_prefix, sysconfig.get_path('purelib'))"
    found = subprocess.run([str(runtime), "-c", asked], capture_output=True, text=True, check=True)
    prefix, installed = (Path(word) for word in found.stdout.split())
    (lang / "bin").mkdir(parents=True)
    shutil.copy(prefix / "bin" / "python3.13", lang / "bin" / "python3.13")
    shutil.copytree(
        prefix / "lib" / "python3.13",
        lang / "lib" / "python3.13",
        ignore=shutil.ignore_patterns(*_LEFT_OUT, "__pycache__"),
        symlinks=True,
    )
    for library in (prefix / "lib").glob("libpython3*.so*"):
        shutil.copy(library, lang / "lib" / library.name)
    packages = lang / "lib" / "python3.13" / "site-packages"
    packages.mkdir()
    for pattern in _CLIENT:
        for path in installed.glob(pattern):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, packages / path.name)
    return packages


def _libraries(root: Path, packages: Path) -> Iterator[Path]:
    """Return the shared libraries of the interpreter, its modules and the client."""
    lang = root / "var" / "lang"
    linked = [lang / "bin" / "python3.13", *packages.glob("*.so")]
    linked += (lang / "lib" / "python3.13" / "lib-dynload").glob("*.so")
    yield from _needed_by(linked)
    yield from (_LIBRARIES / name for name in _NAMED)
    yield _LOADER


def _needed_by(files: Iterable[Path]) -> set[Path]:
    listed = subprocess.run(
        ["ldd", *map(str, files)], capture_output=True, text=True, check=False
    ).stdout
    return {Path(path) for path in re.findall(r"=> (/(?:usr/)?lib\S+)", listed)}


def _copy_library(path: Path, root: Path) -> None:
    place = root / path.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path.resolve(), place)
