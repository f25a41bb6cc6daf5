"""The work of ``dq-init reprocess``: select products, and request that they are rebuilt."""

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boto3
from rich.progress import Progress

from core.errors import InputRejected
from core.product import Form
from handler.decision import Provenance
from handler.events import ExposureRequest
from handler.s3.objects import ObjectStore, S3Location, StoredObject, enable_requester_pays
from infra.aws import Stack, catalogue_in, find_stack, job_in, ledger_in
from infra.cli import UserError, confirm, plural
from infra.console import Console
from infra.jobs.follow import JobResult
from infra.jobs.job import JobFile
from infra.jobs.runner import JobRunner
from infra.mirror.bucket import Mirror, check_contexts
from infra.reprocess.audit import Finding
from infra.reprocess.catalogue import Catalogue
from infra.reprocess.select import Selection, select
from infra.reprocess.show import show


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
        show(selection, console, as_json=False)
        selected, prefix = selection.count(relabel=relabel), archive.stack.output_prefix
        below = list(selection.requests(to, relabel=relabel, prefix=prefix))
    if not selected:
        console.print("No product needs to be rebuilt.")
    if outside := selected - len(below):  # a request would build another product
        console.print(f"Left out: {plural(outside, 'product')} outside OutputPrefix, {prefix}")
    name = f"reprocess{'-relabel' * relabel}-{to or 'own'}"
    file = JobFile(archive.s3, job_in(archive.bucket, name.removesuffix(".pmap")))
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


def rewrite_entries(archive: Archive, forgotten: Iterable[Finding], console: Console) -> None:
    """Request that the function writes the missing ledger entries of these products."""
    sqs, queue = boto3.client("sqs"), archive.stack.output("BackfillQueue")
    sent, store = 0, ObjectStore(archive.s3)
    for finding in forgotten:
        product = S3Location.parse(finding.product)
        stored = store.find(product)
        if stored is None:
            console.print(f"{product}: was deleted meanwhile; run audit again", soft_wrap=True)
            continue
        request = _report_request(stored, archive.stack.output_prefix, store)
        if request is None:
            console.print(
                f"{product}: its ledger entry cannot be rebuilt, because its metadata do not name "
                "exposure and cause; run dq-init backfill for its exposure",
                soft_wrap=True,
            )
            continue
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(request))
        sent += 1
    console.print(
        f"{plural(sent, 'request')} sent; wait for the results, then run reprocess catalogue and "
        "audit again"
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
    try:
        default = ExposureRequest.from_direct(request).target(product.bucket, prefix, form)
    except InputRejected:  # such a product was built with an outputKey
        default = None
    if default != product:
        request["outputKey"] = product.key
    return request
