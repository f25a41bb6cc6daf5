"""The first exposure of a container: requests to the mirror, and mirrors that cannot be read."""

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.config import Config

from core.errors import ReferenceUnavailable, TransientFailure
from handler.crds.masks import MaskCache, References
from handler.s3.objects import ObjectStore, S3Location
from handler.services import read_ahead
from infra.demo.local_aws import MIRROR, RAW, LocalAws, LocalContext, copy_cache
from infra.mirror.bucket import Mirror
from infra.mirror.sources import Cache
from infra.mirror.sync import copy, plan_sync, write_config
from tests.conftest import Harness
from tests.samples.exposures import write_exposure
from tests.samples.mirror import CONTEXT
from tests.samples.modes import MODES

KEY, OTHER = "2023/jw01_uncal.fits", "2023/jw02_uncal.fits"
SUBARRAY = next(mode for mode in MODES if mode.name == "nircam-sub64p")
ALWAYS = ["config/jwst/mirror.json", "config/jwst/server_config", f"mappings/jwst/{CONTEXT}"]
FOR_NIRCAM = [f"mappings/jwst/jwst_nircam_{kind}" for kind in ("9001.imap", "mask_9001.rmap")]
MASK = "references/jwst/nircam/jwst_nircam_mask_9002.fits"


@pytest.fixture(scope="module")
def exposure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exposure") / "x_uncal.fits"
    write_exposure(SUBARRAY, path)
    return path


@pytest.fixture
def requested(function: Harness) -> list[str]:
    """Return the keys of the mirror that the function requests, in order."""
    return requests_to_mirror(function.function.s3)


def requests_to_mirror(s3: Any) -> list[str]:
    """Return a list of keys of the mirror; every request adds one."""
    keys: list[str] = []

    def add(params: dict[str, Any], **_: Any) -> None:
        if params["Bucket"] == MIRROR:
            keys.append(params["Key"])

    s3.meta.events.register("before-parameter-build.s3", add)
    return keys


def test_nothing_is_read_from_the_mirror_twice(
    function: Harness, exposure: Path, requested: list[str]
) -> None:
    function.upload(exposure, KEY)
    function.upload(exposure, OTHER)
    function.run(KEY)
    assert requested == [*ALWAYS, *FOR_NIRCAM, MASK]
    function.run(OTHER)
    assert requested == [*ALWAYS, *FOR_NIRCAM, MASK]


@pytest.mark.slow
def test_cold_resolution_makes_four_requests_to_a_synced_mirror(
    make_function: Any, exposure: Path, sample_cache: Path
) -> None:
    function: Harness = make_function("synced")
    s3, source = function.function.s3, Cache(sample_cache)
    mirror = Mirror(s3, S3Location(MIRROR, "synced"))
    plan = plan_sync(source, mirror, "latest", frozenset({"NIRCAM"}))
    list(copy(plan, source, mirror))
    write_config(plan, source, mirror)
    function.upload(exposure, KEY)
    requested = requests_to_mirror(s3)
    function.run(KEY)
    first = ["config/jwst/mirror.json", f"mappings/jwst/{CONTEXT}"]
    assert requested == [f"synced/{key}" for key in (*first, *FOR_NIRCAM, MASK)]


def test_context_is_read_during_init(
    function: Harness, exposure: Path, requested: list[str]
) -> None:
    with read_ahead(function.function.references, "latest"):
        pass
    assert requested == ALWAYS
    function.upload(exposure, KEY)
    function.run(KEY)
    assert requested == [*ALWAYS, *FOR_NIRCAM, MASK]


@pytest.mark.slow
def test_flat_mirror_is_read(
    make_function: Any, exposure: Path, sample_cache: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "flat"
    shutil.copytree(sample_cache, cache)
    references = cache / "references" / "jwst"
    for path in references.glob("*/*.fits"):
        path.rename(references / path.name)
    function: Harness = make_function("flat")
    copy_cache(cache, function.aws.client("s3"), MIRROR, "flat/")
    function.upload(exposure, KEY)
    assert function.run(KEY)["reference"]["mask"] == f"crds://{MASK.rpartition('/')[2]}"


def test_services_use_the_bus_and_pay_for_listed_buckets(
    monkeypatch: pytest.MonkeyPatch, entry: ModuleType
) -> None:
    monkeypatch.setenv("EVENT_BUS", "science")
    monkeypatch.setenv("REQUESTER_PAYS_BUCKETS", "other,theirs")
    services = entry.services_from_environment()
    assert services.bus.name == "science"
    for bucket, pays in (("theirs", True), (RAW, False)):
        url = services.s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"})
        assert ("x-amz-request-payer=requester" in url) == pays


def test_unreadable_mirror_fails_the_exposure_not_init(
    function: Harness, exposure: Path, monkeypatch: pytest.MonkeyPatch, entry: ModuleType
) -> None:
    monkeypatch.setenv("CRDS_MIRROR", f"s3://{MIRROR}/not-there")
    function.upload(exposure, KEY)
    entry.services_from_environment()
    with pytest.raises(ReferenceUnavailable, match="server_config"):
        entry.lambda_handler({"bucket": RAW, "key": KEY}, LocalContext("request-1"))
    assert [detail["error"] for detail in function.announcements()] == ["ReferenceUnavailable"]


def test_silent_mirror_does_not_delay_init(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        once = Config(retries={"total_max_attempts": 1})
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        s3 = boto3.client("s3", endpoint_url=address, config=once)
        with read_ahead(References.of(S3Location(MIRROR, ""), tmp_path, s3), "latest", 0.1):
            pass
        reading = {t.name for t in threading.enumerate() if t.name.startswith("reading the mirror")}
        assert reading, "it should continue during the first invocation"


@contextmanager
def interrupted_response() -> Iterator[str]:
    """Start a server whose response breaks off; yield its endpoint."""
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: "x"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\nSIMPLE  ='
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_interrupted_mask_download_is_transient(aws: LocalAws, tmp_path: Path) -> None:
    with interrupted_response() as endpoint:
        once = Config(retries={"total_max_attempts": 1})
        store = ObjectStore(boto3.client("s3", endpoint_url=endpoint, config=once))
        with pytest.raises(TransientFailure, match="mask: reading it"):
            MaskCache(S3Location(MIRROR, ""), tmp_path).load_object(
                S3Location(MIRROR, "mask"), store
            )
    assert list(tmp_path.iterdir()) == []
