"""Requests of one exposure: their number, their order, and the ones that run at the same time.

Each request waits until every request of its wave has been made. A request that is added, or is
made only after another one of its wave was answered, fails the test.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from astropy.io import fits

from core.product import Form
from core.step import initialize
from handler.crds.masks import References
from handler.s3.blocks import Blocks
from handler.s3.objects import S3Location
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW
from infra.demo.samples import CONTEXT
from infra.mirror.bucket import Mirror
from infra.mirror.sources import Cache
from infra.mirror.sync import copy, plan_sync, write_config
from tests.conftest import Harness, created

KEY, OTHER = "2023/jw01_uncal.fits", "2023/jw02_uncal.fits"
MASK = f"s3://{MIRROR}/references/jwst/nircam/jwst_nircam_mask_9001.fits"
PLACES = {f"{RAW}/": "input", f"{PRODUCTS}/dq_init/": "product", f"{PRODUCTS}/dq_ledger/": "ledger"}
PLACES |= {f"{PRODUCTS}/dq_blocks/": "block"}
LONGEST_WAIT = 60  # seconds; only a test that fails waits so long

FIRST = ["HeadObject product", "GetObject input"]
EVENT, ENTRY = ["PutEvents"], ["PutObject ledger"]
SMALL = [FIRST, ["PutObject product"], EVENT, ENTRY]


class Waves:
    """The expected requests, wave by wave, and those that were made."""

    def __init__(self, expected: list[list[str]]) -> None:
        self.expected = expected
        self.made: list[list[str]] = [[]]
        self.is_broken = False
        self.changed = threading.Condition()

    def hold(self, event_name: str, request: Any, **_: Any) -> None:
        """Wait for the other requests of the wave."""
        with self.changed:
            number = len(self.made) - 1
            self.made[number].append(name_of(event_name, request.url))
            expected = Counter(self.expected[number] if number < len(self.expected) else [])
            made = Counter(self.made[number])
            if made == expected:
                self.made.append([])
            elif not made <= expected:
                self.is_broken = True
            self.changed.notify_all()
            is_free = lambda: self.is_broken or len(self.made) > number + 1  # noqa: E731
            if not self.changed.wait_for(is_free, LONGEST_WAIT):
                self.is_broken = True

    def check(self) -> None:
        """Compare the waves; the order within a wave does not matter."""
        made = [sorted(wave) for wave in self.made if wave]
        assert made == [sorted(wave) for wave in self.expected], made
        assert not self.is_broken


def name_of(event_name: str, url: str) -> str:
    """Return the operation and the kind of object."""
    operation, path = event_name.rpartition(".")[2], unquote(urlsplit(url).path).strip("/")
    if path.startswith(MIRROR):
        return f"{operation} {path.rpartition('/')[2]}"
    kind = next((kind for place, kind in PLACES.items() if path.startswith(place)), "")
    return f"{operation} {kind}".strip()


@contextmanager
def waves(function: Harness, *expected: list[str]) -> Iterator[None]:
    """Expect these requests, wave by wave."""
    found = Waves(list(expected))
    clients = [(function.function.s3, "s3"), (function.function.bus.client, "events")]
    clients += [(function.function.sqs(), "sqs")]
    for client, service in clients:
        client.meta.events.register(f"before-send.{service}", found.hold)
    try:
        yield
    finally:
        for client, service in clients:
            client.meta.events.unregister(f"before-send.{service}", found.hold)
    found.check()


@pytest.fixture
def warm(function: Harness, exposure: bytes) -> Harness:
    """The function after another exposure of the same detector."""
    for key in (KEY, OTHER):
        function.upload(exposure, key)
    function.run(OTHER)
    return function


def test_small_exposure_takes_four_round_trips(warm: Harness) -> None:
    with waves(warm, *SMALL):
        assert warm.run(KEY)["status"] == "Complete"


@pytest.mark.slow
def test_exposure_of_an_event_takes_four_round_trips(warm: Harness, exposure: bytes) -> None:
    """The event says the size, so one request reads up to 5 MiB."""
    content = exposure + bytes(2880 * 500)
    with waves(warm, *SMALL):
        warm.upload(content, KEY)
        warm.run_batch(created(KEY, size=len(content)))


@pytest.mark.slow
def test_large_exposure_takes_seven_round_trips_and_copies(
    function: Harness, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()

    def initialize_later(*arguments: Any) -> Any:  # or the pixels may be read before the upload
        assert started.wait(LONGEST_WAIT)
        return initialize(*arguments)

    blocks = Blocks(S3Location(PRODUCTS, "dq_blocks"), 16 << 20, 4 << 20)
    function = function.with_services(blocks=blocks)
    for key in (KEY, OTHER):
        function.upload(large, key)
    function.run(OTHER)
    monkeypatch.setattr("handler.process.initialize", initialize_later)
    hooks = function.function.s3.meta.events
    hooks.register("after-call.s3.CreateMultipartUpload", lambda **_: started.set())
    copies = ["UploadPartCopy product"] * 2
    with waves(
        function,
        FIRST,
        ["GetObject input"],  # the headers after SCI
        ["CreateMultipartUpload product"],
        [*copies, "GetObject input", "UploadPart product"],  # the pixels of the first part
        ["UploadPart product", "UploadPart product"],
        ["CompleteMultipartUpload product"],
        EVENT,
        ENTRY,
    ):
        assert function.run(KEY)["status"] == "Complete"


@pytest.mark.slow
def test_headers_after_large_arrays_take_one_round_trip(function: Harness, large: bytes) -> None:
    zeroframe = fits.ImageHDU(np.zeros((1, 1024, 1024), np.uint16), name="ZEROFRAME")
    with fits.open(BytesIO(large)) as hdus:
        hdus.insert(2, zeroframe)
        with_zeroframe = BytesIO()
        hdus.writeto(with_zeroframe)
    function = function.with_settings(form=Form.VIRTUAL)
    for key in (KEY, OTHER):
        function.upload(with_zeroframe.getvalue(), key)
    function.run(OTHER)
    with waves(function, FIRST, ["GetObject input"] * 2, *SMALL[1:]):
        assert function.run(KEY)["status"] == "Complete"


def test_visibility_is_set_while_the_exposure_is_read(warm: Harness) -> None:
    sqs = warm.aws.client("sqs")
    function = warm.with_services(sqs=lambda: sqs)
    function = function.with_settings(uploaded_queue_url=function.aws.uploads)
    with waves(function, ["ChangeMessageVisibility", *FIRST], *SMALL[1:]):
        assert function.run_batch(created(KEY)) == []


def test_upload_is_started_while_the_planes_are_made(
    function: Harness, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.upload(large, KEY)
    is_sent = threading.Event()

    def make(*arguments: Any) -> Any:
        assert is_sent.wait(LONGEST_WAIT)
        return initialize(*arguments)

    monkeypatch.setattr("handler.process.initialize", make)
    hooks = function.function.s3.meta.events
    hooks.register("before-send.s3.CreateMultipartUpload", lambda **_: is_sent.set())
    assert function.run(KEY)["status"] == "Complete"


def test_cold_exposure_makes_four_requests_to_the_mirror(
    make_function: Any, exposure: bytes, sample_cache: Any
) -> None:
    function: Harness = make_function("trips")
    source, mirror = Cache(sample_cache), Mirror(function.function.s3, S3Location(MIRROR, "trips"))
    plan = plan_sync(source, mirror, "latest", frozenset({"NIRCAM"}))
    list(copy(plan, source, mirror))
    write_config(plan, source, mirror)
    function.upload(exposure, KEY)
    context, rules = ["GetObject mirror.json"], [f"GetObject {CONTEXT}"]
    instrument = ["GetObject jwst_nircam_9001.imap"]
    masks = ["GetObject jwst_nircam_mask_9001.rmap"]
    mask = ["GetObject jwst_nircam_mask_9002.fits"]
    with waves(function, FIRST, context, rules, instrument, masks, mask, *SMALL[1:]):
        function.run(KEY)


def test_repeated_event_takes_three_round_trips(warm: Harness) -> None:
    with waves(warm, FIRST, ["GetObject ledger"], EVENT):
        assert warm.run(OTHER)["status"] == "Skipped"


def test_redelivered_event_takes_two_round_trips(warm: Harness) -> None:
    assert warm.run_batch(created(KEY), identifier="m1") == []
    with waves(warm, FIRST, ["GetObject ledger"]):
        warm.run_batch(created(KEY), identifier="m1")


def test_pinned_product_is_kept_with_three_round_trips(warm: Harness) -> None:
    with waves(warm, FIRST, ["GetObject jwst_nircam_mask_9001.fits"], *SMALL[1:]):
        assert warm.run(KEY, mask=MASK)["status"] == "Complete"
    with waves(warm, FIRST, ["GetObject ledger"], EVENT):
        assert "pinned" in warm.run(KEY)["reason"]


def test_reprocessed_exposure_takes_five_round_trips(warm: Harness) -> None:
    with waves(warm, FIRST, ["GetObject ledger"], *SMALL[1:]):
        assert warm.run(OTHER, onExisting="replace")["status"] == "Complete"


def test_new_version_is_read_after_the_old_product_is_found(warm: Harness, exposure: bytes) -> None:
    warm.upload(exposure[:-1] + b"\1", OTHER)
    with waves(warm, FIRST, ["GetObject input"], ["GetObject ledger"], *SMALL[1:]):
        assert warm.run(OTHER)["status"] == "Complete"


def test_exposure_replaced_between_the_first_reads_is_read_again(
    warm: Harness, exposure: bytes
) -> None:
    """Another invocation writes the newer product after the old exposure was read."""
    other = warm.with_services(
        s3=warm.aws.client("s3"),
        references=References.of(
            S3Location(MIRROR, ""), warm.function.references.masks.cache, warm.aws.client("s3")
        ),
    )
    is_read, versions = threading.Event(), []

    def replace(params: dict[str, Any], **_: Any) -> None:
        hooks.unregister("provide-client-params.s3.HeadObject", replace)
        assert is_read.wait(LONGEST_WAIT)
        versions.append(other.upload(exposure[:-1] + b"\1", OTHER))
        other.run(OTHER)

    hooks = warm.function.s3.meta.events
    hooks.register("provide-client-params.s3.HeadObject", replace)
    hooks.register("after-call.s3.GetObject", lambda **_: is_read.set())
    assert warm.run(OTHER, onExisting="replace")["input"]["versionId"] == versions[0]
