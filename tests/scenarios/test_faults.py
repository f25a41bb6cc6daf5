"""Faults of S3 at any call: nothing is lost, doubled or half-written."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore import endpoint

from core.errors import TransientFailure
from core.product import Form
from handler.app import answer
from handler.events import Attempt, Mode
from handler.services import Services, client
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws
from tests.conftest import UNFINISHED, Harness, created, empty_bucket, empty_buckets
from tests.model_of_s3.faults import Fault, Kind, Rate
from tests.model_of_s3.proxy import Proxy, proxy_of
from tests.products import expand, undated

KEY = "2023/jw01_uncal.fits"
CALLS = [
    ("virtual", "GetObject"),
    ("virtual", "PutObject"),
    ("one PUT", "HeadObject"),
    ("one PUT", "GetObject"),
    ("one PUT", "PutObject"),
    ("multipart", "PutObject"),
    ("multipart", "CreateMultipartUpload"),
    ("multipart", "UploadPart"),
    ("multipart", "UploadPartCopy"),
    ("multipart", "CompleteMultipartUpload"),
]
LONG = {"UploadPartCopy", "CompleteMultipartUpload"}
"""Operations whose answer may begin before they have failed."""
PASSING = [
    (*call, kind) for call in CALLS for kind in Kind if kind != Kind.ERROR_IN_200 or call[1] in LONG
]
ALIKE = {Kind.INTERNAL, Kind.ERROR_IN_200, Kind.BROKEN}
"""Kinds that are retried like another kind."""
STAYING = [case for case in PASSING if case[2] not in ALIKE]

OF_THE_MESSAGE = {Kind.CONFLICT, Kind.PRECONDITION}
"""Kinds that only another delivery solves; botocore retries the others."""


@pytest.fixture(scope="module")
def proxy(aws: LocalAws) -> Iterator[Proxy]:
    with proxy_of(aws.endpoint) as running:
        yield running


@dataclass
class Trial:
    """The function as it is deployed, before an S3 with faults."""

    harness: Harness
    proxy: Proxy

    def deliver(self, *faults: Fault) -> bool:
        """Deliver the message; say whether it is done, or is to be delivered again."""
        self.proxy.faults = list(faults)
        attempt = Attempt("m1", "request", Mode.RETRIED)
        try:
            answer(json.loads(created(KEY)), self.harness.function, attempt)
        except TransientFailure:
            return False
        finally:
            self.proxy.faults = []
        return True

    def product(self) -> bytes | None:
        """The assembled product without its dates."""
        keys = self.harness.products()
        if not keys:
            return None
        s3 = self.harness.aws.client("s3")
        content = s3.get_object(Bucket=PRODUCTS, Key=keys.pop())["Body"].read()
        if self.harness.settings.form is Form.VIRTUAL:
            content = expand(content, s3.get_object(Bucket=RAW, Key=KEY)["Body"].read())
        return undated(content)

    def forget(self) -> None:
        """Empty the products' bucket."""
        empty_bucket(self.harness.aws.client("s3"), PRODUCTS)
        self.harness.announcements()


@pytest.fixture
def trial(
    aws: LocalAws, mirrors: set[str], proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Trial]:
    """Deployed settings; only the pauses between botocore's attempts take no time."""
    empty_buckets(aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(endpoint.time, "sleep", lambda _: None)
    client.cache_clear()
    environment = {
        "OUTPUT_BUCKET": PRODUCTS,
        "CRDS_MIRROR": f"s3://{MIRROR}",
        "LEDGER_URI": f"s3://{PRODUCTS}/dq_ledger",
        "UNFINISHED_QUEUE_ARN": UNFINISHED,
    }
    yield Trial(Harness(aws, Services.from_environment(environment)), proxy)
    client.cache_clear()


@pytest.fixture(scope="module")
def known() -> dict[str, bytes]:
    """Products as they are without faults, by path."""
    return {}


@pytest.fixture
def expected(
    trial: Trial, exposure: bytes, large: bytes, known: dict[str, bytes]
) -> Callable[[str], bytes]:
    """Upload the exposure of a path; return its product as it is without faults."""

    def upload(path: str) -> bytes:
        trial.harness.upload(exposure if path == "one PUT" else large, KEY)
        if path == "virtual":
            trial.harness = trial.harness.with_settings(form=Form.VIRTUAL)
        if path not in known:
            assert trial.deliver()
            known[path] = trial.product() or b""
            trial.forget()
        return known[path]

    return upload


def check_ended(trial: Trial, expected: bytes, *, is_done: bool) -> None:
    """Whole or not there; if another attempt is needed it succeeds; one product and one id."""
    made = trial.product()
    assert made in ({expected} if is_done else {expected, None})
    before = trial.harness.announcements()
    assert {detail["status"] for detail in before} <= {"Complete"}, before
    assert is_done or trial.deliver()
    details = before + trial.harness.announcements()
    assert trial.product() == expected
    assert {detail["status"] for detail in details} == {"Complete"}
    assert len({detail["id"] for detail in details}) == 1
    s3 = trial.harness.aws.client("s3")
    versions = s3.list_object_versions(Bucket=PRODUCTS, Prefix="dq_init/")["Versions"]
    assert len(versions) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("path", "operation", "kind"), PASSING)
def test_passing_fault_costs_at_most_one_attempt(
    path: str, operation: str, kind: Kind, trial: Trial, expected: Any
) -> None:
    product = expected(path)
    done = trial.deliver(Fault(operation, kind, 1))
    assert done or kind in OF_THE_MESSAGE or (operation, kind) == ("GetObject", Kind.BROKEN)
    check_ended(trial, product, is_done=done)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "operation", "kind"), STAYING)
def test_lasting_fault_is_retried(
    path: str, operation: str, kind: Kind, trial: Trial, expected: Any
) -> None:
    product = expected(path)
    done = trial.deliver(Fault(operation, kind, math.inf))
    check_ended(trial, product, is_done=done)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(Kind))
def test_failed_abort_does_not_hide_the_failure(
    kind: Kind, trial: Trial, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    product = expected("multipart")
    failing = Fault("UploadPart", Kind.SLOW_DOWN, math.inf)
    done = trial.deliver(failing, Fault("AbortMultipartUpload", kind, math.inf))
    assert not done
    assert "SlowDown" in caplog.text
    check_ended(trial, product, is_done=done)


def test_rate_limit_of_s3_is_respected(
    trial: Trial, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = expected("multipart")
    monkeypatch.undo()  # here the pauses are what helps
    trial.proxy.rate = Rate(4)
    try:
        done = trial.deliver()
    finally:
        trial.proxy.rate = None
    assert done
    check_ended(trial, product, is_done=done)
