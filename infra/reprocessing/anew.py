"""Rebuild products, or their ledger entries, by the stack that made them."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import boto3

from handler.s3.locations import S3Location
from infra.campaign.conduct import Conduct
from infra.campaign.job import JobFile
from infra.campaign.prefixes import job_in
from infra.console import Console
from infra.reprocessing.affected import Affected, Question
from infra.reprocessing.audit import Finding
from infra.reprocessing.places import Places, asked
from infra.reprocessing.rebuild import request_for
from infra.reprocessing.show import show
from infra.terminal import Mistake, is_agreed

__all__ = ["check_catalogue", "rebuild", "submit"]


def rebuild(places: Places, forgotten: list[Finding], console: Console) -> None:
    """Request the entries of products that the ledger lacks."""
    if places.stack is None:
        raise Mistake("--stack NAME is needed: it names the stack that writes them")
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


def check_catalogue(answer: Affected, places: Places) -> None:
    """Refuse to answer from a catalogue that was never written.

    Raises
    ------
    Mistake
        If the catalogue holds no products.
    """
    if not answer.decisions and not answer.problems():
        raise Mistake(
            f"{places.catalogue}: no products in the catalogue; run reprocess catalogue first"
        )


def submit(places: Places, arguments: argparse.Namespace, console: Console) -> None:
    """Rebuild what a context affects, and follow it; exit with 1 if a product failed."""
    if places.stack is None or places.mirror is None:
        raise Mistake("--stack NAME is needed: it names the stack that rebuilds them")
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
        conduct = Conduct(places.stack, file, console, Path(folder), arguments.pause)
        conduct.check(requests)
        if not arguments.yes and not is_agreed(f"Rebuild {len(requests)} products?"):
            sys.exit("nothing was started")
        job = conduct.send(conduct.start(requests))
        code = conduct.finish(job, as_json=arguments.json)
    console.print("Next: reprocess catalogue, then submit again, until it selects nothing.")
    sys.exit(code)
