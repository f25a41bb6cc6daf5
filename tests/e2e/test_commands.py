"""The commands of docs/ as an operator types them, on a deployed stack."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.e2e.stack import MIRROR, NAME, Stack

FOLDER = "typed/2023/03"


def dq_init(stack: Stack, folder: Path, *words: str) -> tuple[int, str]:
    """Type a command at a terminal of 80 columns; return its exit code and what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "infra", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "AWS_ENDPOINT_URL": stack.endpoint,
             "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    return done.returncode, text


@pytest.fixture(scope="module")
def processed(stack: Stack, exposures: dict[str, bytes]) -> str:
    """One good exposure and one that fails; return the good one's key."""
    stack.messages("FailedQueue")
    stack.upload(f"{FOLDER}/jw01_uncal.fits", exposures["nircam-sub64p"])
    stack.upload(f"{FOLDER}/bad_uncal.fits", b"no FITS")
    stack.drain(60)
    return f"{FOLDER}/jw01_uncal.fits"


def test_watching_commands_show_the_deployed_stack(
    stack: Stack, processed: str, tmp_path: Path
) -> None:
    product = f"s3://{stack['ProductBucket']}/dq_init/{processed.replace('_uncal', '_dq_init')}"
    raw = f"s3://{stack['RawBucket']}/{processed}"
    for words, code, shown in (
        (["status", "--stack", NAME], 0, "1 exposure failed: InputRejected"),
        (["queues", "show", "--stack", NAME], 0, "bad_uncal.fits"),
        (["queues", "redrive", "--stack", NAME, "--error", "InputRejected", "--dry-run"], 0, "1 "),
        (["cost", "--stack", NAME, "--exposures", "1000000"], 0, "USD"),
        (["view", product, "--out", "pages", "--stack", NAME], 0, "html"),
        (["view", raw, "--out", "raw", "--stack", NAME], 0, "html"),
        (["mirror", "verify", f"s3://{MIRROR}"], 0, "jwst_9001.pmap"),
        (["mirror", "contexts", f"s3://{MIRROR}"], 0, "jwst_9001.pmap"),
        (["mirror", "use", f"s3://{MIRROR}", "latest"], 0, "jwst_9001.pmap"),
        (["status", "--stack", "another"], 2, "another"),
    ):
        found, text = dq_init(stack, tmp_path, *words)
        assert (found, shown in text) == (code, True), f"{' '.join(words)}: exit {found}\n{text}"


def test_working_commands_change_the_deployed_stack(
    stack: Stack, processed: str, tmp_path: Path
) -> None:
    for words, code, shown in (
        (["reprocess", "catalogue", "--stack", NAME], 0, "product"),
        (["reprocess", "audit", "--stack", NAME], 0, "0 findings"),
        (["reprocess", "select", "--stack", NAME], 0, "all"),
        (["reprocess", "submit", "--stack", NAME, "--yes"], 0, ""),  # of other tests, too
        (["reprocess", "select", "--stack", NAME, "--to", "jwst_1.pmap"], 2, "jwst_1.pmap"),
        (["backfill", f"s3://{stack['RawBucket']}/{FOLDER}/", "--stack", NAME, "--yes"], 1, "1 "),
        (
            ["queues", "discard", "--stack", NAME, "--error", "InputRejected", "--yes"],
            0,
            "discarded",
        ),
        (["queues", "show", "--stack", NAME], 0, ""),
    ):
        found, text = dq_init(stack, tmp_path, *words)
        assert (found, shown in text) == (code, True), f"{' '.join(words)}: exit {found}\n{text}"
