"""Ceph's RADOS Gateway on this machine.

One monitor, one store of objects in a sparse file, one gateway, on loopback, without passwords among
them. Its programs are Debian's packages, laid out in a folder by `mmdebstrap` and run in it: they
touch nothing else of the machine. That takes root, and a Debian whose packages can be had.
"""

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmark.servers import free_port
from tests.s3_matrix.server import Server, wait_for

__all__ = ["CannotRun", "ceph", "install"]

_SUITE = "sid"
_PACKAGES = "radosgw,ceph-mon,ceph-osd,ceph-common"
_PROGRAMS = ("mmdebstrap", "unshare", "chroot")
_MERGED = ("bin", "sbin", "lib", "lib64")
_FOLDER = "/ceph"
"""Folder of the monitor, the store and the gateway, below that of the packages."""
_IN_PLACE = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
"""Each program has a mount namespace of its own, which ends with it."""


class CannotRun(Exception):
    """Raised if this machine cannot run Ceph."""


def install(root: Path) -> None:
    """Unpack Debian's packages of Ceph in a folder, unless it exists.

    Raises
    ------
    CannotRun
        If they cannot be had, or could not be run.
    """
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        raise CannotRun(f"it takes root and {', '.join(missing or _PROGRAMS)}")
    if (root / "laid-out").exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    done = subprocess.run(
        [
            "mmdebstrap",
            "--variant=extract",
            f"--include={_PACKAGES}",
            # A mirror that is some weeks old is good enough for a test.
            '--aptopt=Acquire::Check-Valid-Until "false"',
            _SUITE,
            str(root),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        faults = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise CannotRun(f"Debian's packages cannot be had: {' '.join(faults) or done.stderr}")
    for name in _MERGED:
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    (root / "proc").mkdir(exist_ok=True)
    (root / "laid-out").touch()


@contextmanager
def ceph(root: Path) -> Iterator[Server]:
    """Start an empty cluster of one node and wait until its gateway answers.

    Parameters
    ----------
    root : `pathlib.Path`
        The folder of the packages.
    """
    with tempfile.TemporaryDirectory(dir=root / "tmp") as folder, ExitStack() as stack:
        cluster = _Cluster(root, f"/tmp/{Path(folder).name}", free_port(), free_port(), stack)
        cluster.configure()
        cluster.start_monitor()
        cluster.start_store()
        yield cluster.start_gateway()


@dataclass(frozen=True)
class _Cluster:
    """Programs in a folder of packages; `folder` is their root directory."""

    root: Path
    folder: str
    monitor_port: int
    gateway_port: int
    stack: ExitStack
    fsid: str = str(uuid.uuid4())

    def configure(self) -> None:
        for part in ("monitor", "store", "gateway", "run"):
            self.outside(part).mkdir()
        text = _CONFIGURATION.format(
            fsid=self.fsid, folder=self.folder, monitor=self.monitor_port, gateway=self.gateway_port
        )
        self.outside("ceph.conf").write_text(text)

    def start_monitor(self) -> None:
        address = f"[v1:127.0.0.1:{self.monitor_port}]"
        table = f"{self.folder}/monitors"
        self.run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", address, table)
        self.run("ceph-mon", *self.configuration, "--mkfs", "-i", "a", "--monmap", table)
        self.keep("ceph-mon", "-i", "a")
        self.until(lambda: "health" in self.ask("-s"), "the monitor")

    def start_store(self) -> None:
        name = str(uuid.uuid4())
        self.ask("osd", "new", name)
        self.run("ceph-osd", *self.configuration, "-i", "0", "--mkfs", "--osd-uuid", name)
        # The store sometimes ends because its client of the monitor is not ready: try again.
        for _ in range(5):
            process = self.keep("ceph-osd", "-i", "0")
            self.until(lambda p=process: p.poll() is not None or self.is_up(), "the store")  # type: ignore[misc]
            if process.poll() is None:
                return
        raise RuntimeError(f"the store does not start: {self.log()}")

    def is_up(self) -> bool:
        return '"num_up_osds":1' in self.ask("osd", "stat", "--format", "json").replace(" ", "")

    def start_gateway(self) -> Server:
        process = self.keep("radosgw", "-n", "client.rgw")
        user = ("user", "create", "--uid=local", "--display-name=local")
        keys = ("--access-key=local", "--secret-key=local")
        self.run("radosgw-admin", *self.configuration, "-n", "client.rgw", *user, *keys)
        server = Server(f"http://127.0.0.1:{self.gateway_port}")
        wait_for(server, process, self.outside("log"))
        return server

    @property
    def configuration(self) -> tuple[str, str]:
        return "--conf", f"{self.folder}/ceph.conf"

    def outside(self, name: str) -> Path:
        return self.root / self.folder.removeprefix("/") / name

    def command(self, *words: str) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", _IN_PLACE, str(self.root), *words]

    def run(self, *words: str) -> str:
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
        return done.stdout

    def ask(self, *words: str) -> str:
        """Query the monitor; return nothing until it answers."""
        command = self.command("ceph", *self.configuration, "--connect-timeout", "5", *words)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout

    def keep(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a program that runs until the end."""
        with self.outside("log").open("ab") as log:
            process = subprocess.Popen(
                self.command(words[0], *self.configuration, "-f", *words[1:]),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 60
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{what} does not answer: {self.log()}")
            time.sleep(0.25)

    def log(self) -> str:
        return self.outside("log").read_text(errors="replace")[-2000:]


_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor}
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = false
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/$name.log
crash dir = {folder}
mon data = {folder}/monitor
osd data = {folder}/store
bluestore block size = 21474836480
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 2000
osd crush chooseleaf type = 0
osd class load list = *
osd class default list = *
mon osd full ratio = 0.99
mon osd nearfull ratio = 0.98
mon osd backfillfull ratio = 0.985
mon data avail crit = 1
mon data avail warn = 2

[client.rgw]
rgw data = {folder}/gateway
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw dns name = localhost
rgw thread pool size = 32
"""
