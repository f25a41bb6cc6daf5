"""Measure the function against the design's figures and against jwst, side by side.

``make bench`` runs it. What it prints it also writes to RESULTS.md beside this file.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import boto3

from infra.bundle.python import PYTHON, target_python
from infra.mirror.cache import upload_cache
from infra.samples.exposures import write_exposure
from infra.samples.mirror import CONTEXT, write_sample_mirror
from infra.samples.modes import MODES
from tests.benchmark.material import EXPOSURES, LongExposure
from tests.benchmark.servers import CountingProxy, absolute, discarding, ministack, moto

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
BUNDLE = PROJECT / ".aws-sam" / "build" / "Function"
MIB = 1024 * 1024
RAW, PRODUCTS, MIRROR = "bench-raw", "bench-products", "bench-mirror"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_PART = 64 * MIB


@dataclass
class Worker:
    """The function, in a process of its own."""

    process: "subprocess.Popen[str]"
    proxy: CountingProxy

    def run(self, **request: Any) -> dict[str, Any]:
        """Invoke it; returns detail, cost, and bytes at the socket."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.proxy.reset()
        self.process.stdin.write(json.dumps({"bucket": RAW, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the function's process has ended; see its error output above")
        answer = json.loads(line)
        answer["received"], answer["sent"] = self.proxy.received, self.proxy.sent
        return answer


@dataclass
class Bench:
    """An S3 server, filled with a mirror."""

    port: int
    proxy: CountingProxy
    folder: Path
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def s3(self) -> Any:
        """A client that goes to the server directly, past the counter."""
        return client(self.port)

    @contextmanager
    def worker(self, encoding: str, blocks: bool = True, bundle: bool = False) -> Iterator[Worker]:
        """Start the function with an empty /tmp; from the bundle, on Lambda's Python, if asked."""
        command = [sys.executable, "-m", "tests.benchmark.worker"]
        if bundle:
            command = [str(target_python()), str(HERE / "worker.py")]
        with tempfile.TemporaryDirectory() as scratch:
            environment = {
                **os.environ,
                **CREDENTIALS,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.port}",
                "OUTPUT_BUCKET": PRODUCTS,
                "CRDS_MIRROR": f"s3://{MIRROR}",
                "SCIENCE_ENCODING": encoding,
                "DQ_BLOCK_URI": f"s3://{MIRROR}/blocks" if blocks else "",
                "POWERTOOLS_LOG_LEVEL": "WARNING",
                "POWERTOOLS_METRICS_DISABLED": "true",
                "TMPDIR": scratch,
                "PYTHONPATH": str(BUNDLE if bundle else PROJECT),
            }
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
                text=True,
            )
            try:
                yield Worker(process, self.proxy)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                process.wait(timeout=60)


def client(port: int) -> Any:
    """A boto3 client of the server on that port."""
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
    """Make the buckets and the mirror."""
    for bucket in (RAW, PRODUCTS, MIRROR):
        s3.create_bucket(Bucket=bucket)
    list(upload_cache(cache, s3, MIRROR, instruments=["nircam"]))


def jwst(interpreter: Path, *arguments: str, cache: Path) -> Any:
    """Run a script in jwst's own environment."""
    environment = {
        **os.environ,
        "CRDS_PATH": str(cache),
        "CRDS_SERVER_URL": "https://crds-serverless-mode.invalid",
        "CRDS_CONTEXT": CONTEXT,
    }
    done = subprocess.run(
        [str(interpreter), str(HERE / "with_jwst.py"), *arguments],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def digest(path: Path) -> str:
    """SHA-256 of a product, its DATE card left out."""
    content = path.read_bytes()
    place = content.index(b"DATE    = '")
    return hashlib.sha256(content[:place] + content[place + 80 :]).hexdigest()


def measure(bench: Bench, interpreter: Path, cache: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of the table: what, goal, measured, how."""
    yield from against_jwst(bench, interpreter, cache, EXPOSURES[0])
    yield from cold(bench, interpreter, cache)
    yield from by_size(bench, EXPOSURES)
    yield largest(bench.folder, cache, EXPOSURES[-1])


def against_jwst(
    bench: Bench, interpreter: Path, cache: Path, small: LongExposure
) -> Iterator[tuple[str, str, str, str]]:
    """CPU time and first answer, side by side with jwst; and that the products are the same."""
    local = bench.folder / "small_uncal.fits"
    with local.open("wb") as file:
        file.writelines(small.content())
    theirs = jwst(
        interpreter, "step", str(local), str(bench.folder / "jwst.fits"), "3", cache=cache
    )
    their_cpu = median(cost["cpu"] for cost in theirs[1:])

    for encoding, goal in (("native", 1 / 5), ("float32", 1 / 2)):
        with bench.worker(encoding) as worker:
            worker.run(key=small.key, onExisting="replace")
            warm = [worker.run(key=small.key, onExisting="replace") for _ in range(5)]
        cpu = median(answer["cost"]["cpu"] for answer in warm)
        yield (
            f"CPU time, {small.name}, warm, {encoding}, against jwst",
            f"<= {goal:.2f}",
            f"{cpu / their_cpu:.3f}",
            f"{cpu:.2f} s against {their_cpu:.2f} s",
        )
        yield from compared(bench, interpreter, cache, encoding, small)


def cold(bench: Bench, interpreter: Path, cache: Path) -> Iterator[tuple[str, str, str, str]]:
    """The first product of fresh processes, taken in turns with jwst's; blocks are in S3."""
    subarray = bench.folder / "subarray_uncal.fits"
    write_exposure(next(mode for mode in MODES if mode.name == "nircam-sub64p"), subarray)
    bench.s3.upload_file(str(subarray), RAW, subarray.name)
    full = bench.folder / "small_uncal.fits"
    for name, key, path in (
        ("a subarray", subarray.name, subarray),
        (EXPOSURES[0].name, EXPOSURES[0].key, full),
    ):
        ours, theirs = [], []
        for _ in range(5):
            with bench.worker("native", bundle=True) as worker:
                answer = worker.run(key=key, onExisting="replace")
            ours.append(answer["cost"]["since_start"])
            output = str(bench.folder / "cold.fits")
            (cost,) = jwst(interpreter, "step", str(path), output, "1", cache=cache)
            theirs.append(cost["since_start"])
        yield (
            f"first product of a fresh process, {name}, against jwst's",
            "<= 0.50",
            f"{median(ours) / median(theirs):.3f}",
            f"{median(ours):.2f} s against {median(theirs):.2f} s, medians of 5; the built bundle "
            f"on Python {PYTHON}",
        )


def largest(folder: Path, cache: Path, exposure: LongExposure) -> tuple[str, str, str, str]:
    """Memory for the largest exposure in float32, against a server that keeps nothing."""
    path = folder / "largest_uncal.fits"
    with path.open("wb") as file:
        file.writelines(exposure.content())
    with discarding(path, cache) as port:
        proxy = CountingProxy(port)
        proxy.start()
        with Bench(port, proxy, folder).worker("float32", blocks=False) as worker:
            answer = worker.run(key=exposure.key, onExisting="replace")
    path.unlink()
    return memory(exposure, "float32", answer, "; the server kept nothing of it")


def memory(
    exposure: LongExposure, encoding: str, answer: dict[str, Any], remark: str = ""
) -> tuple[str, str, str, str]:
    """The row of the peak memory."""
    cost = answer["cost"]
    moved = f"{answer['received'] / MIB:.1f} MiB in, {answer['sent'] / MIB:.1f} MiB out"
    return (
        f"peak memory, {exposure.name}, {encoding}",
        "<= 256 MiB",
        f"{cost['peak_mib']:.0f} MiB",
        f"{moved}; {cost['seconds']:.1f} s, CPU {cost['cpu']:.1f} s{remark}",
    )


def by_size(
    bench: Bench, exposures: tuple[LongExposure, ...]
) -> Iterator[tuple[str, str, str, str]]:
    """Bytes and memory, for every size and both encodings."""
    for encoding in ("native", "float32"):
        for exposure in exposures[: 3 if encoding == "native" else 2]:
            with bench.worker(encoding) as worker:
                answer = worker.run(key=exposure.key, onExisting="replace")
                if encoding == "native":  # the first made the block; float32 streams either way
                    answer = worker.run(key=exposure.key, onExisting="replace")
            if exposure.name == "839 MB" and encoding == "native":
                for way, goal in (("received", 8), ("sent", 32)):
                    yield (
                        f"bytes through the function, 839 MB, warm: {way}",
                        f"<= {goal} MiB",
                        f"{answer[way] / MIB:.1f} MiB",
                        "at the socket, protocol included",
                    )
            yield memory(exposure, encoding, answer)


def compared(
    bench: Bench, interpreter: Path, cache: Path, encoding: str, exposure: LongExposure
) -> Iterator[tuple[str, str, str, str]]:
    """The same product by assembly, by streaming and on moto; and as jwst sees it."""
    key = exposure.key.rpartition("/")[2].replace("_uncal", "_dq_init")
    digests = {}
    assembled = bench.folder / "assembled.fits"
    bench.s3.download_file(PRODUCTS, f"dq_init/{key}", str(assembled))
    digests["assembled"] = digest(assembled)
    with bench.worker(encoding, blocks=False) as worker:
        worker.run(key=exposure.key, onExisting="replace")
    bench.s3.download_file(PRODUCTS, f"dq_init/{key}", str(bench.folder / "streamed.fits"))
    digests["without blocks"] = digest(bench.folder / "streamed.fits")
    with moto() as port:
        proxy = CountingProxy(port)
        proxy.start()
        other = Bench(port, proxy, bench.folder)
        fill(other.s3, cache)
        upload(other.s3, exposure)
        with other.worker(encoding) as worker:
            worker.run(key=exposure.key, onExisting="replace")
        other.s3.download_file(PRODUCTS, f"dq_init/{key}", str(bench.folder / "moto.fits"))
        digests["on moto"] = digest(bench.folder / "moto.fits")
    different = jwst(
        interpreter, "compare", str(assembled), str(bench.folder / "jwst.fits"), cache=cache
    )
    same = len(set(digests.values())) == 1
    yield (
        f"products of {exposure.name}, {encoding}: {', '.join(digests)}",
        "the same bytes",
        "the same" if same else "DIFFERENT",
        "MiniStack and moto, DATE left out",
    )
    yield (
        f"product of {exposure.name}, {encoding}, opened by jwst",
        "arrays and metadata equal",
        "equal" if not different else f"DIFFERENT: {', '.join(different)}",
        "against jwst's own product",
    )


def report(rows: list[tuple[str, str, str, str]], seconds: float) -> str:
    """The table, as Markdown."""
    with Path("/proc/cpuinfo").open() as info:
        model = next((line.split(":")[1].strip() for line in info if "model name" in line), "?")
    lines = [
        "# Benchmark",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with `make bench` in {seconds / 60:.0f} minutes: "
        f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} cores of {model}.",
        "S3 is MiniStack in a process of its own, reached through a proxy that counts the bytes;",
        "jwst 3.0.0 reads and writes local files. Ratios are of one run, side by side.",
        "",
        "| what | goal | measured | |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "The first product of a fresh process is that of the deployed bundle: imports, clients, rules,",
        "mask, product, with an empty /tmp.",
        "In float32 encoding the first product is the one whose memory is shown.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jwst", type=absolute, required=True, help="jwst's own interpreter")
    parser.add_argument("--small", action="store_true", help="the small exposure only, no file")
    parser.add_argument("--ministack", type=absolute, required=True, help="MiniStack's interpreter")
    arguments = parser.parse_args()
    started = datetime.now(UTC)
    rows = []
    with tempfile.TemporaryDirectory() as folder, ministack(arguments.ministack) as port:
        cache = Path(folder) / "cache"
        write_sample_mirror(cache)
        proxy = CountingProxy(port)
        proxy.start()
        bench = Bench(port, proxy, Path(folder))
        fill(bench.s3, cache)
        for exposure in EXPOSURES[: 1 if arguments.small else None]:
            print(f"uploading {exposure.name}", flush=True)
            upload(bench.s3, exposure)
        rows_to_come = (
            chain(
                against_jwst(bench, arguments.jwst, cache, EXPOSURES[0]),
                cold(bench, arguments.jwst, cache),
            )
            if arguments.small
            else measure(bench, arguments.jwst, cache)
        )
        for row in rows_to_come:
            print(" | ".join(row), flush=True)
            rows.append(row)
    if arguments.small:
        return
    text = report(rows, (datetime.now(UTC) - started).total_seconds())
    (HERE / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
