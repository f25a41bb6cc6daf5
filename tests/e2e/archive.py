"""Reprocess an archive on the deployed stack while its function is killed.

``make soak`` runs it. Exactly the exposures with other pixels get a new product, a second selection
selects nothing, and the audit finds what was done to ledger, products and exposures.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from astropy.io import fits

from infra.demo.local_aws import copy_cache
from tests.conftest import PROJECT
from tests.e2e.stack import MIRROR, NAME, Stack, deployed
from tests.samples.exposures import write_exposure
from tests.samples.mirror import RULES, write_rules, write_sample_mirror, write_server_config
from tests.samples.modes import MODES

NEWER = "jwst_9002.pmap"
MODE = {mode.name: mode for mode in MODES}
SMALL = MODE["nircam-sub64p"]
KINDS = {
    "inside": replace(SMALL, corner=(101, 201)),
    "outside": SMALL,
    "striped": MODE["nircam-superstripe"],
    "other-detector": replace(SMALL, corner=(101, 201), detector="NRCA1"),
    "niriss": MODE["niriss-ami"],
    "guider": MODE["fgs1-acq2"],
}
"""Only the first mode reads out pixels that differ in the newer mask of NRCB1."""


def publish_newer(stack: Stack, folder: Path) -> None:
    """Add a context in which the mask of NRCB1 has other pixels in one corner."""
    write_sample_mirror(folder)
    masks = folder / "references" / "jwst" / "nircam"
    shutil.copy(masks / "jwst_nircam_mask_9002.fits", masks / "jwst_nircam_mask_9003.fits")
    with fits.open(masks / "jwst_nircam_mask_9003.fits", mode="update") as hdus:
        hdus["DQ"].data[210, 110:120] ^= 1
    parameters, choices = RULES["nircam"]
    newer = {match: 9003 if match[0][0] == "NRCB1" else n for match, n in choices.items()}
    write_rules(folder, context=NEWER, rules={**RULES, "nircam": (parameters, newer)})
    write_server_config(folder)
    copy_cache(folder, stack.client("s3"), MIRROR)


def infra(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    environment = os.environ | {"AWS_ENDPOINT_URL": stack.endpoint, "COLUMNS": "100"}
    command = [sys.executable, "-m", "infra", *words, "--stack", NAME]
    return subprocess.run(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )


def tags(stack: Stack) -> dict[str, str]:
    """Return the ETags and times of the products."""
    pages = stack.client("s3").get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=stack["ProductBucket"], Prefix="dq_init/")
    return {
        item["Key"]: f"{item['ETag']} {item['LastModified']}"
        for page in found
        for item in page.get("Contents", [])
    }


def upload(stack: Stack, number: int, folder: Path) -> None:
    """Upload exposures of each kind in turn."""
    bodies = {}
    for kind, mode in KINDS.items():
        write_exposure(mode, folder / "x.fits")
        bodies[kind] = (folder / "x.fits").read_bytes()
    kinds = list(KINDS)
    with ThreadPoolExecutor(4) as uploading:
        for i in range(number):
            kind = kinds[i % len(kinds)]
            uploading.submit(stack.upload, f"{kind}/jw{i:05}_uncal.fits", bodies[kind])


def killing(stack: Stack, stop: threading.Event, killed: list[int]) -> None:
    """Kill the function at random times."""
    chance = random.Random(7)
    while not stop.wait(chance.uniform(2, 8)):
        killed.append(stack.kill_function(chance))


def selected(stack: Stack) -> int:
    """Return the number of products that have other pixels in the newer context."""
    summary = json.loads(infra(stack, "reprocess", "select", "--to", NEWER, "--json").stdout)
    return sum(window["by_change"].get("pixels", 0) for window in summary["windows"])


def damage(stack: Stack, before: dict[str, str]) -> dict[str, str]:
    """Delete an entry and a product, replace an exposure; return the expected findings."""
    s3, bucket = stack.client("s3"), stack["ProductBucket"]
    entry, product, replaced = (
        next(key for key in sorted(before) if f"/{kind}/" in key)
        for kind in ("outside", "niriss", "guider")
    )
    s3.delete_object(Bucket=bucket, Key=f"dq_ledger/{entry}.json")
    s3.delete_object(Bucket=bucket, Key=product)
    with stack.paused():
        key = replaced.removeprefix("dq_init/").replace("_dq_init", "_uncal")
        stack.upload(key, b"another")
        stack.messages("UploadedQueue")
    return {entry: "forgotten", product: "is gone", replaced: "was replaced"}


def main() -> None:
    """Run the scenario, print a summary and check it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--exposures", type=int, default=2000)
    arguments = parser.parse_args()
    sam = PROJECT / ".venv-tools" / "bin" / "sam"
    interpreter = PROJECT / ".venv-ministack" / "bin" / "python"
    with tempfile.TemporaryDirectory() as name, deployed(interpreter, sam) as stack:
        folder = Path(name)
        upload(stack, arguments.exposures, folder)
        stack.drain(3600)
        publish_newer(stack, folder / "cache")
        summary: dict[str, Any] = {"exposures": arguments.exposures, "products": len(tags(stack))}
        print(infra(stack, "reprocess", "catalogue").stdout)
        print(infra(stack, "reprocess", "select", "--to", NEWER).stdout)
        summary["selected"], before = selected(stack), tags(stack)
        stop, killed = threading.Event(), list[int]()
        threading.Thread(target=killing, args=(stack, stop, killed), daemon=True).start()
        start = time.monotonic()
        for runs in (1, 2, 3):  # a request killed at every attempt fails; the next run repeats it
            done = infra(stack, "reprocess", "submit", "--to", NEWER, "--yes", "--pause", "2")
            print(done.stdout)
            summary["runs"] = runs
            if done.returncode == 0:
                break
            infra(stack, "reprocess", "catalogue")
        stop.set()
        summary |= {"seconds": round(time.monotonic() - start), "kills": sum(killed)}
        after = tags(stack)
        changed = {key for key in after if after[key] != before.get(key)}
        inside = {key for key in after if "/inside/" in key}
        infra(stack, "reprocess", "catalogue")
        summary |= {"made anew": len(changed), "selected again": selected(stack)}
        expected = damage(stack, after)
        infra(stack, "reprocess", "catalogue")
        found = json.loads(infra(stack, "reprocess", "audit", "--json").stdout)
        summary["audit found"] = {row["product"]: row["what"] for row in found}
        print(json.dumps(summary, indent=2))
        assert done.returncode == 0
        assert changed == inside
        assert summary["selected"] == len(inside)
        assert summary["selected again"] == 0
        assert {row["product"].partition("/dq_init/")[2] for row in found} == {
            key.removeprefix("dq_init/") for key in expected
        }


if __name__ == "__main__":
    main()
