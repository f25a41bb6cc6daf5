"""A context that becomes operational has what it affects made anew, with nobody looking."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handler.s3.locations import S3Location
from infra.demo.samples.exposures import write_exposure
from infra.demo.samples.mirror import CONTEXT
from infra.mirror.announcement import CHANGED, SOURCE, detail_of
from infra.mirror.cache import upload_cache
from tests.conftest import PROJECT
from tests.e2e.archive import KINDS, NEWER, publish_newer, tags
from tests.e2e.stack import Stack

SAM = PROJECT / ".venv-tools" / "bin" / "sam"
BUILT = PROJECT / ".aws-sam" / "mirror" / "template.yaml"


@pytest.fixture
def mirror(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """The mirror's stack, with Reprocess=submit; yields its bucket."""
    values = {
        "Architecture": "x86_64",
        "ScheduleState": "DISABLED",
        "Reprocess": "submit",
        "ProductBucket": stack["ProductBucket"],
        "BackfillQueue": stack["BackfillQueue"],
    }
    command = [
        *(str(SAM), "deploy", "--template-file", str(BUILT), "--stack-name", "mirror"),
        *("--s3-bucket", "artifacts", "--capabilities", "CAPABILITY_IAM"),
        *("--no-progressbar", "--no-confirm-changeset", "--parameter-overrides"),
        *(f"{name}={value}" for name, value in values.items()),
    ]
    environment = os.environ | {"AWS_ENDPOINT_URL": stack.endpoint, "SAM_CLI_TELEMETRY": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    formation = stack.client("cloudformation")
    (found,) = formation.describe_stacks(StackName="mirror")["Stacks"]
    bucket = {o["OutputKey"]: o["OutputValue"] for o in found["Outputs"]}["MirrorBucket"]
    publish_newer(stack, tmp_path / "cache")
    list(upload_cache(tmp_path / "cache", stack.client("s3"), bucket))
    yield bucket
    formation.delete_stack(StackName="mirror")


def test_only_what_a_context_affects_is_made_anew_by_itself(
    stack: Stack, mirror: str, tmp_path: Path
) -> None:
    for kind in ("inside", "outside", "other-detector"):
        write_exposure(KINDS[kind], tmp_path / "x.fits")
        stack.upload(f"loop/{kind}_uncal.fits", (tmp_path / "x.fits").read_bytes())
    stack.drain(120)
    before = tags(stack)
    detail = detail_of(S3Location(mirror, ""), CONTEXT, NEWER, [])
    events = stack.client("events")
    entry: dict[str, Any] = {"Source": SOURCE, "DetailType": CHANGED, "Detail": json.dumps(detail)}
    time.sleep(1.1)  # S3 tells whole seconds apart
    events.put_events(Entries=[entry])
    end = time.monotonic() + 120
    while (after := tags(stack))["dq_init/loop/inside_dq_init.fits"] == (
        before["dq_init/loop/inside_dq_init.fits"]
    ):
        assert time.monotonic() < end, "nothing was made anew"
        time.sleep(1)
    stack.drain(120)
    after = tags(stack)
    assert {key for key in after if after[key] != before[key]} == {
        "dq_init/loop/inside_dq_init.fits"
    }
