"""Every kind of event, processed by the built bundle on the Python of Lambda."""

import ast
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import __version__
from infra.bundle.__main__ import measure
from infra.bundle.build import build, digest, is_left_out
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws
from tests.bundle.lambda_runtime import BUNDLE, PYTHON, Runtime, alone, runtime
from tests.conftest import PROJECT, empty_buckets
from tests.infra.template import load

KEY = "2023/03/jw01234001001_02101_00001_nrca1_uncal.fits"
ODD_KEY = "2023/a b+c %d_uncal.fits"
VERSION, ETAG = "096fKKXTRTtl3on89fVO.nfljtsv6qko", "d41d8cd98f00b204e9800998ecf8427e"
"""Size and ETag of the object in the sample events."""
EVENTS = PROJECT / "tests" / "events"
MIRROR_BUNDLES = PROJECT / ".aws-sam" / "mirror"
MIRROR_HANDLERS = {
    logical: resource["Properties"]["Handler"]
    for logical, resource in load("infra/mirror.yaml")["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
}


@pytest.fixture(scope="module")
def environment(aws: LocalAws, mirrors: set[str]) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "OUTPUT_BUCKET": PRODUCTS,
        "CRDS_MIRROR": f"s3://{MIRROR}",
        "LEDGER_URI": f"s3://{PRODUCTS}/dq_ledger",
        "DQ_BLOCK_URI": f"s3://{PRODUCTS}/dq_blocks",
    }


@pytest.fixture(scope="module")
def function(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runtime]:
    with runtime(environment, tmp_path_factory.mktemp("tmp")) as running:
        yield running


@pytest.fixture(autouse=True)
def uploaded(aws: LocalAws, exposure: bytes) -> None:
    empty_buckets(aws)
    aws.client("s3").put_object(Bucket=RAW, Key=KEY, Body=exposure)


def announced(aws: LocalAws) -> list[dict[str, Any]]:
    return [json.loads(m["Body"])["detail"] for m in aws.receive(aws.announcements)]


def test_a_direct_request_succeeds(function: Runtime, aws: LocalAws) -> None:
    detail = function.invoke({"bucket": RAW, "key": KEY})
    assert detail["status"] == "Complete"
    assert detail["function"]["version"] == __version__
    assert announced(aws) == [detail]
    product = aws.client("s3").get_object(Bucket=PRODUCTS, Key=detail["output"]["key"])
    assert f"jwst-dq-init-lambda {__version__}".encode() in product["Body"].read()


@pytest.mark.parametrize("name", sorted(path.name for path in EVENTS.glob("*.json")))
def test_the_sample_events_are_answered(
    name: str, function: Runtime, aws: LocalAws, exposure: bytes
) -> None:
    there = aws.client("s3").put_object(Bucket=RAW, Key=ODD_KEY, Body=exposure)
    text = (EVENTS / name).read_text().replace(VERSION, there["VersionId"])
    answer = function.invoke(json.loads(text.replace(ETAG, there["ETag"].strip('"'))))
    if name == "s3-test-event.json":
        assert answer == {}
    elif name == "sqs-batch.json":
        assert answer == {"batchItemFailures": []}
        assert announced(aws)[0]["status"] == "Complete"
    else:
        assert answer["status"] == "Complete"


def test_rejected_input_is_raised(function: Runtime, aws: LocalAws) -> None:
    aws.client("s3").put_object(Bucket=RAW, Key="bad_uncal.fits", Body=b"no FITS")
    answer = function.invoke({"bucket": RAW, "key": "bad_uncal.fits"})
    assert answer["errorType"] == "InputRejected"
    assert "not FITS" in answer["errorMessage"]


def test_an_unavailable_reference_is_raised(function: Runtime) -> None:
    answer = function.invoke({"bucket": RAW, "key": KEY, "context": "jwst_0001.pmap"})
    assert answer["errorType"] == "ReferenceUnavailable"


def test_a_transient_failure_is_raised(
    environment: dict[str, str], tmp_path: Path, aws: LocalAws
) -> None:
    unreachable = {"AWS_ENDPOINT_URL_EVENTBRIDGE": "http://127.0.0.1:9"}
    with runtime(environment | unreachable, tmp_path) as running:
        answer = running.invoke({"bucket": RAW, "key": KEY})
    assert answer["errorType"] == "TransientFailure"
    assert "publishing 'DQ Initialization" in answer["errorMessage"]


def test_deployment_fault_is_raised_and_published(
    environment: dict[str, str], tmp_path: Path, aws: LocalAws
) -> None:
    with runtime(environment | {"OUTPUT_BUCKET": "no-such-bucket"}, tmp_path) as running:
        answer = running.invoke({"bucket": RAW, "key": KEY})
    assert answer["errorType"] == "NoSuchBucket"
    assert announced(aws)[0]["error"] == "NoSuchBucket"


def test_malformed_event_is_rejected_and_the_next_answered(function: Runtime) -> None:
    assert function.invoke({"Records": 5})["errorType"] == "InputRejected"
    assert function.invoke({"bucket": RAW, "key": KEY})["status"] in {"Complete", "Skipped"}


