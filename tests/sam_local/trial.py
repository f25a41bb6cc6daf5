"""Run the commands of docs/how-to/local.md that invoke the function locally.

An emulator on port 4566 is filled, then `sam local invoke` is given the direct request and the SQS
batch, `sam local start-lambda` is called by an SDK. Each product must be the same bytes as that of the
bundle alone, as ``make bundle-test`` runs it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import boto3

from infra.demo.local_aws import copy_cache, isolated_environment
from tests.benchmark.servers import ministack, wait_for
from tests.bundle.lambda_runtime import runtime
from tests.conftest import PROJECT
from tests.products import undated
from tests.samples.exposures import write_exposure
from tests.samples.mirror import write_sample_mirror
from tests.samples.modes import MODES

ENDPOINT = "http://127.0.0.1:4566"
EVENTS = PROJECT / "tests" / "events"
KEY = "2023/03/jw01234001001_02101_00001_nrca1_uncal.fits"
PRODUCT = f"dq_init/{KEY.replace('_uncal', '_dq_init')}"
SAM = str(PROJECT / ".venv-tools" / "bin" / "sam")
OPTIONS = (
    *("--env-vars", "infra/local-environment.json"),
    *("--parameter-overrides", "Architecture=x86_64"),
    *("--add-host", "host.docker.internal:host-gateway"),
)
_LAMBDA = 3001


def main(*more: str) -> None:
    """Run the trial; `more` are further options of `sam`."""
    started = time.monotonic()
    os.environ["SAM_CLI_TELEMETRY"] = "0"
    with isolated_environment(), tempfile.TemporaryDirectory() as name, _ministack():
        s3 = _filled(Path(name) / "material")
        expected = _by_the_bundle(Path(name), s3)
        report(started, "the bundle alone: Complete")
        answer = _invoked("direct-request.json", *more)
        assert answer["status"] == "Complete", answer
        _compare(s3, expected)
        report(started, "sam local invoke, a direct request: Complete, the same bytes")
        assert _invoked("sqs-batch.json", *more) == {"batchItemFailures": []}
        _compare(s3, expected)
        report(started, "sam local invoke, an SQS batch: nothing to deliver again, the same bytes")
        with _start_lambda(Path(name), *more):
            answer = _called()
        assert answer["status"] == "Complete", answer
        _compare(s3, expected)
        report(started, "sam local start-lambda, called by boto3: Complete, the same bytes")


def report(started: float, what: str) -> None:
    """Print a step and the seconds since the start."""
    print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)


def _ministack() -> AbstractContextManager[int]:
    """Start MiniStack on the port of the docs, reachable from containers."""
    interpreter = PROJECT / ".venv-ministack" / "bin" / "python"
    return ministack(interpreter, 4566, "0.0.0.0")  # noqa: S104


def _filled(folder: Path) -> Any:
    """Create the buckets, the mirror and one exposure."""
    s3 = boto3.client("s3", endpoint_url=ENDPOINT)
    for bucket in ("raw-exposures", "products", "crds-mirror"):
        s3.create_bucket(Bucket=bucket)
    write_sample_mirror(folder)
    copy_cache(folder, s3, "crds-mirror")
    mode = next(mode for mode in MODES if mode.name == "nircam-full")
    write_exposure(mode, folder / "exposure.fits")
    s3.upload_file(str(folder / "exposure.fits"), "raw-exposures", KEY)
    return s3


def _by_the_bundle(folder: Path, s3: Any) -> bytes:
    """Return the product of the bundle without a container, and delete it."""
    environment = json.loads((PROJECT / "infra" / "local-environment.json").read_text())["Function"]
    environment = {name: value for name, value in environment.items() if value}
    with runtime(environment | {"AWS_ENDPOINT_URL": ENDPOINT}, folder) as running:
        answer = running.invoke(json.loads((EVENTS / "direct-request.json").read_text()))
    assert answer["status"] == "Complete", answer
    return _taken(s3)


def _compare(s3: Any, expected: bytes) -> None:
    assert undated(_taken(s3)) == undated(expected), "the products differ"


def _taken(s3: Any) -> bytes:
    """Return the product and delete it, so that the next event builds it again."""
    content: bytes = s3.get_object(Bucket="products", Key=PRODUCT)["Body"].read()
    s3.delete_object(Bucket="products", Key=PRODUCT)
    return content


def _invoked(event: str, *more: str) -> Any:
    done = subprocess.run(
        [SAM, "local", "invoke", "Function", "--event", str(EVENTS / event), *OPTIONS, *more],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@contextmanager
def _start_lambda(folder: Path, *more: str) -> Iterator[None]:
    with (folder / "start-lambda.log").open("wb") as log:
        process = subprocess.Popen(
            [SAM, "local", "start-lambda", "--port", str(_LAMBDA), *OPTIONS, *more],
            cwd=PROJECT,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(_LAMBDA)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _called() -> Any:
    client = boto3.client("lambda", endpoint_url=f"http://127.0.0.1:{_LAMBDA}")
    request = (EVENTS / "direct-request.json").read_bytes()
    answer = client.invoke(FunctionName="Function", Payload=request)
    return json.loads(answer["Payload"].read())


if __name__ == "__main__":
    main(*sys.argv[1:])
