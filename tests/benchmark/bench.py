"""Shared by all rows: a filled S3 server, and the built bundle in processes."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from uuid import uuid4

import boto3

from core.product import Form
from infra.bundle.build import target_python
from infra.demo.local_aws import copy_cache
from tests.benchmark.material import LongExposure
from tests.benchmark.servers import CountingProxy, discarding
from tests.bundle.lambda_runtime import BUNDLE
from tests.conftest import created, record_of
from tests.model_of_s3.server import ETAG, VERSION

HERE = Path(__file__).parent
MIB = 1024 * 1024
RAW, PRODUCTS, MIRROR = "bench-raw", "bench-products", "bench-mirror"
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_PART = 64 * MIB
_QUEUE = "arn:aws:sqs:us-east-1:123456789012:uploads"


def spread(seconds: list[float]) -> str:
    """Return median, minimum and maximum."""
    return f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


class Row(NamedTuple):
    """A row of the table."""

    what: str
    goal: str
    measured: str
    remark: str


@dataclass
class Worker:
    """The function in a process."""

    process: "subprocess.Popen[str]"
    proxy: CountingProxy

    def run(self, key: str) -> dict[str, Any]:
        """Rebuild a product; return detail, cost and bytes at the socket."""
        return self.send({"bucket": RAW, "key": key, "onExisting": "replace"})

    def send(self, event: dict[str, Any]) -> dict[str, Any]:
        """Process an event; return the answer, its cost and the bytes at the socket."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.proxy.reset()
        self.process.stdin.write(json.dumps(event) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the function's process has ended; see its error output above")
        answer = json.loads(line)
        answer["received"], answer["sent"] = self.proxy.received, self.proxy.sent
        return answer


@dataclass
class Bench:
    """An S3 server, a proxy that counts its bytes, and a folder."""

    port: int
    proxy: CountingProxy
    folder: Path

    @property
    def s3(self) -> Any:
        """A client of the server, without the proxy."""
        return client(self.port)

    @contextmanager
    def worker(
        self, product: str, blocks: bool = True, counted: bool = True, group: Path | None = None
    ) -> Iterator[Worker]:
        """Start the built bundle with an empty /tmp behind the proxy, which takes time.

        `group` is what limits its CPU (tests.benchmark.cpu).
        """
        port = self.proxy.port if counted else self.port
        with tempfile.TemporaryDirectory() as scratch:
            environment = os.environ | function_environment(port, product, blocks)
            environment |= {"TMPDIR": scratch, "PYTHONPATH": str(BUNDLE)}
            process = subprocess.Popen(
                [str(target_python()), str(HERE / "worker.py")],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
                text=True,
            )
            if group is not None:
                group.write_text(str(process.pid))
            try:
                yield Worker(process, self.proxy)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                process.wait(timeout=60)


@contextmanager
def served(
    bench: Bench, cache: Path, exposure: LongExposure, *options: str
) -> Iterator[tuple[Bench, Path]]:
    """Replace the emulator by the server that discards products, with one exposure."""
    path = bench.folder / "served_uncal.fits"
    with path.open("wb") as file:
        file.writelines(exposure.content())
    with discarding(path, cache, *options) as port:
        proxy = CountingProxy(port)
        proxy.start()
        yield replace(bench, port=port, proxy=proxy), path
    path.unlink()


def move(bench: Bench, key: str, product: Path) -> float:
    """Download an exposure and upload its product by boto3's transfer; return seconds."""
    start = time.perf_counter()
    bench.s3.download_file(RAW, key, str(bench.folder / "fetched.fits"))
    bench.s3.upload_file(str(product), PRODUCTS, "jwst.fits")
    return time.perf_counter() - start


def function_environment(port: int, product: str = "native", blocks: bool = True) -> dict[str, str]:
    """Return the function's environment with S3 on a port.

    `product` is virtual, or the encoding of assembled products.
    """
    is_virtual = product == Form.VIRTUAL
    return _CREDENTIALS | {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "OUTPUT_BUCKET": PRODUCTS,
        "CRDS_MIRROR": f"s3://{MIRROR}",
        "PRODUCT_FORM": Form.VIRTUAL if is_virtual else Form.ASSEMBLED,
        "SCIENCE_ENCODING": "native" if is_virtual else product,
        "DQ_BLOCK_URI": f"s3://{MIRROR}/blocks" if blocks else "",
        "LEDGER_URI": f"s3://{PRODUCTS}/dq_ledger",
        "UPLOADED_QUEUE_URL": f"http://127.0.0.1:{port}/123456789012/uploads",
        "MALLOC_ARENA_MAX": "2",
        "POWERTOOLS_LOG_LEVEL": "WARNING",
        "POWERTOOLS_METRICS_DISABLED": "true",
    }


def uploaded(key: str, size: int) -> dict[str, Any]:
    """Return a batch of one message, the event of an upload to a bucket with versions."""
    return batch(created(key, VERSION, ETAG.strip('"'), size, RAW))


def batch(body: str) -> dict[str, Any]:
    """Return a batch of one message at its first delivery."""
    return {"Records": [record_of(uuid4().hex, body, _QUEUE)]}


def client(port: int) -> Any:
    """Return a boto3 client of the server on a port."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",  # noqa: S106
    )


def upload(s3: Any, exposure: LongExposure) -> None:
    """Upload an exposure in parts."""
    upload_id = s3.create_multipart_upload(Bucket=RAW, Key=exposure.key)["UploadId"]
    parts: list[dict[str, Any]] = []
    waiting = bytearray()

    def send() -> None:
        answer = s3.upload_part(
            Bucket=RAW, Key=exposure.key, UploadId=upload_id, PartNumber=len(parts) + 1,
            Body=bytes(waiting),
        )  # fmt: skip
        parts.append({"PartNumber": len(parts) + 1, "ETag": answer["ETag"]})
        waiting.clear()

    for piece in exposure.content():
        waiting += piece
        if len(waiting) >= _PART:
            send()
    send()
    s3.complete_multipart_upload(
        Bucket=RAW, Key=exposure.key, UploadId=upload_id, MultipartUpload={"Parts": parts}
    )


def fill(s3: Any, cache: Path) -> None:
    """Create the buckets and the mirror."""
    for bucket in (RAW, PRODUCTS, MIRROR):
        s3.create_bucket(Bucket=bucket)
    copy_cache(cache, s3, MIRROR, instruments=["nircam"])
