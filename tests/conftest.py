"""Fixtures of all tests: sample data, an embedded AWS and the function in it."""

import ast
import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from io import BytesIO
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import jsonpath_ng.ext
import moto.backends
import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import ClientError
from hypothesis import settings as hypothesis_settings
from jsonschema import Draft202012Validator
from moto.s3.models import FakeKey, FakeMultipart, s3_backends
from moto.sqs.models import sqs_backends

from core.product import Form
from handler import app
from handler.crds.masks import References
from handler.event import Bus
from handler.ledger import Ledger
from handler.s3.blocks import Blocks
from handler.s3.objects import S3Location
from handler.services import Services, client
from handler.settings import Settings
from infra.demo.local_aws import (
    MIRROR,
    PRODUCTS,
    RAW,
    LocalAws,
    copy_cache,
    isolated_environment,
    local_aws,
)
from tests.s3_matrix.server import another_s3
from tests.samples.exposures import asdf_hdu, primary_header, write_exposure
from tests.samples.masks import MASKS
from tests.samples.mirror import write_sample_mirror
from tests.samples.modes import MODES

# moto keeps parts of an upload in memory; by default it writes all of them to files.
os.environ["MOTO_S3_DEFAULT_KEY_BUFFER_SIZE"] = str(10**9)
# moto does this anew for each request, and needs 2 of 6 ms for it, 14 of 20 ms for an event.
moto.backends.list_of_moto_modules = partial(iter, [*moto.backends.list_of_moto_modules()])
jsonpath_ng.ext.parse = cache(jsonpath_ng.ext.parse)

QUEUE, UNFINISHED = (f"arn:aws:sqs:us-east-1:123456789012:{n}" for n in ("uploads", "unfinished"))
PROJECT = Path(__file__).parents[1]
SHARED = PROJECT.parent / "shared" / "data"
SCHEMA = json.loads(
    (PROJECT / "infra" / "contracts" / "processing-event-2.1.schema.json").read_text()
)
# Not `jsonschema.validate`, which checks the schema every time (0.1 s).
EVENTS = Draft202012Validator(SCHEMA)

SMALL_MASKS = tuple(replace(mask, dtype="u1") if mask.own_bits else mask for mask in MASKS)
"""Masks of one byte per pixel if their bits fit, to save disk space."""

hypothesis_settings.register_profile("default", deadline=None, max_examples=100)
hypothesis_settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    """Isolate the tests from the user's environment variables, before they are imported."""
    shell = ExitStack()
    shell.enter_context(isolated_environment())
    config.add_cleanup(shell.close)


