"""What all tests share: the material, an embedded AWS, and the function set up in it."""

import gzip
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from hypothesis import settings as hypothesis_settings

from core.product import Encoding
from handler import app
from handler.app import handle_one
from handler.batches import handle_batch
from handler.case import Services
from handler.invocation import Invocation
from handler.outcomes import Outcomes
from handler.reference import References
from handler.references.masks import Masks
from handler.references.rules import Rules
from handler.s3.blocks import Blocks
from handler.s3.locations import S3Location
from handler.settings import OnExisting, Settings
from infra.demo.local_aws import EVENT_LOG, MIRROR, PRODUCTS, RAW, LocalAws, local_aws
from infra.demo.samples.mirror import write_sample_mirror
from infra.mirror.cache import upload_cache

PROJECT = Path(__file__).parents[1]
SHARED = PROJECT.parent / "shared" / "data"
SCHEMA = json.loads(
    (PROJECT / "infra" / "contracts" / "processing-event-1.1.schema.json").read_text()
)

hypothesis_settings.register_profile("default", deadline=None, max_examples=100)
hypothesis_settings.load_profile("default")


@pytest.fixture(scope="session")
def sample_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CRDS cache with the project's own rules and masks."""
    root = tmp_path_factory.mktemp("sample_cache")
    write_sample_mirror(root)
    return root


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CRDS cache with the real rules of jwst_0541 and one real mask."""
    source = SHARED / "crds-mirror"
    if not source.is_dir():
        pytest.skip("no ../shared/data: the project's own material stands in, see test_modes")
    root = tmp_path_factory.mktemp("real_cache")
    for packed in source.rglob("*.gz"):
        unpacked = root / packed.relative_to(source).with_suffix("")
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        unpacked.write_bytes(gzip.decompress(packed.read_bytes()))
    for folder in ("mappings", "config"):
        shutil.copytree(source / folder, root / folder, copy_function=shutil.copyfile)
    return root


@pytest.fixture(scope="session")
def aws() -> Iterator[LocalAws]:
    """An embedded AWS, reached over HTTP."""
    with local_aws() as running:
        yield running


@pytest.fixture(scope="session")
def mirrors(aws: LocalAws, sample_cache: Path) -> set[str]:
    """Prefixes of the mirrors that have been filled; each test file adds what it needs."""
    list(upload_cache(sample_cache, aws.client("s3"), MIRROR))
    return {""}


@dataclass
class Function:
    """The function, in the embedded AWS."""

    aws: LocalAws
    services: Services
    settings: Settings
    announced: list[dict[str, Any]] = field(default_factory=list)
    requests: Iterator[int] = field(default_factory=lambda: count(1))

    def upload(self, content: bytes | Path, key: str) -> str:
        body = content.read_bytes() if isinstance(content, Path) else content
        answer = self.aws.client("s3").put_object(Bucket=RAW, Key=key, Body=body)
        return answer["VersionId"]

    def with_settings(self, **changes: Any) -> "Function":
        return replace(self, settings=replace(self.settings, **changes))

    def run(self, key: str, **fields: Any) -> dict[str, Any]:
        """A direct request; returns the detail, raises on failure."""
        event = {"bucket": RAW, "key": key, **fields}
        return self.run_event(event)

    def run_event(self, event: dict[str, Any]) -> dict[str, Any]:
        return handle_one(event, self.settings, self.services, self.invocation())

    def run_batch(self, *bodies: str, delivery: int = 1) -> dict[str, Any]:
        attributes = {"ApproximateReceiveCount": str(delivery)}
        records = [
            {"messageId": f"message-{i}", "body": body, "attributes": attributes}
            for i, body in enumerate(bodies)
        ]
        batch = {"Records": records}
        sqs = partial(self.aws.client, "sqs")
        return handle_batch(batch, self.settings, self.services, self.invocation(), sqs)

    def invocation(self) -> Invocation:
        return Invocation(f"request-{next(self.requests)}", time.time() + 900)

    def product(self, detail: dict[str, Any]) -> bytes:
        output = detail["output"]
        answer = self.aws.client("s3").get_object(Bucket=output["bucket"], Key=output["key"])
        return answer["Body"].read()

    def products(self, prefix: str = "dq_init/") -> set[str]:
        found = self.aws.client("s3").list_objects_v2(Bucket=PRODUCTS, Prefix=prefix)
        return {item["Key"] for item in found.get("Contents", [])}

    def announcements(self) -> list[dict[str, Any]]:
        """The processing events on the bus since the last look, each checked by its schema."""
        details = []
        for message in self.aws.receive(self.aws.announcements):
            event = json.loads(message["Body"])
            assert event["source"] == "jwst.dq_init"
            assert event["detail-type"] == f"DQ Initialization {event['detail']['status']}"
            jsonschema.validate(event["detail"], SCHEMA)
            assert len(message["Body"]) < 64 * 1024
            details.append(event["detail"])
        return details


@pytest.fixture
def make_function(aws: LocalAws, mirrors: set[str], tmp_path: Path) -> Iterator[Any]:
    """Make functions of any settings, each with an empty /tmp."""
    empty_buckets(aws)

    def make(
        prefix: str = "", context: str = "latest", blocks: S3Location | None = None
    ) -> Function:
        mirror = S3Location(MIRROR, prefix)
        scratch = tmp_path / "scratch"
        s3, events, logs = aws.client("s3"), aws.client("events"), partial(aws.client, "logs")
        references = References(Rules(mirror, scratch, s3), Masks(mirror, scratch / "references"))
        place = S3Location(PRODUCTS, "dq_outcomes")
        outcomes = Outcomes(place, EVENT_LOG, "default", s3, events, logs)
        services = Services(s3, references, Blocks(blocks), outcomes)
        settings = Settings(
            PRODUCTS, "dq_init/", mirror, context, "default", Encoding.NATIVE, OnExisting.SKIP
        )
        return Function(aws, services, settings)

    environment = dict(os.environ)
    yield make
    os.environ.clear()  # what `crds` was told
    os.environ.update(environment)


@pytest.fixture
def function(make_function: Any) -> Function:
    """The function, with the project's own mirror."""
    return make_function()


@pytest.fixture
def entry(aws: LocalAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The function's entry in an environment and a /tmp of its own, nothing made yet."""
    monkeypatch.setenv("OUTPUT_BUCKET", PRODUCTS)
    monkeypatch.setenv("CRDS_MIRROR", f"s3://{MIRROR}")
    monkeypatch.setattr(app.tempfile, "tempdir", str(tmp_path))
    forget()
    yield app
    forget()


def forget() -> None:
    """Let the entry make its services and clients anew."""
    app.settings_and_services.cache_clear()
    app.client.cache_clear()


def empty_buckets(aws: LocalAws) -> None:
    """Forget the exposures, products and messages of the tests before."""
    s3 = aws.client("s3")
    for bucket in (RAW, PRODUCTS):
        found = s3.list_object_versions(Bucket=bucket)
        for item in found.get("Versions", []) + found.get("DeleteMarkers", []):
            s3.delete_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])
        for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    for queue in (aws.uploads, aws.announcements):
        aws.receive(queue)
