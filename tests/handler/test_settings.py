import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core.product import Encoding, Form
from handler.s3.objects import S3Location
from handler.settings import CATALOGUE, JOBS, Settings
from infra.aws import catalogue_in, job_in

LEAST = {"OUTPUT_BUCKET": "products", "CRDS_MIRROR": "s3://mirror"}


def test_unset_variables_have_defaults() -> None:
    settings = Settings.from_environment(LEAST)
    assert settings == Settings(
        "products",
        "dq_init/",
        S3Location("mirror", ""),
        "latest",
        "default",
        Encoding.NATIVE,
        blocks=None,
        ledger=None,
        uploaded_queue_url=None,
        backfill_queue_url=None,
        retry_delay=30,
        unfinished_queue_arn=None,
        requester_pays=frozenset(),
    )


def test_every_variable_is_read() -> None:
    more = {
        "OUTPUT_PREFIX": "level1b/",
        "CRDS_MIRROR": "s3://mirror/Jwst/crds/",
        "CRDS_CONTEXT": "jwst_1321.pmap",
        "EVENT_BUS": "science",
        "SCIENCE_ENCODING": "float32",
        "PRODUCT_FORM": "virtual",
        "DQ_BLOCK_URI": "s3://products/blocks",
        "LEDGER_URI": "s3://Products/Ledger/",
        "UPLOADED_QUEUE_URL": "https://sqs/uploaded",
        "RETRY_DELAY": "5",
        "UNFINISHED_QUEUE_ARN": "arn:aws:sqs:::unfinished",
        "BACKFILL_QUEUE_URL": "https://sqs/backfill",
        "REQUESTER_PAYS_BUCKETS": "theirs,another",
    }
    settings = Settings.from_environment(LEAST | more)
    assert settings == Settings(
        output_bucket="products",
        output_prefix="level1b/",
        mirror=S3Location("mirror", "Jwst/crds"),
        context="jwst_1321.pmap",
        event_bus="science",
        encoding=Encoding.FLOAT32,
        form=Form.VIRTUAL,
        blocks=S3Location("products", "blocks"),
        ledger=S3Location("Products", "Ledger"),
        uploaded_queue_url="https://sqs/uploaded",
        backfill_queue_url="https://sqs/backfill",
        retry_delay=5,
        unfinished_queue_arn="arn:aws:sqs:::unfinished",
        requester_pays=frozenset({"theirs", "another"}),
    )
    assert str(settings.mirror.below("config", "jwst")) == "s3://mirror/Jwst/crds/config/jwst"


def test_queue_url_is_found_by_arn() -> None:
    more = {
        "UPLOADED_QUEUE_URL": "https://sqs/1/uploaded",
        "BACKFILL_QUEUE_URL": "https://sqs/1/backfill",
    }
    settings = Settings.from_environment(LEAST | more)
    assert settings.queue_url("arn:aws:sqs:::backfill") == "https://sqs/1/backfill"
    assert settings.queue_url("arn:aws:sqs:::uploaded") == "https://sqs/1/uploaded"
    assert settings.queue_url("arn:aws:sqs:::third") is None
    assert settings.queue_url("") is None
    renamed = replace(
        settings, uploaded_queue_url="https://sqs/1/a", backfill_queue_url="https://sqs/1/b"
    )
    assert renamed.queue_url("arn:aws:sqs:::b") == "https://sqs/1/b"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CRDS_MIRROR": "s3://m"}, "OUTPUT_BUCKET: the environment variable is not set"),
        ({"OUTPUT_BUCKET": "b"}, "CRDS_MIRROR: the environment variable is not set"),
        (LEAST | {"CRDS_MIRROR": "https://m"}, "expected s3://bucket"),
        (LEAST | {"SCIENCE_ENCODING": "float64"}, "expected one of native, float32"),
        (LEAST | {"RETRY_DELAY": "0"}, "RETRY_DELAY='0': expected a whole number of at least 1"),
        (LEAST | {"LEDGER_URI": "x"}, "LEDGER_URI='x'"),
    ],
)
def test_invalid_variable_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.from_environment(environment)