@pytest.fixture(autouse=True)
def _reset_crds_environment() -> None:
    """Remove the variables by which an earlier test configured `crds`."""
    for name in [name for name in os.environ if name.startswith("CRDS_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def sample_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CRDS cache with the project's own rules and masks."""
    root = tmp_path_factory.mktemp("sample_cache")
    write_sample_mirror(root, SMALL_MASKS)
    return root


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CRDS cache with the real rules of jwst_0541 and one real mask."""
    source = SHARED / "crds-mirror"
    if not source.is_dir():
        pytest.skip("the real CRDS rules are not here: test_modes uses the project's own")
    root = tmp_path_factory.mktemp("real_cache")
    for packed in source.rglob("*.gz"):
        unpacked = root / packed.relative_to(source).with_suffix("")
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        unpacked.write_bytes(gzip.decompress(packed.read_bytes()))
    for folder in ("mappings", "config"):
        shutil.copytree(source / folder, root / folder, copy_function=shutil.copyfile)
    return root


@pytest.fixture(scope="session")
def exposure(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small subarray exposure of NIRCam that has a mask."""
    path = tmp_path_factory.mktemp("exposure") / "x_uncal.fits"
    write_exposure(next(mode for mode in MODES if mode.name == "nircam-sub64p"), path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def large() -> bytes:
    """A full frame of NIRCam with 17 MB of SCI, which needs a multipart upload with copies."""
    sci = np.arange(2 * 2048 * 2048, dtype=np.uint32).astype(np.uint16).reshape(1, 2, 2048, 2048)
    header = primary_header(next(mode for mode in MODES if mode.name == "nircam-full"))
    buffer = BytesIO()
    hdus = [fits.PrimaryHDU(header=header), fits.ImageHDU(sci, name="SCI"), asdf_hdu()]
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def aws() -> Iterator[LocalAws]:
    """An embedded AWS over HTTP, with another S3 in ``make s3-matrix``."""
    with local_aws() as running:
        other = os.environ.get("S3_OF_TESTS")
        yield AwsOfTests.of(another_s3(running, other) if other else running)


@dataclass
class AwsOfTests(LocalAws):
    """An embedded AWS whose clients are shared by all tests: a client takes 10 ms of CPU."""

    new_client: Callable[[str], Any] = boto3.client
    clients: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, running: LocalAws) -> "AwsOfTests":
        return cls(running.endpoint, running.uploads, running.announcements, running.client)

    def client(self, service: str) -> Any:
        if service not in self.clients:
            self.clients[service] = client = self.new_client(service)
            events = client.meta.events
            for name in ("register", "register_first", "register_last"):
                setattr(events, name, self._private(service, getattr(events, name)))
        return self.clients[service]

    def _private(self, service: str, register: Callable[..., None]) -> Callable[..., None]:
        """Share a client no longer when a test registers a hook with it."""

        def hook(*arguments: Any, **options: Any) -> None:
            self.clients.pop(service, None)
            register(*arguments, **options)

        return hook


@pytest.fixture(scope="session")
def mirrors(aws: LocalAws, sample_cache: Path) -> set[str]:
    """Prefixes of the mirrors that have been filled; each test file adds what it needs."""
    copy_cache(sample_cache, aws.client("s3"), MIRROR)
    return {""}


@dataclass
class Harness:
    """The function in the embedded AWS."""

    aws: LocalAws
    function: Services
    requests: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def settings(self) -> Settings:
        return self.function.settings

    def upload(self, content: bytes | Path, key: str) -> str:
        body = content.read_bytes() if isinstance(content, Path) else content
        answer = self.aws.client("s3").put_object(Bucket=RAW, Key=key, Body=body)
        return answer["VersionId"]

    def with_settings(self, **changes: Any) -> "Harness":
        settings = replace(self.settings, **changes)
        return replace(self, function=replace(self.function, settings=settings))

    def with_services(self, **changes: Any) -> "Harness":
        return replace(self, function=replace(self.function, **changes))

    def run(self, key: str, **fields: Any) -> dict[str, Any]:
        """Send a direct request; return the detail of its event, or raise its failure."""
        return self.run_event({"bucket": RAW, "key": key, **fields})

    def run_event(self, event: Any, request_id: str = "") -> dict[str, Any]:
        request_id = request_id or f"request-{next(self.requests)}"
        result = app.answer(event, self.function, app.Attempt(request_id, request_id))
        return result.to_detail() if result else {}

    def run_batch(
        self, *bodies: str, identifier: str = "", deliveries: int = 1, queue: str = QUEUE
    ) -> list[str]:
        """Send an SQS batch; return the ids of the messages to retry."""
        identifiers = [identifier or f"message-{next(self.requests)}" for _ in bodies]
        records = [
            record_of(name, body, queue, deliveries)
            for name, body in zip(identifiers, bodies, strict=True)
        ]
        answer = app.answer_batch({"Records": records}, self.function, "request-of-batch", 900)
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def run_unfinished(self, *bodies: str, identifier: str = "") -> list[str]:
        """Send a batch from UnfinishedQueue."""
        return self.run_batch(*bodies, identifier=identifier, queue=UNFINISHED)

    def product(self, detail: dict[str, Any]) -> bytes:
        output = detail["output"]
        answer = self.aws.client("s3").get_object(Bucket=output["bucket"], Key=output["key"])
        return answer["Body"].read()

    def product_key(self, name: str = "2023/jw01") -> str:
        """Return the key of the product of an exposure, in the form of the settings."""
        end = "_virtual" if self.settings.form is Form.VIRTUAL else ""
        return f"dq_init/{name}_dq_init{end}.fits"

    def products(self, prefix: str = "dq_init/") -> set[str]:
        found = self.aws.client("s3").list_objects_v2(Bucket=PRODUCTS, Prefix=prefix)
        return {item["Key"] for item in found.get("Contents", [])}

    def announcements(self) -> list[dict[str, Any]]:
        """Return the processing events since the last call, each checked against the schema."""
        details = []
        for message in self.aws.receive(self.aws.announcements):
            event = json.loads(message["Body"])
            assert event["source"] == "jwst.dq_init"
            assert event["detail-type"] == f"DQ Initialization {event['detail']['status']}"
            EVENTS.validate(event["detail"])
            assert len(message["Body"]) < 64 * 1024
            details.append(event["detail"])
        return details


def imported_names(path: Path) -> set[str]:
    """Return what a module imports, also in its functions, such as `a.b` for `from a import b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def record_of(identifier: str, body: str, queue: str, deliveries: int = 1) -> dict[str, Any]:
    """Return a message as Lambda's poller passes it in a batch."""
    return {
        "eventSource": "aws:sqs",
        "messageId": identifier,
        "body": body,
        "receiptHandle": "receipt",
        "eventSourceARN": queue,
        "attributes": {"ApproximateReceiveCount": str(deliveries)},
    }


def created(
    key: str,
    version: str | None = None,
    etag: str | None = None,
    size: int | None = None,
    bucket: str = RAW,
) -> str:
    """Return the body of a message: an EventBridge event of an uploaded exposure."""
    entity = {"key": key, "version-id": version, "etag": etag, "size": size}
    known = {name: value for name, value in entity.items() if value is not None}
    detail = {"bucket": {"name": bucket}, "object": known}
    return json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})


