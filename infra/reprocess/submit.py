"""Rebuild products, or their ledger entries, by the stack that made them."""

import argparse
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

from handler.events import ExposureRequest
from handler.provenance import Provenance
from handler.s3.errors import failures_of, is_missing
from handler.s3.objects import S3Location, agree_to_pay, version_of
from infra.aws import Stack, catalogue_in, find_stack, job_in, ledger_in
from infra.cli import UserError, confirm
from infra.console import Console
from infra.jobs.job import JobFile
from infra.jobs.runner import JobRunner
from infra.mirror.bucket import Mirror, check_contexts
from infra.reprocess.affected import Affected, Question, affected
from infra.reprocess.audit import Finding
from infra.reprocess.catalogue import Catalogue
from infra.reprocess.select import Group
from infra.reprocess.show import show

__all__ = [
    "Locations",
    "asked",
    "check_catalogue",
    "locations_of",
    "rebuild",
    "request_for",
    "submit",
    "write_manifest",
]


@dataclass(frozen=True)
class Locations:
    """Where everything lies."""

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


def locations_of(arguments: argparse.Namespace) -> Locations:
    """Find the places by what a person has typed.

    Raises
    ------
    UserError
        If neither a stack nor a ledger is named.
    """
    s3, stack = boto3.client("s3"), find_stack(arguments.stack) if arguments.stack else None
    if stack is not None:
        agree_to_pay(s3, stack.requester_pays)
    ledger, catalogue, mirror = arguments.ledger, arguments.catalogue, arguments.mirror
    if stack is not None:
        bucket = stack.output("ProductBucket")
        ledger = ledger or ledger_in(bucket)
        mirror = mirror or stack.mirror
    if ledger is None:
        raise UserError(
            "--stack NAME says where the ledger is; or give --ledger s3://.../dq_ledger"
        )
    return Locations(s3, stack, ledger, catalogue or catalogue_in(ledger.bucket), mirror)


@contextmanager
def asked(places: Locations, question: Question) -> Iterator[Affected]:
    """What a context affects, with a bar for whoever waits."""
    if places.mirror is None:
        raise UserError("--stack NAME says where the mirror is; or give --mirror s3://bucket")
    mirror = Mirror(places.s3, places.mirror)
    check_contexts(mirror, *filter(None, [question.to, question.compared]))

    def watched(groups: list[Group]) -> Iterator[Group]:
        with Progress(console=Console(stderr=True)) as bar:
            yield from bar.track(groups, description="Comparing")

    with (
        Catalogue.open(places.s3, places.catalogue) as catalogue,
        affected(catalogue, mirror, question, watched) as answer,
    ):
        yield answer


_DIGEST = "...sha256:"
"""What is recorded of a name that is too long."""


def request_for(product: S3Location, prefix: str, s3: Any) -> dict[str, Any] | None:
    """Return the direct request that has a product remembered.

    Parameters
    ----------
    product : `~handler.s3.objects.S3Location`
        The product.
    prefix : str
        Key prefix of the products.
    s3 : boto3 S3 client
        How to reach it.

    Returns
    -------
    dict or None
        None where it is no product of ours, or its exposure's name was too long to be recorded.
    """
    metadata = s3.head_object(**product.as_kwargs)["Metadata"]
    made = Provenance.from_metadata(metadata)
    if made is None or not made.cause or _DIGEST in made.input_key:
        return None
    asked = {
        "bucket": made.input_bucket,
        "key": made.input_key,
        "cause": made.cause,
        "reportOnly": True,
    }
    source = S3Location(made.input_bucket, made.input_key)
    if made.input_version and made.input_version != _current_version(source, s3):
        asked["versionId"] = made.input_version
    usual = ExposureRequest.from_direct(asked).target(product.bucket, prefix)
    return asked if usual == product else {**asked, "outputKey": product.key}


def _current_version(source: S3Location, s3: Any) -> str | None:
    """Return the version that a request without ``versionId`` would read."""
    with failures_of(f"{source}: looking it up"):
        try:
            return version_of(s3.head_object(**source.as_kwargs))
        except ClientError as exc:
            if is_missing(exc):
                return None
            raise


def write_manifest(path: Path, requests: Iterable[dict[str, str]]) -> int:
    """Write direct requests into a file, and return how many.

    Parameters
    ----------
    path : `pathlib.Path`
        ``.json`` is what the state machine Backfill reads; anything else gets a request per line.
    requests : iterable of dict
        The requests.
    """
    found = list(requests)
    with path.open("w", encoding="utf-8") as file:
        if path.suffix == ".json":
            json.dump(found, file)
        else:
            file.writelines(f"{json.dumps(request)}\n" for request in found)
    return len(found)


def rebuild(places: Locations, forgotten: list[Finding], console: Console) -> None:
    """Request the entries of products that the ledger lacks."""
    if places.stack is None:
        raise UserError("--stack NAME is needed: it names the stack that writes them")
    sqs, queue = boto3.client("sqs"), places.stack.output("BackfillQueue")
    sent = 0
    for finding in forgotten:
        product = S3Location.parse(finding.product)
        request = request_for(product, places.prefix, places.s3)
        if request is None:
            console.print(f"{product}: its metadata do not name its input; skipped", soft_wrap=True)
            continue
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(request))
        sent += 1
    console.print(f"{sent} ledger entries requested; then run reprocess catalogue and audit again")


def check_catalogue(answer: Affected, places: Locations) -> None:
    """Refuse to answer from a catalogue that was never written.

    Raises
    ------
    UserError
        If the catalogue holds no products.
    """
    if not answer.decisions and not answer.problems():
        raise UserError(
            f"{places.catalogue}: no products in the catalogue; run reprocess catalogue first"
        )


def submit(places: Locations, arguments: argparse.Namespace, console: Console) -> None:
    """Rebuild what a context affects, and follow it; exit with 1 if a product failed."""
    if places.stack is None or places.mirror is None:
        raise UserError("--stack NAME is needed: it names the stack that rebuilds them")
    name = f"reprocess{'-relabel' * arguments.relabel}-{arguments.to or 'own'}"
    file = JobFile(places.s3, job_in(places.ledger.bucket, name.removesuffix(".pmap")))
    question = Question(arguments.to or places.context)
    with asked(places, question) as answer:
        check_catalogue(answer, places)
        show(answer, console, as_json=False)
        wanted = question.wanted(relabel=arguments.relabel)
        requests = list(answer.requests(wanted, arguments.to))
    if not requests:
        console.print("No product needs to be rebuilt.")
        return
    with tempfile.TemporaryDirectory() as folder:
        conduct = JobRunner(places.stack, file, console, Path(folder), arguments.pause)
        conduct.check(requests)
        if not arguments.yes and not confirm(f"Rebuild {len(requests)} products?"):
            sys.exit("nothing was started")
        job = conduct.send(conduct.start(requests))
        code = conduct.finish(job, as_json=arguments.json)
    console.print("Next: reprocess catalogue, then submit again, until it selects nothing.")
    sys.exit(code)