@pytest.mark.parametrize(
    ("environment", "other"),
    [
        ({"OUTPUT_PREFIX": ""}, "the prefix of the catalogue, s3://products/dq_catalogue/"),
        ({"OUTPUT_PREFIX": "dq_back"}, "the prefix of the jobs, s3://products/dq_backfills"),
        ({"OUTPUT_PREFIX": "dq_catalogue/2026/"}, "the prefix of the catalogue"),
        ({"OUTPUT_PREFIX": "l/a/", "LEDGER_URI": "s3://products/l"}, "LEDGER_URI, s3://products/l"),
        ({"OUTPUT_PREFIX": "b/", "DQ_BLOCK_URI": "s3://products/b/c"}, "DQ_BLOCK_URI"),
        ({"DQ_BLOCK_URI": "s3://products"}, "DQ_BLOCK_URI, s3://products"),
        ({"CRDS_MIRROR": "s3://products", "OUTPUT_PREFIX": "references/jwst/"}, "CRDS_MIRROR"),
    ],
)
def test_output_prefix_overlapping_another_is_rejected(
    environment: dict[str, str], other: str
) -> None:
    with pytest.raises(ValueError, match=f"OUTPUT_PREFIX: s3://products.* overlaps {other}"):
        Settings.from_environment(LEAST | environment)


def test_block_prefix_inside_the_ledger_is_rejected() -> None:
    more = {"DQ_BLOCK_URI": "s3://products/dq/blocks", "LEDGER_URI": "s3://products/dq"}
    with pytest.raises(ValueError, match=r"DQ_BLOCK_URI: .* overlaps LEDGER_URI"):
        Settings.from_environment(LEAST | more)


@pytest.mark.parametrize(
    "environment",
    [
        {"LEDGER_URI": "s3://other/dq_init", "DQ_BLOCK_URI": "s3://other/blocks"},
        {"OUTPUT_PREFIX": "dq_ledgers/", "LEDGER_URI": "s3://products/dq_ledger"},
        {"CRDS_MIRROR": "s3://products"},
    ],
)
def test_separate_prefixes_are_accepted(environment: dict[str, str]) -> None:
    assert Settings.from_environment(LEAST | environment).output_bucket == "products"


def test_job_prefixes_are_those_of_the_commands() -> None:
    assert str(catalogue_in("products")) == f"s3://products/{CATALOGUE}".rstrip("/")
    assert str(job_in("products", "x")) == f"s3://products/{JOBS}x/job.jsonl.gz"


def test_docs_name_the_environment_variables() -> None:
    project = Path(__file__).parents[2]
    source = (project / "handler" / "settings.py").read_text()
    read = set(re.findall(r'"([A-Z]+_[A-Z_]+)"', source))
    page = (project / "docs" / "reference" / "settings.md").read_text()
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.M))
    assert table == read


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["handler.app", "infra.mirror.freshen", "infra.reprocess.freshen"]
)
def test_functions_start_without_shared_memory_as_on_lambda(module: str) -> None:
    code = (
        "import multiprocessing.synchronize as synchronize\n"
        "class SemLock:\n"
        "    def __init__(self, *_, **__): raise OSError(38, 'Function not implemented')\n"
        "original, synchronize.SemLock.__init__ = synchronize.SemLock.__init__, SemLock.__init__\n"
        f"import {module}\n"
        "synchronize.SemLock.__init__ = original\n"
        "import multiprocessing; multiprocessing.Lock().acquire()\n"
        "assert type(multiprocessing.Lock()).__module__ == 'multiprocessing.synchronize'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_lean_import_leaves_the_tools_of_crds_importable() -> None:
    code = (
        "import sys, handler.crds.rules, crds; assert 'asdf' not in sys.modules; "
        "assert not [m for m in sys.modules if m.startswith(('crds.bestrefs', 'crds.certify'))]; "
        "from urllib import request; assert request.urlopen.__module__ == 'urllib.request'; "
        "assert request._opener is None; "
        "import crds.bestrefs; assert crds.bestrefs.assign_bestrefs; import crds.misc.uniqname"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
