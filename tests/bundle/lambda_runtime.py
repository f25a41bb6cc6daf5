"""The built bundle under AWS's own runtime client, alone: nothing of the checkout is on its path."""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from tests.benchmark.servers import free_port, wait_for
from tests.conftest import PROJECT

BUNDLE = PROJECT / ".aws-sam" / "build" / "Function"
PYTHON = PROJECT / ".venv-runtime" / "bin" / "python"
CLIENT = [str(PYTHON), "-m", "awslambdaric", "handler.app.lambda_handler"]


def emulator() -> Path:
    """AWS's Runtime Interface Emulator, as the wheel of aws-sam-cli brings it."""
    (found,) = (PROJECT / ".venv-tools").glob(
        "lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64"
    )
    return found


@dataclass
class Runtime:
    """A running function."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def invoke(self, event: Any) -> Any:
        """Invoke it, as the Invoke API does."""
        address = f"http://127.0.0.1:{self.port}/2015-03-31/functions/function/invocations"
        answer = requests.post(address, data=json.dumps(event), timeout=120)
        try:
            return answer.json()
        except ValueError:
            return answer.text

    def mapped(self) -> set[Path]:
        """Files that its processes have mapped: the shared objects that they have loaded."""
        found = set()
        for maps in Path("/proc").glob("[0-9]*/maps"):
            try:
                if str(BUNDLE) in maps.read_text():
                    found |= {
                        Path(line.split()[-1])
                        for line in maps.read_text().splitlines()
                        if "/" in line
                    }
            except OSError:
                continue
        return found


@contextmanager
def runtime(environment: dict[str, str], folder: Path, timeout: int = 60) -> Iterator[Runtime]:
    """Start the emulator with the bundle as its task root."""
    port, api, log = free_port(), free_port(), folder / "runtime.log"
    emulator().chmod(0o755)
    command = [
        str(emulator()),
        *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
        *("--runtime-api-address", f"127.0.0.1:{api}"),
        *CLIENT,
    ]
    settings = alone(environment, folder) | {"AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=BUNDLE, env=settings, stdout=output, stderr=output)
        try:
            wait_for(port)
            yield Runtime(port, process, log)
        finally:
            process.terminate()
            process.wait(timeout=30)


def alone(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """An environment that has nothing of this one's."""
    return {
        "PATH": os.defpath,
        "LAMBDA_TASK_ROOT": str(BUNDLE),
        "TMPDIR": str(folder),
        "AWS_LAMBDA_FUNCTION_NAME": "dq-init",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
        **environment,
    }


INVOCATION = {
    "Lambda-Runtime-Aws-Request-Id": "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
    "Lambda-Runtime-Deadline-Ms": "4102444800000",
    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:dq-init",
    "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419",
    "Lambda-Runtime-Invocation-Id": "1",
    "Content-Type": "application/json",
}
"""What Lambda says of an invocation; the runtime client crashes where it is missing."""


@dataclass
class RuntimeApi:
    """Lambda's Runtime API as SnapStart uses it; the emulator does not know of restoring."""

    events: "queue.Queue[Any]" = field(default_factory=queue.Queue)
    answers: "queue.Queue[Any]" = field(default_factory=queue.Queue)
    frozen: threading.Event = field(default_factory=threading.Event)
    restored: threading.Event = field(default_factory=threading.Event)


@contextmanager
def snap_started(environment: dict[str, str], folder: Path) -> Iterator[RuntimeApi]:
    """Start the bundle as SnapStart does: it waits, frozen, until it is restored."""
    api = RuntimeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.endswith("/restore/next"):
                api.frozen.set()
                api.restored.wait(60)
                self.reply(200, {})
                return
            event = api.events.get()
            self.reply(200, event, INVOCATION)

        def do_POST(self) -> None:
            api.answers.put(json.loads(self.body()))
            self.reply(202, {})

        def body(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = alone(environment, folder) | {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
    }
    with (folder / "snapstart.log").open("wb") as log:
        process = subprocess.Popen(CLIENT, cwd=BUNDLE, env=settings, stdout=log, stderr=log)
        try:
            yield api
        finally:
            process.kill()
            process.wait(timeout=30)
            server.shutdown()
            server.server_close()
