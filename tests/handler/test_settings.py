import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.product import Encoding
from handler.s3.locations import S3Location
from handler.settings import Settings

LEAST = {"OUTPUT_BUCKET": "products", "CRDS_MIRROR": "s3://mirror"}


def test_defaults() -> None:
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
        uploaded_queue=None,
        backfill_queue=None,
        retry_delay=30,
        unfinished_queue=None,
        requester_pays=frozenset(),
    )


def test_everything_set() -> None:
    more = {
        "OUTPUT_PREFIX": "",
        "CRDS_MIRROR": "s3://mirror/Jwst/crds/",
        "CRDS_CONTEXT": "jwst_1321.pmap",
        "EVENT_BUS": "science",
        "SCIENCE_ENCODING": "float32",
        "DQ_BLOCK_URI": "s3://products/blocks",
        "LEDGER_URI": "s3://Products/Ledger/",
        "UPLOADED_QUEUE": "https://sqs/uploaded",
        "RETRY_DELAY": "5",
        "UNFINISHED_QUEUE": "arn:aws:sqs:::unfinished",
        "BACKFILL_QUEUE": "https://sqs/backfill",
        "REQUESTER_PAYS_BUCKETS": "theirs,another",
    }
    settings = Settings.from_environment(LEAST | more)
    assert settings.output_prefix == ""
    assert settings.mirror == S3Location("mirror", "Jwst/crds")
    assert str(settings.mirror.below("config", "jwst")) == "s3://mirror/Jwst/crds/config/jwst"
    assert settings.encoding is Encoding.FLOAT32
    assert settings.blocks == S3Location("products", "blocks")
    assert settings.ledger == S3Location("Products", "Ledger")
    assert (settings.uploaded_queue, settings.retry_delay) == ("https://sqs/uploaded", 5)
    assert settings.unfinished_queue == "arn:aws:sqs:::unfinished"
    assert settings.requester_pays == {"theirs", "another"}


def test_each_queue_is_found_by_its_arn() -> None:
    more = {"UPLOADED_QUEUE": "https://sqs/1/uploaded", "BACKFILL_QUEUE": "https://sqs/1/backfill"}
    settings = Settings.from_environment(LEAST | more)
    assert settings.address_of("arn:aws:sqs:::backfill") == "https://sqs/1/backfill"
    assert settings.address_of("arn:aws:sqs:::uploaded") == "https://sqs/1/uploaded"
    assert settings.address_of("") == "https://sqs/1/uploaded"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CRDS_MIRROR": "s3://m"}, "OUTPUT_BUCKET is not set"),
        ({"OUTPUT_BUCKET": "b"}, "CRDS_MIRROR is not set"),
        (LEAST | {"CRDS_MIRROR": "https://m"}, "no s3://bucket"),
        (LEAST | {"SCIENCE_ENCODING": "float64"}, "expected one of native, float32"),
        (LEAST | {"RETRY_DELAY": "0"}, "RETRY_DELAY='0': expected a number from 1"),
        (LEAST | {"LEDGER_URI": "x"}, "LEDGER_URI='x'"),
    ],
)
def test_what_makes_no_sense_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.from_environment(environment)


def test_the_table_of_the_readme_names_the_variables_that_are_read() -> None:
    project = Path(__file__).parents[2]
    source = (project / "handler" / "settings.py").read_text()
    read = set(re.findall(r'"([A-Z]+_[A-Z_]+)"', source))
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", (project / "README.md").read_text(), re.M))
    assert table == read


def test_crds_is_imported_without_its_tools_and_they_can_be_had_afterwards() -> None:
    code = (
        "import sys, handler.references.rules, crds; assert 'asdf' not in sys.modules; "
        "assert not [m for m in sys.modules if m.startswith(('crds.bestrefs', 'crds.certify'))]; "
        "from urllib import request; assert request.urlopen.__module__ == 'urllib.request'; "
        "assert request._opener is None; "
        "import crds.bestrefs; assert crds.bestrefs.assign_bestrefs; import crds.misc.uniqname"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
