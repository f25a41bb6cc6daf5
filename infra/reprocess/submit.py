"""The work of ``dq-init reprocess``: select products, and request that they are rebuilt."""

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boto3
from rich.progress import Progress

from core.product import Form
from handler.decision import Provenance
from handler.events import default_key
from handler.s3.objects import ObjectStore, S3Location, StoredObject, enable_requester_pays
from infra.aws import Stack, catalogue_in, find_stack, job_in, ledger_in
from infra.cli import UserError, confirm, plural
from infra.console import Console
from infra.jobs.follow import JobResult
from infra.jobs.job import BATCH, JobFile, send_batch
from infra.jobs.runner import JobRunner
from infra.mirror.bucket import Mirror, check_contexts
from infra.reprocess.audit import Finding
from infra.reprocess.catalogue import Catalogue
from infra.reprocess.select import Selection, select
from infra.reprocess.show import show

_THREADS = 16


@dataclass(frozen=True)
class Archive:
    """The products of a stack, with their ledger and catalogue."""

    s3: Any
    stack: Stack

    @classmethod
    def of_stack(cls, name: str) -> "Archive":
        """Return the archive of a stack, or raise `UserError` if the stack does not exist."""
        s3, stack = boto3.client("s3"), find_stack(name)
        enable_requester_pays(s3, stack.requester_pays)
        return cls(s3, stack)

    @property
    def bucket(self) -> str:
        """Bucket of the products, the ledger, the catalogue and the jobs."""
        return self.stack.output("ProductBucket")

    @property
    def ledger(self) -> S3Location:
        """Prefix of the ledger."""
        return ledger_in(self.bucket)

    @property
    def catalogue(self) -> S3Location:
        """Prefix of the catalogue."""
        return catalogue_in(self.bucket)


@contextmanager
def open_selection(
    archive: Archive, to: str | None, before: str | None = None, *, by_pixels: bool = True
) -> Iterator[Selection]:
    """Yield the decided selection for context `to` (None: the stack's); show the progress."""
    context = to or archive.stack.parameters.get("CrdsContext", "latest")
    mirror = Mirror(archive.s3, archive.stack.mirror)
    check_contexts(mirror, *filter(None, [context, before]))
    with Catalogue.open(archive.s3, archive.catalogue) as catalogue:
        selection = select(catalogue, mirror, context, before, by_pixels=by_pixels)
        if not selection.groups:
            advice = "; run reprocess catalogue first" if catalogue.is_new else ""
            raise UserError(f"{archive.catalogue}: contains no products{advice}")
        with Progress(console=Console(stderr=True)) as bar:
            decisions = selection.decide()
            for _ in bar.track(decisions, len(selection.groups), description="Comparing"):
                pass
        yield selection


def submit(
    archive: Archive, to: str | None, *, relabel: bool, yes: bool, pause: float, as_json: bool
) -> None:
    """Rebuild products whose flags context `to` (None: the stack's) changes, and exit.

    The code is 1 if one failed, has no result or cannot be requested, or if the operator refuses.
    `relabel` adds products of which only the mask changes; `pause` is the seconds between polls.
    """
    console = Console(stderr=as_json)
    with open_selection(archive, to) as selection:
        show(selection, archive.stack.product, console, as_json=False)
        selected, prefix = selection.count(relabel=relabel), archive.stack.output_prefix
        below = list(selection.requests(prefix, to, relabel=relabel))
        context = selection.after.context.removesuffix(".pmap")
    if not selected:
        console.print("No product needs to be rebuilt.")
    print_left_out(selected - len(below), prefix, console)
    # A job of an earlier context is not resumed, also if requests name none.
    name = f"reprocess{'-relabel' * relabel}{'' if to else '-own'}-{context}"
    file = JobFile(archive.s3, job_in(archive.bucket, f"{name}-{archive.stack.digest()}"))
    with tempfile.TemporaryDirectory() as folder:
        runner = JobRunner(archive.stack, file, console, Path(folder), pause)
        requests = list(runner.without_rejected(below))
        if not requests:
            if as_json:
                print(json.dumps(asdict(JobResult())))
            sys.exit(1 if selected else 0)
        runner.check(requests)
        if not yes and not confirm(f"Rebuild {plural(len(requests), 'product')}?"):
            sys.exit("nothing was started")
        code = runner.finish(runner.send(requests), as_json=as_json)
    console.print("Next: reprocess catalogue, then submit again, until it selects nothing.")
    sys.exit(code or int(len(requests) < selected))


def print_left_out(number: int, prefix: str, console: Console) -> None:
    """Print how many products are outside OutputPrefix: a request would build another product."""
    if number:
        console.print(f"Left out: {plural(number, 'product')} outside OutputPrefix, {prefix}")


def rewrite_entries(archive: Archive, forgotten: Iterable[Finding], console: Console) -> None:
    """Request that the function writes the missing ledger entries of these products."""
    sqs, queue = boto3.client("sqs"), archive.stack.output("BackfillQueue")
    store, prefix = ObjectStore(archive.s3), archive.stack.output_prefix
    products = [S3Location.parse(finding.product) for finding in forgotten]
    bodies: list[str] = []

    def rewrite(product: S3Location) -> None:
        stored = store.find(product)
        request = _report_request(stored, prefix, store) if stored else None
        if request is not None:
            bodies.append(json.dumps(request))
            return
        reason = (
            "its ledger entry cannot be rebuilt, because its metadata do not name exposure and "
            "cause; run dq-init backfill for its exposure"
        )
        text = reason if stored else "was deleted meanwhile; run audit again"
        console.print(f"{product}: {text}", soft_wrap=True)

    with ThreadPoolExecutor(_THREADS) as threads, Progress(console=Console(stderr=True)) as bar:
        for _ in bar.track(threads.map(rewrite, products), len(products), description="Reading"):
            pass
        batches = [bodies[i : i + BATCH] for i in range(0, len(bodies), BATCH)]
        sending = threads.map(lambda batch: send_batch(batch, sqs, queue), batches)
        for _ in bar.track(sending, len(batches), description="Sending"):
            pass
    console.print(
        f"{plural(len(bodies), 'request')} sent; wait for the results, then run reprocess "
        "catalogue and audit again"
    )


def _report_request(stored: StoredObject, prefix: str, store: ObjectStore) -> dict[str, Any] | None:
    """Return a direct request to report the result that built a product, or None."""
    product, found = stored.location, Provenance.from_metadata(stored.metadata)
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
        current = store.find(source)
        if current is None or current.version_id != found.input_version:
            request["versionId"] = found.input_version
    form = Form.of_key(product.key)
    request["form"] = form.value
    if product.key != default_key(source.key, prefix, form):
        request["outputKey"] = product.key
    return request
