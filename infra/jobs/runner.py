"""Send and follow a job at a terminal, and print how it ended."""

import json
from collections.abc import Iterable, Mapping
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
from infra.aws import Stack, ledger_in
from infra.cli import UserError
from infra.console import Console, lines
from infra.jobs.follow import Outcomes, Queues, Watch
from infra.jobs.job import Job, JobFile, submit

__all__ = ["JobRunner"]

_SHOWN = 20
"""Failures and missing products that are printed one by one."""


@dataclass
class JobRunner:
    """Sends and follows a job.

    Attributes
    ----------
    stack : `~infra.aws.Stack`
        The stack that processes the requests.
    file : `~infra.jobs.job.JobFile`
        Where the job is stored.
    console : `rich.console.Console`
        Where progress is printed.
    scratch : `pathlib.Path`
        A folder for rule files.
    pause : float
        Seconds between two looks.
    """

    stack: Stack
    file: JobFile
    console: Console
    scratch: Path
    pause: float = 5.0

    def check(self, requests: Iterable[Mapping[str, str]]) -> None:
        """Refuse requests that the function would refuse, before anything is sent.

        Raises
        ------
        UserError
            If a request has a wrong field, or its context is not in the mirror.
        """
        bucket, prefix = self._products_go_to()
        contexts = set()
        for request in requests:
            try:
                asked = ExposureRequest.from_direct(request)
                asked.target(bucket, prefix)
            except InputRejected as exc:
                raise UserError(str(exc)) from exc
            contexts.add(asked.context)
        for context in sorted(contexts - {None}, key=str):
            try:
                name = self._rules.context_name(str(context))
                self._rules.mappings.load(name)
            except ReferenceUnavailable as exc:
                raise UserError(
                    f"{context}: not in the mirror {self.stack.mirror}, expected a context that "
                    f"was synced; run mirror sync --context {context} ({exc})"
                ) from exc

    def start(self, requests: list[dict[str, str]], *, is_new: bool = False) -> Job:
        """Store the job; say so if an unfinished one is resumed."""
        job = self.file.start(requests, is_new=is_new)
        if job.sent:
            self.console.print(
                f"Resuming the job of {job.began:%Y-%m-%d %H:%M} UTC: "
                f"{job.sent} of {len(job.requests)} requests were sent."
            )
        return job

    def finish(self, job: Job, *, as_json: bool) -> int:
        """Follow the job and print how it ended; returns 1 if a request failed or is missing."""
        ended = self.follow(job)
        if as_json:
            print(json.dumps(asdict(ended), indent=2))
        else:
            self.show(ended, job.began)
        return 1 if ended.failed or ended.missing else 0

    def send(self, job: Job) -> Job:
        """Send what is not in the queue yet; returns the job as it is then."""
        if job.sent >= len(job.requests):
            return job
        sqs, queue = boto3.client("sqs"), self.stack.output("BackfillQueue")
        with self._bar() as bar:
            task = bar.add_task("Sending", total=len(job.requests), state="")
            for job in submit(self.file, job, sqs, queue):  # noqa: B020, PLR1704  # the same job
                state = f"{job.sent} of {len(job.requests)}"
                bar.update(task, completed=job.sent, state=state)
        return job

    def follow(self, job: Job) -> Outcomes:
        """Follow the job until it ends, and store its result."""
        watch = self.watch(job)
        with self._bar() as bar:
            task = bar.add_task("Processing", total=len(watch.requests), state="")
            for now in watch.follow(self.pause):
                state = (
                    f"{now.complete} complete, {now.skipped} skipped, {now.failed} failed, "
                    f"{now.in_work} in work"
                )
                if now.is_quiet and now.left:
                    state += f"; queues empty, waiting for {now.left} results (up to 1 min)"
                bar.update(task, completed=len(watch.requests) - now.left, state=state)
        ended = watch.outcomes()
        self.file.save(replace(job, result=asdict(ended)))
        return ended

    def watch(self, job: Job) -> Watch:
        """Return what follows the job."""
        addresses = (self.stack.output(name) for name in ("BackfillQueue", "UnfinishedQueue"))
        bucket, prefix = self._products_go_to()
        requests = (ExposureRequest.from_direct(request) for request in job.requests)
        return Watch(
            self.file.s3,
            ledger_in(bucket),
            {request.target(bucket, prefix): request for request in requests},
            job.began,
            Queues(boto3.client("sqs"), tuple(addresses)),
            self._chooses,
        )

    def show(self, ended: Outcomes, began: datetime) -> None:
        """Print how the job ended."""
        table = Table(box=SIMPLE, title="Result")
        table.add_column("Exposures", justify="right")
        table.add_column("")
        table.add_row(str(ended.complete), "complete: the product was built")
        table.add_row(str(ended.skipped), "skipped: the product is up to date, or pinned")
        table.add_row(str(ended.failed), "failed", style="bold red" if ended.failed else None)
        if ended.missing:
            text = "missing: neither ledger nor product shows a result"
            table.add_row(str(len(ended.missing)), text, style="bold red")
        for error, number in ended.errors.items():
            table.add_row(str(number), f"  {error}")
        self.console.print(table)
        for product, reason in list(ended.reasons.items())[:_SHOWN]:
            self.console.print(lines(f"{product}:", f"  {reason}"), soft_wrap=True)
        for product in ended.missing[:_SHOWN]:
            self.console.print(f"{product}: missing", soft_wrap=True, markup=False)
        if len(ended.missing) > _SHOWN:
            self.console.print(f"... and {len(ended.missing) - _SHOWN} more; --json lists all")
        if ended.missing:
            self.console.print("Look into UndeliveredQueue and FailedQueue; then run it again.")
        if ended.failed:
            self.console.print(f"Failures: python -m infra queues show --stack {self.stack.name}")
        self.console.print(f"{(datetime.now(UTC) - began).total_seconds():.0f} s in all")

    @cached_property
    def _rules(self) -> Rules:
        return Rules.of(self.stack.mirror, self.scratch, self.file.s3)

    def _chooses(self, entry: Entry, context: str | None) -> tuple[str, str] | None:
        """Return the mask that the function would choose, by the parameters in the ledger."""
        if entry.catalogue is None:
            return None
        known = entry.catalogue.parameters
        name = context or self.stack.parameters.get("CrdsContext", "latest")
        try:
            header = fits.Header(
                {FITS_KEYWORDS[n]: v for n, v in known.items() if n in FITS_KEYWORDS}
            )
            best = self._rules.best_reference(Keywords(header, "ledger entry"), name)
        except (ReferenceUnavailable, InputRejected, ClientError, ValueError):
            return None  # what cannot be evaluated is reported as missing
        if best.mask is None:
            return NO_MASK, ""
        return f"crds://{best.mask}", best.digest.sha1 if best.digest else ""

    def _products_go_to(self) -> tuple[str, str]:
        """Bucket and key prefix."""
        return self.stack.output("ProductBucket"), self.stack.output_prefix

    def _bar(self) -> Progress:
        text, state = TextColumn("{task.description:10}"), TextColumn("{task.fields[state]}")
        bar = BarColumn(bar_width=None)
        return Progress(text, bar, state, TimeElapsedColumn(), console=self.console, expand=True)
