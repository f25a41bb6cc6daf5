"""A new operational context rebuilds the affected products automatically."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handler.s3.objects import S3Location
from infra.demo.local_aws import copy_cache
from infra.mirror.bucket import Mirror
from infra.mirror.changes import CHANGED, SOURCE, detail_of
from infra.mirror.sync import use
from tests.conftest import PROJECT
from tests.e2e.archive import KINDS, NEWER, publish_newer, tags
from tests.e2e.stack import MIRROR, Stack, deploy_mirror
from tests.samples.exposures import write_exposure
from tests.samples.mirror import CONTEXT

SAM = PROJECT / ".venv-tools" / "bin" / "sam"


@pytest.fixture
def mirror(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """The mirror's stack, with Reprocess=submit; yields its bucket."""
    bucket = deploy_mirror(stack, SAM, "mirror")["MirrorBucket"]
    publish_newer(stack, tmp_path / "cache")
    copy_cache(tmp_path / "cache", stack.client("s3"), bucket)
    yield bucket
    make_operational(CONTEXT, stack, bucket)
    stack.client("cloudformation").delete_stack(StackName="mirror")


def make_operational(context: str, stack: Stack, bucket: str) -> None:
    """Change the context of the mirror; here the function reads a copy of it."""
    for copy in (bucket, MIRROR):
        use(context, Mirror(stack.client("s3"), S3Location(copy, "")))
    stack.forget()  # a container uses the previous context for three minutes


def test_new_context_rebuilds_only_affected_products(
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
    time.sleep(1.1)  # S3's times have whole seconds
    make_operational(NEWER, stack, mirror)
    events.put_events(Entries=[entry])
    end = time.monotonic() + 120
    while (after := tags(stack))["dq_init/loop/inside_dq_init.fits"] == (
        before["dq_init/loop/inside_dq_init.fits"]
    ):
        assert time.monotonic() < end, "nothing was rebuilt"
        time.sleep(1)
    stack.drain(120)
    after = tags(stack)
    assert {key for key in after if after[key] != before[key]} == {
        "dq_init/loop/inside_dq_init.fits"
    }
