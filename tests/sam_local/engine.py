"""A container engine: a running one, or one started in a network namespace."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CannotRun", "Engine", "engine"]

_PROGRAMS = ("docker", "dockerd", "ip", "nsenter")


class CannotRun(Exception):
    """No container engine runs or can be started."""


@dataclass(frozen=True)
class Engine:
    """A running engine.

    Attributes
    ----------
    environment : dict
        What has `docker` and `sam` reach it.
    prefix : tuple of str
        What runs a command in its network.
    """

    environment: dict[str, str]
    prefix: tuple[str, ...] = ()

    def run(self, *command: str, **more: object) -> "subprocess.CompletedProcess[str]":
        """Run a command in its network."""
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [*self.prefix, *command],
            env=os.environ | self.environment,
            text=True,
            check=False,
            **more,
        )

    def answers(self) -> bool:
        """Return whether the engine answers."""
        return self.run("docker", "version", capture_output=True).returncode == 0


@contextmanager
def engine() -> Iterator[Engine]:
    """Yield the running engine, or start Debian's dockerd.

    Raises
    ------
    CannotRun
        If neither can be had.
    """
    here = Engine({})
    if shutil.which("docker") and here.answers():
        yield here
        return
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        needed = f"starting one takes root and {', '.join(missing or _PROGRAMS)}"
        raise CannotRun(f"no container engine answers, and {needed}")
    with _own_engine() as own:
        yield own


@contextmanager
def _own_engine() -> Iterator[Engine]:
    """Start dockerd in a network namespace, so that it does not change this machine's network."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp())
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        name = f"sam-{os.getpid()}"
        _done("ip", "netns", "add", name)
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        prefix = ("nsenter", f"--net=/run/netns/{name}")
        _done(*prefix, "ip", "link", "set", "lo", "up")
        address = f"unix://{folder}/docker.sock"
        # sam builds images with the builder included in dockerd.
        own = Engine({"DOCKER_HOST": address, "DOCKER_BUILDKIT": "0"}, prefix)
        (folder / "daemon.json").write_text("{}")
        stack.enter_context(_dockerd(folder, address, prefix))
        for _ in range(150):
            if own.answers():
                yield own
                return
            time.sleep(0.2)
        raise CannotRun(f"dockerd does not start: {(folder / 'log').read_text()[-500:]}")


@contextmanager
def _dockerd(folder: Path, address: str, prefix: tuple[str, ...]) -> Iterator[None]:
    command = [
        *(*prefix, "dockerd", f"--host={address}", f"--config-file={folder}/daemon.json"),
        *(f"--data-root={folder}/data", f"--exec-root={folder}/exec"),
        *(f"--pidfile={folder}/pid", "--storage-driver=overlay2"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)
        for mount in (folder / "exec" / "netns").glob("*"):
            subprocess.run(["umount", str(mount)], capture_output=True, check=False)


def _done(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"{' '.join(command)}: {done.stderr.strip()}")
