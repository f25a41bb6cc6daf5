"""Existing buckets: uploads to one, and a backfill from another account's."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest

from tests.conftest import PROJECT
from tests.e2e.stack import NAME, REGION, Stack, deploy

SMALL, LARGE = "nircam-sub64p", "niriss-soss"
SAM = PROJECT / ".venv-tools" / "bin" / "sam"
MINE, THEIRS = "mine", "theirs"
FOLDER = "jwst/public/jw02733/"
ONLY_READING = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": action,
            "Resource": f"arn:aws:s3:::{THEIRS}{what}",
        }
        for action, what in (("s3:GetObject", "/*"), ("s3:ListBucket", ""))
    ],
}


@pytest.fixture(scope="module")
def elsewhere(stack: Stack, exposures: dict[str, bytes]) -> Iterator[Stack]:
    """The stack with an existing raw bucket and a read bucket of another account."""
    stack.client("s3").create_bucket(Bucket=MINE)
    other = boto3.client(
        "s3",
        endpoint_url=stack.endpoint,
        region_name=REGION,
        aws_access_key_id="222222222222",
        aws_secret_access_key="other",  # noqa: S106
    )
    other.create_bucket(Bucket=THEIRS)
    other.put_bucket_policy(Bucket=THEIRS, Policy=json.dumps(ONLY_READING))
    for number, mode in enumerate((SMALL, SMALL, LARGE)):
        key = f"{FOLDER}jw02733001001/jw0273300100{number}_uncal.fits"
        other.put_object(Bucket=THEIRS, Key=key, Body=exposures[mode])
    other.put_object(Bucket=THEIRS, Key=f"{FOLDER}jw02733001001/bad_uncal.fits", Body=b"nothing")
    deploy(stack, SAM, RawBucketName=MINE, ReadBuckets=THEIRS)
    assert stack["RawBucket"] == MINE
    yield stack
    deploy(stack, SAM, RawBucketName="", ReadBuckets="")


def infra(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"AWS_ENDPOINT_URL": stack.endpoint, "COLUMNS": "80"}
    command = [sys.executable, "-m", "infra", *words, "--stack", NAME]
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )


def test_upload_to_an_existing_bucket_is_processed(
    elsewhere: Stack, exposures: dict[str, bytes]
) -> None:
    assert "--enable-events" in infra(elsewhere, "status").stdout
    done = infra(elsewhere, "status", "--enable-events", "--yes")
    assert done.returncode == 0, done.stderr
    assert "sends events to EventBridge now" in done.stdout
    assert "--enable-events" not in infra(elsewhere, "status").stdout
    elsewhere.upload("own/jw01_uncal.fits", exposures[SMALL])
    elsewhere.drain(60)
    assert elsewhere.said("own/jw01_uncal.fits") == ["Complete"]


def test_backfill_processes_exposures_of_another_account(elsewhere: Stack) -> None:
    done = infra(elsewhere, "backfill", f"s3://{THEIRS}/{FOLDER}", "--yes", "--pause", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "4 exposures" in said
    assert "3 complete: the product was built 0 skipped" in said
    assert "1 InputRejected" in said
    assert f"{FOLDER}jw02733001001/bad_dq_init.fits" in said
    made = {key for key in elsewhere.products() if key.startswith(FOLDER)}
    assert len(made) == 3
    again = infra(elsewhere, "backfill", f"s3://{THEIRS}/{FOLDER}", "--yes", "--pause", "1")
    assert "0 complete: the product was built 3 skipped" in " ".join(again.stdout.split())
    elsewhere.messages("FailedQueue")


def test_a_bucket_that_the_stack_may_not_read_is_refused(elsewhere: Stack) -> None:
    done = infra(elsewhere, "backfill", "s3://foreign/jw01_uncal.fits", "--yes", "--pause", "1")
    assert done.returncode == 1
    assert "InputRejected" in done.stdout
    elsewhere.messages("FailedQueue")
