"""Having products made anew, or remembered, by the stack that makes them."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import boto3
from rich.console import Console

from handler.references.rules import Rules
from handler.s3.locations import S3Location
from infra.campaign.campaign import Campaign, Manifest
from infra.campaign.conduct import Conduct
from infra.reprocessing.affected import Question
from infra.reprocessing.audit import Finding
from infra.reprocessing.manifests import campaign_place
from infra.reprocessing.places import Places, asked
from infra.reprocessing.rebuild import request_for
from infra.reprocessing.show import show
from infra.terminal import Mistake, is_agreed

__all__ = ["rebuild", "submit"]


def rebuild(places: Places, forgotten: list[Finding], console: Console) -> None:
    """Ask the function for the products that the ledger has forgotten."""
    if places.stack is None:
        raise Mistake("--stack NAME says which stack is to do it")
    sqs, queue = boto3.client("sqs"), places.stack.output("BackfillQueue")
    sent = 0
    for finding in forgotten:
        product = S3Location.parse(finding.product)
        request = request_for(product, places.prefix, places.s3)
        if request is None:
            console.print(f"{product}: cannot be asked for by its metadata", soft_wrap=True)
            continue
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(request))
        sent += 1
    console.print(f"{sent} products are asked for; their entries are written anew")


def submit(places: Places, arguments: argparse.Namespace, console: Console) -> None:
    """Have what a context affects made anew, and follow it; exit with 1 if a product failed."""
    if places.stack is None or places.mirror is None:
        raise Mistake("--stack NAME says which stack is to do it")
    with tempfile.TemporaryDirectory() as folder:
        rules = Rules.of(places.mirror, Path(folder), places.s3)
        to = rules.context_name(arguments.to)
    place = campaign_place(places.ledger.bucket, to, relabel=arguments.relabel)
    conduct = Conduct(places.stack, Campaign(places.s3, place), console, arguments.pause)
    manifest = conduct.campaign.unfinished() or _begun(places, arguments, to, conduct)
    if manifest is None:
        return
    conduct.send(manifest)
    sys.exit(conduct.finish(manifest, as_json=arguments.json))


def _begun(
    places: Places, arguments: argparse.Namespace, to: str, conduct: Conduct
) -> Manifest | None:
    """What is agreed to; None where there is nothing to do."""
    question = Question(to)
    with asked(places, question) as answer:
        show(answer, conduct.console, as_json=False)
        requests = list(answer.requests(question.wanted(relabel=arguments.relabel)))
    if not requests:
        conduct.console.print("Nothing is to be made anew.")
        return None
    if not arguments.yes and not is_agreed(f"Make {len(requests)} products anew?"):
        sys.exit("nothing was started")
    return conduct.campaign.begin(requests)
