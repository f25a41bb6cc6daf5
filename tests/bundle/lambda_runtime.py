"""The built bundle under AWS's runtime client and emulator, without the clone on its path."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
        """Return the files that its processes have mapped, such as shared objects."""
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
    """Return an environment without variables of this process."""
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
