"""The S3 of localstack, in a process of its own, over TLS as on AWS."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError

from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws
from tests.benchmark.servers import environment_of_aws

__all__ = ["Server", "another_s3", "localstack", "wait_for"]

_REGION = "us-east-1"


@dataclass(frozen=True)
class Server:
    """A running S3: its endpoint URL and TLS certificate."""

    endpoint: str
    certificate: Path | None = None


@dataclass
class _WithAnotherS3(LocalAws):
    """An embedded AWS with another S3."""

    s3: str = ""

    def client(self, service: str) -> Any:
        if service != "s3":
            return super().client(service)
        return boto3.client("s3", endpoint_url=self.s3, region_name=_REGION)


def another_s3(aws: LocalAws, endpoint: str) -> LocalAws:
    """Replace the S3 of the embedded AWS by another, with the same buckets."""
    os.environ["AWS_ENDPOINT_URL_S3"] = endpoint
    if "S3_OF_TESTS_CERTIFICATE" in os.environ:
        os.environ["AWS_CA_BUNDLE"] = os.environ["S3_OF_TESTS_CERTIFICATE"]
    other = _WithAnotherS3(aws.endpoint, aws.uploads, aws.announcements, s3=endpoint)
    client = other.client("s3")
    for bucket in (RAW, PRODUCTS, MIRROR):
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return other


@contextmanager
def localstack(interpreter: Path, port: int) -> Iterator[Server]:
    """Start localstack, installed beside `interpreter`, and wait until it answers."""
    import trustme  # noqa: PLC0415  # of s3-matrix only

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = trustme.CA()
        served = authority.issue_cert("127.0.0.1", "localhost")
        served.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        server = Server(f"https://127.0.0.1:{port}", folder / "authority.pem")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(interpreter), "-m", "localstack.runtime.main"],
                env=environment_of_aws(_settings(folder, port)),
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for(server, process, folder / "log")
            yield server
        finally:
            process.terminate()
            process.wait(timeout=60)


def _settings(folder: Path, port: int) -> dict[str, str]:
    """Return an environment for S3 and KMS only, without Docker or the network."""
    return {
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "LOCALSTACK_HOST": f"127.0.0.1:{port}",
        "CUSTOM_SSL_CERT_PATH": str(folder / "server.pem"),
        "SERVICES": "s3,kms",
        "STRICT_SERVICE_LOADING": "1",
        "EAGER_SERVICE_LOADING": "1",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "OVERRIDE_IN_DOCKER": "0",
        "DISABLE_CORS_CHECKS": "1",
        "DNS_ADDRESS": "0",
        "ACTIVATE_PRO": "0",
        "FILESYSTEM_ROOT": str(folder),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


def wait_for(server: Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server answers.

    Raises
    ------
    RuntimeError, TimeoutError
        If it ends instead, or is silent.
    """
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=_REGION,
        verify=str(server.certificate) if server.certificate else None,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  # of a server that asks for none
    )
    for _ in range(240):
        if process.poll() is not None:
            raise RuntimeError(f"{server.endpoint} has ended: {log.read_text()[-2000:]}")
        with suppress(BotoCoreError):
            client.list_buckets()
            return
        sleep(0.25)
    raise TimeoutError(f"{server.endpoint} does not answer: {log.read_text()[-2000:]}")
