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
        (["mirror", "diff", f"s3://{MIRROR}", "jwst_9001.pmap", "jwst_9001.pmap"], 0, ""),
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


def test_mistakes_are_one_line_and_change_nothing(
    stack: Stack, processed: str, tmp_path: Path
) -> None:
    raw = f"s3://{stack['RawBucket']}"
    for words, shown in (
        (["status", "--stack", "another"], "another"),
        (["status"], "--stack"),
        (["statsu", "--stack", NAME], "statsu"),
        (["queues", "show", "--stak", NAME], "--stak"),
        (["queues", "redrive", "--stack", NAME, "--older-than", "soon"], "soon"),
        (["backfill", f"{raw}/no/such/folder/", "--stack", NAME, "--yes"], "no/such/folder"),
        (["backfill", "s3://no-such-bucket-of-anybody/", "--stack", NAME, "--yes"], "no-such"),
        (["backfill", f"{raw}/{FOLDER}/", "--stack", NAME], "a terminal or --yes"),
        (["reprocess", "select", "--stack", NAME, "--to", "jwst_1.pmap"], "jwst_1.pmap"),
        (["mirror", "use", f"s3://{MIRROR}", "jwst_12345.pmap"], "jwst_12345.pmap"),
        (["mirror", "sync", f"s3://{MIRROR}", "--from", "."], "expected a CRDS cache"),
        (["mirror", "sync", f"s3://{MIRROR}", "--server", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["mirror", "verify", "s3://no-such-bucket-of-anybody"], "no-such-bucket"),
        (["view", f"{raw}/none_uncal.fits", "--out", "pages", "--stack", NAME], "none_uncal"),
        (["cost", "--stack", NAME, "--exposures", "-1"], "-1"),
    ):
        found, text = dq_init(stack, tmp_path, *words)
        lines = [line for line in text.splitlines() if line.strip()]
        typed = f"{' '.join(words)}: exit {found}\n{text}"
        assert (found in (1, 2), shown in text, len(lines) < 4) == (True, True, True), typed
    assert len(stack.messages("FailedQueue")) in (0, 1), "nothing was submitted"
