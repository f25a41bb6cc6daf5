"""A job as a command runs it: check, send and follow its requests, and print its result."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import boto3
from astropy.io import fits
from botocore.exceptions import ClientError
from rich.box import SIMPLE
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from core.errors import InputRejected, ReferenceUnavailable
from core.fits.hdus import Keywords
from core.product import NO_MASK
from handler.crds.parameters import FITS_KEYWORDS
from handler.crds.rules import Rules
from handler.events import ExposureRequest
from handler.ledger import Entry
from handler.s3.objects import S3Location
from infra.aws import Stack, ledger_in
from infra.cli import UserError
from infra.console import Console, lines
from infra.jobs.follow import JobResult, Watch
from infra.jobs.job import Job, JobFile, Request, submit
from infra.mirror.bucket import Mirror, check_contexts

_SHOWN = 20
"""Failures and missing products that are printed one by one."""


@dataclass
class JobRunner:
    """A job of a stack, and the console that shows it."""

    stack: Stack
    file: JobFile
    console: Console
    scratch: Path  # a folder for the mappings that are read from the mirror
    pause: float = 5.0  # seconds between two polls

    def check(self, requests: Iterable[Mapping[str, str]]) -> None:
        """Raise `UserError` for an invalid request, and for two exposures with one product.

        A request is invalid if the function rejects its fields or its product's key, or if the
        mirror lacks its context. Exposures are not looked up.
        """
        contexts, sources = set(), dict[S3Location, S3Location]()
        for request in requests:
            try:
                parsed = ExposureRequest.from_direct(request)
                product = self._product_of(parsed)
            except InputRejected as exc:
                raise UserError(str(exc)) from exc
            contexts.add(parsed.context)
            other = sources.setdefault(product, parsed.source)
            if other != parsed.source:
                raise UserError(
                    f"{other} and {parsed.source}: have the same product {product}, expected one "
                    "for each; leave one out, and request it alone, with an outputKey"
                )
        if named := sorted(filter(None, contexts)):
            check_contexts(Mirror(self.file.s3, self.stack.mirror), *named)

    def without_rejected(self, requests: Iterable[Request]) -> Iterator[Request]:
        """Yield requests with valid fields and product key; print why others are skipped."""
        for request in requests:
            try:
                self._product_of(ExposureRequest.from_direct(request))
            except InputRejected as exc:
                self.console.print(f"{exc}; skipped", style="bold red", soft_wrap=True)
            else:
                yield request

    def send(self, requests: list[dict[str, str]], *, is_new: bool = False) -> Job:
        """Store a job of `requests`, send those that were not sent yet, and return the job."""
        job = self.file.start(requests, is_new=is_new)
        if job.sent:
            self.console.print(
                f"Resuming the job of {job.began:%Y-%m-%d %H:%M} UTC: {job.sent} of "
                f"{len(job.requests)} requests were sent; results since then count. To begin "
                f"again, delete {self.file.location}.",
                soft_wrap=True,
            )
        if job.sent >= len(job.requests):
            return job
        sqs, queue_url = boto3.client("sqs"), self.stack.output("BackfillQueue")
        with self._bar() as bar:
            task = bar.add_task("Sending", total=len(job.requests), text="")
            for job in submit(self.file, job, sqs, queue_url):  # noqa: B020
                text = f"{job.sent} of {len(job.requests)}"
                bar.update(task, completed=job.sent, text=text)
        return job

    def finish(self, job: Job, *, as_json: bool) -> int:
        """Follow the job, store and print its result, and return the exit code."""
        result = self._follow(job)
        if as_json:
            print(json.dumps(asdict(result), indent=2))
        else:
            self._print(result)
            self.console.print(f"{(datetime.now(UTC) - job.began).total_seconds():.0f} s in all")
        return 1 if result.failed or result.missing else 0

    def _follow(self, job: Job) -> JobResult:
        """Show progress until the job ends; store and return its result."""
        requests = map(ExposureRequest.from_direct, job.requests)
        queue_urls = tuple(map(self.stack.output, ("BackfillQueue", "UnfinishedQueue")))
        watch = Watch(
            self.file.s3,
            ledger_in(self.stack.output("ProductBucket")),
            {self._product_of(request): request for request in requests},
            job.began,
            boto3.client("sqs"),
            queue_urls,
            self._select_mask,
            self.stack.parameters.get("ScienceEncoding", "native"),
        )
        with self._bar() as bar:
            task = bar.add_task("Processing", total=len(watch.requests), text="")
            for now in watch.follow(self.pause):
                text = (
                    f"{now.complete} complete, {now.skipped} skipped, {now.failed} failed, "
                    f"{now.in_work} in work"
                )
                if now.is_quiet and now.left:
                    text += f"; queues empty, waiting for {now.left} results (up to 1 min)"
                bar.update(task, completed=len(watch.requests) - now.left, text=text)
        result = watch.result()
        self.file.save(replace(job, result=asdict(result)))
        return result

    def _print(self, result: JobResult) -> None:
        """Print the numbers of a result, failed and missing products, and what to run next."""
        table = Table(box=SIMPLE, title="Result")
        table.add_column("Exposures", justify="right")
        table.add_column("")
        table.add_row(str(result.complete), "complete: the product was built")
        table.add_row(str(result.skipped), "skipped: the product is up to date, or pinned")
        table.add_row(str(result.failed), "failed", style="bold red" if result.failed else None)
        if result.missing:
            text = "missing: neither ledger nor product shows a result"
            table.add_row(str(len(result.missing)), text, style="bold red")
        for error, number in result.errors.items():
            table.add_row(str(number), f"  {error}")
        self.console.print(table)
        for product, reason in list(result.reasons.items())[:_SHOWN]:
            self.console.print(lines(f"{product}:", f"  {reason}"), soft_wrap=True)
        for product in result.missing[:_SHOWN]:
            self.console.print(f"{product}: missing, no result was found", soft_wrap=True)
        if len(result.missing) > _SHOWN:
            self.console.print(f"... and {len(result.missing) - _SHOWN} more; --json lists all")
        show = f"dq-init queues show --stack {self.stack.name}"
        if result.missing:
            self.console.print(
                f"Lost requests: {show} --queue UndeliveredQueue; then run the same command again"
            )
        if result.failed:
            self.console.print(f"Failures: {show}")

    @cached_property
    def _rules(self) -> Rules:
        return Rules(self.stack.mirror, self.scratch, self.file.s3)

    def _select_mask(self, entry: Entry, context: str | None) -> tuple[str, str] | None:
        """Return R_MASK and SHA-1 of the mask that `context` selects for an entry's exposure."""
        if entry.catalogue is None:
            return None
        known = entry.catalogue.parameters.items()
        name = context or self.stack.parameters.get("CrdsContext", "latest")
        try:
            header = fits.Header({FITS_KEYWORDS[n]: v for n, v in known if n in FITS_KEYWORDS})
            best = self._rules.best_reference(Keywords(header, "ledger entry"), name)
        except (ReferenceUnavailable, InputRejected, ClientError, ValueError):
            return None  # without a mask, the request is reported as missing
        if best.mask is None:
            return NO_MASK, ""
        return f"crds://{best.mask}", best.digest.sha1 if best.digest else ""

    def _product_of(self, request: ExposureRequest) -> S3Location:
        bucket = self.stack.output("ProductBucket")
        return request.target(bucket, self.stack.output_prefix, self.stack.product_form)

    def _bar(self) -> Progress:
        bar, text = BarColumn(bar_width=None), TextColumn("{task.fields[text]}")
        columns = (TextColumn("{task.description:10}"), bar, text, TimeElapsedColumn())
        return Progress(*columns, console=self.console, expand=True)
