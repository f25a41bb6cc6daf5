"""A campaign as a person at a terminal sees it: sent, followed with bars, told in a table."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import boto3
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from core.errors import InputRejected
from handler.ledger import Ledger
from handler.requests import ExposureRequest
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore
from infra.campaign.campaign import Campaign, Manifest
from infra.campaign.follow import Outcomes, Queues, Watch
from infra.campaign.prefixes import ledger_in
from infra.campaign.submit import submit
from infra.stacks import Stack
from infra.terminal import Mistake

__all__ = ["Conduct"]

_SHOWN = 20
"""Failures that are printed one by one."""


@dataclass(frozen=True)
class Conduct:
    """How a campaign is sent and followed.

    Attributes
    ----------
    stack : `~infra.stacks.Stack`
        The stack that does the work.
    campaign : `~infra.campaign.campaign.Campaign`
        Where it is kept.
    console : `rich.console.Console`
        Who watches.
    pause : float
        Seconds between two looks.
    """

    stack: Stack
    campaign: Campaign
    console: Console
    pause: float = 5.0

    def check(self, requests: Iterable[Mapping[str, str]]) -> None:
        """Refuse what the function would refuse, before anything is sent.

        Raises
        ------
        Mistake
            If a request makes no sense.
        """
        bucket, prefix = self._products_go_to()
        for request in requests:
            try:
                ExposureRequest.from_direct(request).target(bucket, prefix)
            except InputRejected as exc:
                raise Mistake(str(exc)) from exc

    def finish(self, manifest: Manifest, *, as_json: bool) -> int:
        """Follow it and print how it ended; returns the exit code: 1 if a request failed."""
        ended = self.follow(manifest)
        if as_json:
            print(json.dumps(asdict(ended), indent=2))
        else:
            self.show(ended, manifest.began)
        return 1 if ended.failed or ended.unknown else 0

    def send(self, manifest: Manifest) -> None:
        """Send what is not in the queue yet."""
        if self.campaign.submitted == len(manifest.lines):
            return
        sqs, queue = boto3.client("sqs"), self.stack.output("BackfillQueue")
        with self._bar() as bar:
            task = bar.add_task("Sending", total=len(manifest.lines), told="")
            for done in submit(self.campaign, manifest, sqs, queue):
                bar.update(task, completed=done, told=f"{done} of {len(manifest.lines)}")

    def follow(self, manifest: Manifest) -> Outcomes:
        """Follow it until its queues are empty; write down how it ended."""
        watch, total = self.watch(manifest), len(manifest.lines)
        with self._bar() as bar:
            task = bar.add_task("Processing", total=total, told="")
            for now in watch.follow(self.pause):
                told = f"{now.complete} complete, {now.failed} failed, {now.in_work} in work"
                left = min(now.waiting + now.in_work, total)
                bar.update(task, completed=total - left, told=told)
        ended = watch.outcomes()
        self.campaign.end(asdict(ended))
        return ended

    def watch(self, manifest: Manifest) -> Watch:
        """Return what looks how far it has come."""
        queues = Queues(
            boto3.client("sqs"),
            tuple(self.stack.output(name) for name in ("BackfillQueue", "UnfinishedQueue")),
        )
        ledger = Ledger(ledger_in(self.stack.output("ProductBucket")))
        store = ObjectStore(self.campaign.s3)
        return Watch(ledger, self._products(manifest), manifest.began, queues, store)

    def show(self, ended: Outcomes, began: datetime) -> None:
        """Print how it ended."""
        table = Table(box=SIMPLE, title="How it ended")
        table.add_column("Exposures", justify="right")
        table.add_column("")
        table.add_row(str(ended.complete), "complete: the product was made")
        table.add_row(str(ended.skipped), "skipped: the product was as it should be")
        table.add_row(str(ended.failed), "failed", style="bold red" if ended.failed else None)
        if ended.unknown:
            told = "unknown: the ledger has never heard of the product (UndeliveredQueue?)"
            table.add_row(str(ended.unknown), told, style="bold red")
        for error, number in ended.errors.items():
            table.add_row(str(number), f"  {error}")
        self.console.print(table)
        for product, reason in list(ended.reasons.items())[:_SHOWN]:
            self.console.print(f"{product}:\n  {reason}", soft_wrap=True)
        if ended.failed:
            self.console.print(
                f"{ended.failed} failures: python -m infra queues show --stack {self.stack.name}"
            )
        self.console.print(f"{(datetime.now(UTC) - began).total_seconds():.0f} s in all")

    def _products_go_to(self) -> tuple[str, str]:
        """Bucket and key prefix."""
        return self.stack.output("ProductBucket"), self.stack.output_prefix

    def _products(self, manifest: Manifest) -> frozenset[S3Location]:
        bucket, prefix = self._products_go_to()
        requests = (ExposureRequest.from_direct(json.loads(line)) for line in manifest.lines)
        return frozenset(request.target(bucket, prefix) for request in requests)

    def _bar(self) -> Progress:
        text, told = TextColumn("{task.description:10}"), TextColumn("{task.fields[told]}")
        bar = BarColumn(bar_width=None)
        return Progress(text, bar, told, TimeElapsedColumn(), console=self.console, expand=True)
