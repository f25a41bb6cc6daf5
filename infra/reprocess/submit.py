"""Requests that rebuild affected products, or ledger entries that are missing."""

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from rich.progress import Progress

from handler.decision import Provenance
from handler.events import ExposureRequest
from handler.s3.errors import is_missing, translate_errors
from handler.s3.objects import S3Location, enable_requester_pays, version_of
from infra.aws import Stack, catalogue_in, find_stack, job_in, ledger_in
from infra.cli import UserError, confirm, plural
from infra.console import Console
from infra.jobs.job import JobFile
from infra.jobs.runner import JobRunner
from infra.mirror.bucket import Mirror, check_contexts
from infra.reprocess.audit import Finding
from infra.reprocess.catalogue import Catalogue
from infra.reprocess.select import Selection, select
from infra.reprocess.show import show


@dataclass(frozen=True)
class Locations:
    """Locations of ledger, catalogue and mirror, and the stack that they belong to."""

    s3: Any
    stack: Stack | None
    ledger: S3Location
    catalogue: S3Location
    mirror: S3Location | None

    @property
    def prefix(self) -> str:
        """Key prefix of the products."""
        return self.stack.output_prefix if self.stack else "dq_init/"

    @property
    def context(self) -> str:
        """The context that the function uses if a request names none."""
        return (self.stack and self.stack.parameters.get("CrdsContext")) or "latest"


def locations_of(
    stack: str | None,
    ledger: S3Location | None,
    catalogue: S3Location | None,
    mirror: S3Location | None,
) -> Locations:
    """Find the locations by stack; those that the operator names take precedence."""
    s3, found = boto3.client("s3"), find_stack(stack) if stack else None
    if found is not None:
        enable_requester_pays(s3, found.requester_pays)
        ledger = ledger or ledger_in(found.output("ProductBucket"))
        mirror = mirror or found.mirror
    if ledger is None:
        raise UserError("location of the ledger: missing, expected --stack NAME or --ledger URI")
    return Locations(s3, found, ledger, catalogue or catalogue_in(ledger.bucket), mirror)


@contextmanager
def open_selection(
    locations: Locations, to: str, before: str | None = None, *, by_pixels: bool = True
) -> Iterator[Selection]:
    """Select what a context affects, with a progress bar; the catalogue stays open meanwhile."""
    if locations.mirror is None:
        raise UserError("location of the mirror: missing, expected --stack NAME or --mirror URI")
    mirror = Mirror(locations.s3, locations.mirror)
    check_contexts(mirror, *filter(None, [to, before]))
    with Catalogue.open(locations.s3, locations.catalogue) as catalogue:
        selection = select(catalogue, mirror, to, before, by_pixels=by_pixels)
        if not selection.groups:
            raise UserError(f"{locations.catalogue}: no products; run reprocess catalogue first")
        with Progress(console=Console(stderr=True)) as bar:
            decisions = selection.decide()
            for _ in bar.track(decisions, len(selection.groups), description="Comparing"):
                pass
        yield selection


def submit(
    locations: Locations, to: str | None, *, relabel: bool, yes: bool, pause: float, as_json: bool
) -> None:
    """Rebuild what a context affects and follow the job; exit with 1 if a product failed."""
    if locations.stack is None:
        raise UserError("stack: missing, expected --stack NAME of the stack that rebuilds products")
    console = Console(stderr=as_json)
    with open_selection(locations, to or locations.context) as selection:
        show(selection, console, as_json=False)
        requests = list(selection.requests(to, relabel=relabel))
    if not requests:
        console.print("No product needs to be rebuilt.")
        return
    name = f"reprocess{'-relabel' * relabel}-{to or 'own'}"
    file = JobFile(locations.s3, job_in(locations.ledger.bucket, name.removesuffix(".pmap")))
    with tempfile.TemporaryDirectory() as folder:
        runner = JobRunner(locations.stack, file, console, Path(folder), pause)
        runner.check(requests)
        if not yes and not confirm(f"Rebuild {plural(len(requests), 'product')}?"):
            sys.exit("nothing was started")
        job = runner.send(runner.start(requests))
        code = runner.finish(job, as_json=as_json)
    console.print("Next: reprocess catalogue, then submit again, until it selects nothing.")
    sys.exit(code)


def write_manifest(path: Path, requests: Iterable[dict[str, str]]) -> int:
    """Write requests to a file and return their number.

    A ``.json`` file is an array, which the state machine Backfill reads; others hold JSON lines.
    """
    found = list(requests)
    if path.suffix == ".json":
        text = json.dumps(found)
    else:
        text = "".join(f"{json.dumps(request)}\n" for request in found)
    path.write_text(text, encoding="utf-8")
    return len(found)


def rebuild(locations: Locations, forgotten: list[Finding], console: Console) -> None:
    """Request the missing ledger entries of products: the function writes them again."""
    if locations.stack is None:
        raise UserError("stack: missing, expected --stack NAME of the stack that writes entries")
    sqs, queue = boto3.client("sqs"), locations.stack.output("BackfillQueue")
    sent = 0
    for finding in forgotten:
        product = S3Location.parse(finding.product)
        request = _report_request(product, locations.prefix, locations.s3)
        if request is None:
            console.print(f"{product}: its metadata do not name its input; skipped", soft_wrap=True)
            continue
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(request))
        sent += 1
    console.print(f"{plural(sent, 'request')} sent; then run reprocess catalogue and audit again")


def _report_request(product: S3Location, prefix: str, s3: Any) -> dict[str, Any] | None:
    """Return the request that reports an existing product, from the product's metadata."""
    metadata = s3.head_object(**product.as_kwargs)["Metadata"]
    found = Provenance.from_metadata(metadata)
    # Long values are stored as a digest: handler.decision.shortened
    if found is None or not found.cause or "...sha256:" in found.input_key:
        return None
    source = S3Location(found.input_bucket, found.input_key)
    request = {
        "bucket": source.bucket,
        "key": source.key,
        "cause": found.cause,
        "reportOnly": True,
    }
    if found.input_version:
        with translate_errors(f"{source}: reading its version"):
            try:
                current = version_of(s3.head_object(**source.as_kwargs))
            except ClientError as exc:
                if not is_missing(exc):
                    raise
                current = None
        if found.input_version != current:
            request["versionId"] = found.input_version
    if ExposureRequest.from_direct(request).target(product.bucket, prefix) != product:
        request["outputKey"] = product.key
    return request
