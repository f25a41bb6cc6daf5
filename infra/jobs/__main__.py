"""The command ``dq-init backfill``: process exposures that are in S3 already."""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3
import click

from core import __version__
from handler.s3.objects import enable_requester_pays
from infra import options
from infra.aws import Stack, find_stack, job_in
from infra.cli import UserError, confirm, format_duration, plural
from infra.console import Console
from infra.cost.estimate import AWS, DROPPED, exposures_seconds, exposures_usd
from infra.jobs.job import JobFile
from infra.jobs.runner import JobRunner
from infra.jobs.targets import Found, digest_of_list, find, warnings

_USUAL_SIZE = 92_000_000
"""Bytes that are assumed of an exposure that was named, not listed."""


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@options.stack(required=True)
@options.context("--context", help="latest, build, or a name: jwst_1321.pmap.")
@click.option("--replace", is_flag=True, help="Rebuild all products, also up-to-date ones.")
@options.dry_run
@options.yes
@click.option("--leave", is_flag=True, help="Send the requests and exit; do not follow them.")
@options.as_json
@options.pause
def command(  # noqa: PLR0913, PLR0917
    targets: tuple[str, ...],
    stack: str,
    context: str | None,
    replace: bool,
    dry_run: bool,
    yes: bool,
    leave: bool,
    as_json: bool,
    pause: float,
) -> None:
    """Process exposures that are in S3 already.

    TARGET is s3://bucket/prefix/ (all *_uncal.fits below it), s3://bucket/key_uncal.fits, the name
    of a file in MAST's archive s3://stpubdata (jw02733001001_02101_00001_nrca1_uncal.fits), or a
    local file with one of these per line. The stack must be allowed to read the bucket: RawBucket
    and the buckets of its parameter ReadBuckets.

    The command prints the number and the cost of the exposures, asks for confirmation, and follows
    the requests to their end. After an interruption, the same command resumes the job. The exit
    code is 1 if a request failed or has no result.
    """
    found_stack, s3, console = find_stack(stack), boto3.client("s3"), Console(stderr=as_json)
    enable_requester_pays(s3, found_stack.requester_pays)
    # The same command gives the job the same name, and so resumes it, but not after an upgrade.
    asked = [*(digest_of_list(target) or target for target in targets), context or ""]
    digest = found_stack.digest(*asked, "replace" * replace, __version__)
    words = re.sub(r"[^A-Za-z0-9]+", "-", targets[0].removeprefix("s3://")).strip("-")
    location = job_in(found_stack.output("ProductBucket"), f"{words[:48]}-{digest}")
    exposures = list(find(targets, s3))
    if not exposures:
        raise UserError(
            f"{', '.join(targets)}: no exposure found, expected objects whose keys end in "
            "_uncal.fits; check bucket and prefix"
        )
    choices = {"context": context, "onExisting": "replace" if replace else None}
    given = {name: value for name, value in choices.items() if value}
    requests = [
        {"bucket": item.location.bucket, "key": item.location.key} | given for item in exposures
    ]
    with tempfile.TemporaryDirectory() as folder:
        runner = JobRunner(found_stack, JobFile(s3, location), console, Path(folder), pause)
        runner.check(requests)
        estimate = _print_estimate(exposures, found_stack, console)
        problems = list(warnings(exposures, found_stack, s3))
        for problem in problems:
            console.print(f"warning: {problem}", style="bold red", soft_wrap=True)
        if dry_run:
            if as_json:
                print(json.dumps(estimate | {"warnings": problems}))
            return
        if not yes and not confirm(f"Process {plural(len(exposures), 'exposure')}?"):
            sys.exit("nothing was started")
        job = runner.send(requests, is_new=leave)
        if leave:
            console.print("All requests were sent. The same command without --leave follows them.")
            if as_json:
                print(json.dumps({"job": str(location), "sent": job.sent}))
            return
        sys.exit(runner.finish(job, as_json=as_json))


def _print_estimate(exposures: list[Found], stack: Stack, console: Console) -> dict[str, Any]:
    """Print and return number, bytes, cost in USD and duration in seconds of a backfill."""
    sizes = [_USUAL_SIZE if item.size is None else item.size for item in exposures]
    guessed = " (sizes are assumed)" if any(item.size is None for item in exposures) else ""
    usd = exposures_usd(sizes, product=stack.product)
    at_once = int(stack.parameters.get("BackfillConcurrency", "20"))
    seconds = exposures_seconds(sizes, at_once, stack.product)
    size = sum(sizes) / 1e6
    amount = f"{size / 1e3:,.1f} GB" if size >= 1e3 else f"{size:,.1f} MB"
    cost = f"about {usd:.2f} USD" if usd >= 0.01 else "less than 0.01 USD"
    console.print(
        f"{plural(len(exposures), 'exposure')}, {amount}{guessed}; {cost} without storage; about "
        f"{format_duration(seconds)}, at most {at_once} at a time"
    )
    if seconds > AWS.kept:
        console.print(DROPPED, style="bold red")
    return {"exposures": len(exposures), "bytes": sum(sizes), "usd": usd, "seconds": seconds}
