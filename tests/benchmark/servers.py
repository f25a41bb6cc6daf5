"""S3 servers in processes, behind a proxy that counts the bytes at the socket."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CountingProxy", "absolute", "discarding", "environment_of_aws", "ministack", "moto"]

_CHUNK = 1 << 18


@dataclass
class CountingProxy:
    """A TCP proxy that counts the bytes of each direction."""

    upstream: int
    port: int = 0
    received: int = 0
    sent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Listen on a free port of this machine."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def reset(self) -> None:
        """Reset the counts."""
        with self._lock:
            self.received = self.sent = 0

    def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", self.upstream))
            for source, sink, outward in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=self._pump, args=(source, sink, outward), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                with self._lock:
                    if outward:
                        self.sent += len(data)
                    else:
                        self.received += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def absolute(path: str) -> Path:
    """Return the absolute path of an interpreter without resolving links, which a virtual environment needs."""
    return Path(path).absolute()


@contextmanager
def moto() -> Iterator[int]:
    """Start moto's server and yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with _running(command, port, {}):
        yield port


@contextmanager
def discarding(exposure: Path, cache: Path, *options: str) -> Iterator[int]:
    """Start a server that discards uploads, and yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "tests.model_of_s3.server", str(port)]
    with _running([*command, str(exposure), str(cache), *options], port, {}):
        yield port


@contextmanager
def ministack(
    interpreter: Path, port: int | None = None, address: str = "127.0.0.1"
) -> Iterator[int]:
    """Start the MiniStack of an interpreter's environment and yield its port, a free one by default."""
    port = port or free_port()
    folder = tempfile.mkdtemp()
    settings = {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": address,
        "LAMBDA_EXECUTOR": "local",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": folder,
        "TMPDIR": folder,
    }
    try:
        with _running([str(interpreter.parent / "ministack")], port, settings, folder):
            yield port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(
    command: list[str], port: int, settings: dict[str, str], folder: str | None = None
) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        env=environment_of_aws(settings),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def environment_of_aws(settings: dict[str, str]) -> dict[str, str]:
    """Return an environment without AWS endpoints, for a server that is AWS itself."""
    ours = {name: v for name, v in os.environ.items() if not name.startswith("AWS_ENDPOINT_URL")}
    return ours | settings


def wait_for(port: int) -> None:
    """Wait until the server accepts connections."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            time.sleep(0.5)
            return
        time.sleep(0.1)
    raise TimeoutError(f"no server on port {port}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
