"""Process exposures that are there already: ``python -m infra backfill TARGET... --stack NAME``.

TARGET is ``s3://bucket/prefix/`` (every ``*_uncal.fits`` below it), ``s3://bucket/key_uncal.fits``,
a name of the archive (``jw02733001001_02101_00001_nrca1_uncal.fits``, in s3://stpubdata), or a file
that holds such words line by line. The stack reads RawBucket, and what ReadBuckets names.

It prints how many there are and what they cost, asks, and follows them to their end. It can be
interrupted at any time: the same command resumes the job.
"""

import argparse
import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

import boto3

from handler.s3.objects import agree_to_pay
from infra.aws import Stack, find_stack, job_in
from infra.cli import UserError, confirm, format_duration, parser_of, plural
from infra.console import Console
from infra.cost.estimate import AWS, DROPPED, exposures_seconds, exposures_usd
from infra.jobs.job import JobFile
from infra.jobs.runner import JobRunner
from infra.jobs.targets import Found, digest_of_list, find, warnings

__all__ = ["main"]

_USUAL_SIZE = 92_000_000
"""Bytes that an exposure is taken to have which was named, not listed."""


def main(words: list[str]) -> None:
    """Run the command; exit with 1 if a request failed or is missing."""
    arguments = _parser().parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        _run(arguments, Path(folder))


def _run(arguments: argparse.Namespace, scratch: Path) -> None:
    stack, s3 = find_stack(arguments.stack), boto3.client("s3")
    agree_to_pay(s3, stack.requester_pays)
    console = Console(stderr=arguments.json)
    file = JobFile(s3, job_in(stack.output("ProductBucket"), _name(arguments)))
    conduct = JobRunner(stack, file, console, scratch, arguments.pause)
    found = list(find(arguments.target, s3))
    if not found:
        raise UserError(f"{' '.join(arguments.target)}: no *_uncal.fits there")
    requests = [_request(item, arguments) for item in found]
    conduct.check(requests)
    _print_estimate(found, stack, console)
    for warning in warnings(found, stack, s3):
        console.print(f"warning: {warning}", style="bold red", markup=False, soft_wrap=True)
    if arguments.dry_run:
        return
    if not arguments.yes and not confirm("Start?"):
        sys.exit("nothing was started")
    job = conduct.send(conduct.start(requests, is_new=arguments.leave))
    if arguments.leave:
        console.print("Sent. The same command without --leave follows it.")
        return
    sys.exit(conduct.finish(job, as_json=arguments.json))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("backfill", __doc__)
    parser.add_argument("target", nargs="+", help="what to process")
    parser.add_argument("--stack", required=True, help="name of the deployed stack")
    parser.add_argument("--context", help="latest, build, or such as jwst_1321.pmap")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="rebuild every product, also those that are up to date",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--leave", action="store_true", help="send, and do not follow")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between two looks (5)")
    return parser


def _name(arguments: argparse.Namespace) -> str:
    """Return the job's name: the same command resumes the same job."""
    targets = [digest_of_list(target) or target for target in arguments.target]
    asked = [*targets, arguments.context or "", "replace" * arguments.replace]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]
    words = re.sub(r"[^A-Za-z0-9]+", "-", arguments.target[0].removeprefix("s3://")).strip("-")
    return f"{words[:48]}-{digest}"


def _print_estimate(found: list[Found], stack: Stack, console: Console) -> None:
    sizes = [_USUAL_SIZE if item.size is None else item.size for item in found]
    guessed = "" if all(item.size is not None for item in found) else " (sizes are guessed)"
    usd = exposures_usd(sizes, encoding=stack.science_encoding)
    at_once = int(stack.parameters.get("BackfillConcurrency", "20"))
    seconds = exposures_seconds(sizes, at_once, stack.science_encoding)
    size = sum(sizes) / 1e6
    amount = f"{size / 1e3:,.1f} GB" if size >= 1e3 else f"{size:,.1f} MB"
    cost = f"about {usd:.2f} USD" if usd >= 0.01 else "less than 0.01 USD"
    console.print(
        f"{plural(len(found), 'exposure')}, {amount}{guessed}; {cost} without storage; about "
        f"{format_duration(seconds)}, at most {at_once} at a time"
    )
    if seconds > AWS.kept:
        console.print(DROPPED, style="bold red")


def _request(found: Found, arguments: argparse.Namespace) -> dict[str, str]:
    asked = {"bucket": found.location.bucket, "key": found.location.key}
    if arguments.context:
        asked["context"] = arguments.context
    if arguments.replace:
        asked["onExisting"] = "replace"
    return asked