@pytest.fixture
def make_function(aws: AwsOfTests, mirrors: set[str], tmp_path: Path) -> Iterator[Any]:
    """A factory of functions with other settings, each with an empty /tmp."""
    empty_buckets(aws)

    def make(
        prefix: str = "", context: str = "latest", blocks: S3Location | None = None
    ) -> Harness:
        mirror, scratch = S3Location(MIRROR, prefix), tmp_path / "scratch"
        s3, events = aws.new_client("s3"), aws.new_client("events")
        check = partial(check_copied_object, aws)
        s3.meta.events.register("provide-client-params.s3.UploadPartCopy", check)
        settings = Settings(
            PRODUCTS,
            "dq_init/",
            mirror,
            context,
            blocks=blocks,
            ledger=S3Location(PRODUCTS, "dq_ledger"),
            unfinished_queue_arn=UNFINISHED,
        )
        function = Services(
            settings,
            s3,
            References.of(mirror, scratch, s3),
            Blocks(blocks),
            Ledger(settings.ledger),
            Bus("default", events),
            partial(aws.client, "sqs"),
        )
        return Harness(aws, function)

    return make


@pytest.fixture
def function(make_function: Any) -> Harness:
    """The function with the project's own mirror."""
    return make_function()


@pytest.fixture
def entry(aws: LocalAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The entry module with an environment and a /tmp of its own, before INIT."""
    monkeypatch.setenv("OUTPUT_BUCKET", PRODUCTS)
    monkeypatch.setenv("CRDS_MIRROR", f"s3://{MIRROR}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    forget()
    yield app
    forget()


def check_copied_object(aws: LocalAws, params: dict[str, Any], **_: Any) -> None:
    """Enforce CopySourceIfMatch as S3 does; moto and Ceph ignore it."""
    found = aws.client("s3").head_object(**params["CopySource"])
    if found["ETag"] != params["CopySourceIfMatch"]:
        answer = {
            "Error": {"Code": "PreconditionFailed", "Message": "of x-amz-copy-source-If-Match"}
        }
        raise ClientError(answer, "UploadPartCopy")


def forget() -> None:
    """Clear the cached services and clients of the entry."""
    app.services_from_environment.cache_clear()
    client.cache_clear()


def empty_bucket(s3: Any, bucket: str) -> None:
    """Delete every version of every object."""
    found = s3.list_object_versions(Bucket=bucket)
    items = found.get("Versions", []) + found.get("DeleteMarkers", [])
    if items:
        objects = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in items]
        s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})


def empty_buckets(aws: LocalAws) -> None:
    """Delete the exposures, products and messages of earlier tests."""
    if "S3_OF_TESTS" not in os.environ:
        empty_moto()
        return
    s3 = aws.client("s3")
    for bucket in (RAW, PRODUCTS):
        empty_bucket(s3, bucket)
        for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    for queue in (aws.uploads, aws.announcements):
        aws.receive(queue)


def empty_moto() -> None:
    """Empty the buckets and queues of moto, which runs in this process, without requests."""
    account = "123456789012"
    for name in (RAW, PRODUCTS):
        bucket = s3_backends[account]["aws"].buckets[name]
        for key in list(bucket.keys):
            bucket.keys.setlist(key, [])  # closes the files of the versions
        bucket.keys.clear()
        for identifier in list(bucket.multiparts):
            del bucket.multiparts[identifier]
    # moto remembers every key and upload for its `reset`, and with them what they contain.
    buckets = s3_backends[account]["aws"].buckets.values()
    kept = {
        id(key) for bucket in buckets for _, versions in bucket.keys.lists() for key in versions
    }
    for tracked in (FakeMultipart.instances_tracked, FakeKey.instances_tracked):
        for item in tracked:
            if id(item) not in kept:
                item.dispose()
        tracked[:] = [item for item in tracked if id(item) in kept]
    sqs = sqs_backends[account]["us-east-1"]
    for name in ("uploads", "announcements"):
        sqs.get_queue(name).last_purged_at = None  # SQS purges a queue once a minute
        sqs.purge_queue(name)