def test_batch_returns_the_messages_to_retry(function: Runtime) -> None:
    bodies = [{"bucket": RAW, "key": KEY}, {"bucket": RAW, "key": KEY, "context": "jwst_0001.pmap"}]
    records = [
        {
            "eventSource": "aws:sqs",
            "messageId": str(i),
            "body": json.dumps(body),
            "receiptHandle": "r",
        }
        for i, body in enumerate(bodies)
    ]
    assert function.invoke({"Records": records}) == {"batchItemFailures": [{"itemIdentifier": "1"}]}


def test_timeout_ends_the_invocation(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stalled = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with runtime(environment | stalled, tmp_path, timeout=3) as running:
            answer = running.invoke({"bucket": RAW, "key": KEY})
    assert "timed out after 3.00 seconds" in json.dumps(answer)


def test_nothing_of_the_checkout_is_loaded(function: Runtime) -> None:
    function.invoke({"bucket": RAW, "key": KEY})
    own = [path for path in function.mapped() if path.is_relative_to(PROJECT)]
    assert own
    assert all(
        path.is_relative_to(BUNDLE) or path.is_relative_to(PYTHON.parents[1]) for path in own
    )


# Lambda has no /dev/shm, and so no semaphores.
WITHOUT_SEMAPHORES = (
    "import multiprocessing.synchronize as s\n"
    "def refuse(*_, **__): raise OSError(38, 'Function not implemented')\n"
    "s.SemLock.__init__ = refuse\n"
)


def run_alone(code: str, environment: dict[str, str], folder: Path, bundle: Path = BUNDLE) -> str:
    """Run code with only the bundle on its path; return its output."""
    command = [str(PYTHON), "-c", WITHOUT_SEMAPHORES + code]
    settings = alone(environment, folder)
    done = subprocess.run(
        command, cwd=bundle, env=settings, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def test_init_imports_only_what_is_needed(environment: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import sys; from types import SimpleNamespace; from handler import app; "
        "app.services_from_environment(); init = set(sys.modules); "
        "context = SimpleNamespace(aws_request_id='1', function_name='f', memory_limit_in_mb=1, "
        "invoked_function_arn='a', get_remaining_time_in_millis=lambda: 60_000); "
        f"app.lambda_handler({{'bucket': {RAW!r}, 'key': {KEY!r}}}, context); "
        "print('!', *init); print('!', *(set(sys.modules) - init))"
    )
    said = run_alone(code, environment, tmp_path)
    init, later = (set(line.split()) for line in said.splitlines() if line.startswith("!"))
    tools = {
        "asdf",
        "astropy.table",
        "requests",
        "yaml",
        "parsley",
        "crds.bestrefs",
        "crds.certify",
    }
    assert {"numpy", "astropy.io.fits", "crds.core.rmap", "crds.jwst"} <= init
    assert not tools & (init | later)
    assert {name for name in later if "." not in name} == {"!"}
    assert len(later) < 10, later


@pytest.mark.parametrize("logical", MIRROR_HANDLERS)
def test_mirror_bundle_holds_what_its_handler_imports(logical: str, tmp_path: Path) -> None:
    bundle = MIRROR_BUNDLES / logical
    module, _, name = MIRROR_HANDLERS[logical].rpartition(".")
    code = f"import sys; from {module} import {name}; print(*sys.modules)"
    loaded = run_alone(code, {}, tmp_path, bundle).split()
    assert module in loaded
    assert not {"jinja2", "matplotlib", "rich"} & set(loaded)
    for own in (bundle / "infra").rglob("*.py"):
        for service in clients_of(own):
            assert (bundle / "botocore" / "data" / service).is_dir(), f"{own}: {service}"
        if ".".join(own.relative_to(bundle).with_suffix("").parts) in loaded:
            for imported in imports_of(own):  # also inside functions
                path = bundle.joinpath(*imported.split("."))
                assert path.is_dir() or path.with_suffix(".py").is_file(), f"{own}: {imported}"


def clients_of(path: Path) -> set[str]:
    """Return the AWS services whose clients a module creates, except those of operators only."""
    found = set(re.findall(r"\bclient\(\s*\"([a-z0-9-]+)\"", path.read_text()))
    return found - {"cloudformation", "cloudwatch"}


def imports_of(path: Path) -> set[str]:
    """Return the modules of infra/ that a module names in an import statement."""
    nodes = ast.walk(ast.parse(path.read_text()))
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name for name in named if name.startswith("infra.")}


def test_bundle_is_within_its_budget_and_leaves_out_packages() -> None:
    assert measure(BUNDLE).is_within_budget
    names = [path.relative_to(BUNDLE).as_posix() for path in BUNDLE.rglob("*") if path.is_file()]
    assert [n for n in names if is_left_out(n) and not n.endswith(".pyc")] == []


def test_the_same_inputs_give_the_same_bundle(tmp_path: Path) -> None:
    assert build("x86_64", tmp_path / "bundle")
    assert digest(tmp_path / "bundle") == digest(BUNDLE)
