"""An archive's products, and which of them a new context would make otherwise.

``python -m infra reprocess catalogue --stack NAME`` brings the catalogue up to date.
``python -m infra reprocess audit --stack NAME`` holds it against the products that there are.
``python -m infra reprocess select --stack NAME --to latest`` says what would be made otherwise.
``python -m infra reprocess submit --stack NAME --to latest`` has it made anew, and follows that.

``--ledger`` and ``--catalogue`` name the prefixes where no stack is at hand (s3://.../dq_ledger).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boto3
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from handler.ledger import Ledger
from handler.references.rules import Rules
from handler.s3.locations import S3Location
from infra.campaign.campaign import Campaign, Manifest
from infra.campaign.conduct import Conduct
from infra.cost.estimate import exposure_usd
from infra.mirror.bucket import Mirror
from infra.reprocessing.affected import Affected, Question, affected
from infra.reprocessing.audit import Finding, audit
from infra.reprocessing.catalogue import Catalogue, database
from infra.reprocessing.manifests import campaign_place, write_manifest
from infra.reprocessing.rebuild import request_for
from infra.reprocessing.selection import Change, Group, Tally
from infra.stacks import Stack, find_stack
from infra.terminal import Mistake, is_agreed

__all__ = ["main"]

console = Console()


@dataclass(frozen=True)
class Places:
    """Where everything lies."""

    s3: Any
    stack: Stack | None
    ledger: S3Location
    catalogue: S3Location
    mirror: S3Location | None


def main(words: list[str]) -> None:
    """Run one of the commands."""
    arguments = _parser().parse_args(words)
    places = _places(arguments)
    commands = {
        "catalogue": _catalogue,
        "audit": _audit,
        "select": _select,
        "submit": _submit,
    }
    commands[arguments.command](places, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra reprocess",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "catalogue": "take in what is new in the ledger",
        "audit": "compare the catalogue with the products that there are",
        "select": "say which products a context would make otherwise",
        "submit": "have them made anew",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--stack", help="name of the deployed stack")
        command.add_argument("--ledger", type=S3Location.parse_prefix, help="s3://.../dq_ledger")
        command.add_argument(
            "--catalogue", type=S3Location.parse_prefix, help="s3://.../dq_catalogue"
        )
        command.add_argument("--mirror", type=S3Location.parse_prefix, help="s3://bucket[/prefix]")
        command.add_argument("--json", action="store_true", help="for machines")
        if name in {"select", "submit"}:
            command.add_argument("--to", default="latest", help="latest, build, or jwst_1321.pmap")
            command.add_argument(
                "--relabel", action="store_true", help="also where no pixel changes"
            )
    commands.choices["select"].add_argument(
        "--from", dest="compared", help="another context, in place of the masks that were used"
    )
    commands.choices["select"].add_argument(
        "--by", choices=["content", "pixels"], default="pixels", help="how far to compare"
    )
    commands.choices["select"].add_argument(
        "--out", type=Path, help="write the requests: x.jsonl, or x.json or x.csv for BACKFILL"
    )
    commands.choices["audit"].add_argument(
        "--rebuild", action="store_true", help="have what the ledger has forgotten written anew"
    )
    commands.choices["submit"].add_argument("--yes", action="store_true", help="do not ask")
    commands.choices["submit"].add_argument("--pause", type=float, default=5.0, help="seconds")
    return parser


def _places(arguments: argparse.Namespace) -> Places:
    s3, stack = boto3.client("s3"), find_stack(arguments.stack) if arguments.stack else None
    ledger, catalogue, mirror = arguments.ledger, arguments.catalogue, arguments.mirror
    if stack is not None:
        bucket = stack.output("ProductBucket")
        ledger = ledger or S3Location(bucket, "dq_ledger")
        named = stack.parameters
        mirror = mirror or S3Location(named["MirrorBucket"], named.get("MirrorPrefix", ""))
    if ledger is None:
        raise Mistake("--stack NAME says where the ledger is; or give --ledger s3://.../dq_ledger")
    return Places(s3, stack, ledger, catalogue or S3Location(ledger.bucket, "dq_catalogue"), mirror)


def _catalogue(places: Places, arguments: argparse.Namespace) -> None:
    with Catalogue.open(places.s3, places.catalogue) as catalogue:
        with Progress(console=Console(stderr=True)) as bar:
            task, read = bar.add_task("Reading the ledger", total=None), 0
            for read, total in catalogue.update(Ledger(places.ledger)):
                bar.update(task, completed=read, total=total)
        with database(catalogue.path.parent) as connection:
            (rows,) = connection.execute(
                f"SELECT count(*) FROM read_parquet('{catalogue.path}')"
            ).fetchone() or (0,)
    told = {"catalogue": str(places.catalogue), "products": rows, "read": read}
    print(
        json.dumps(told)
        if arguments.json
        else f"{rows} products in {places.catalogue}, {read} read"
    )


def _audit(places: Places, arguments: argparse.Namespace) -> None:
    with Catalogue.open(places.s3, places.catalogue) as catalogue:
        findings = list(audit(catalogue, places.s3, places.ledger.bucket, _prefix(places)))
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        _show_findings(findings)
    if arguments.rebuild:
        _rebuild(places, [finding for finding in findings if finding.is_forgotten])
    sys.exit(1 if findings else 0)


def _rebuild(places: Places, forgotten: list[Finding]) -> None:
    """Ask the function for the products that the ledger has forgotten."""
    if places.stack is None:
        raise Mistake("--stack NAME says which stack is to do it")
    sqs, queue = boto3.client("sqs"), places.stack.output("BackfillQueue")
    sent = 0
    for finding in forgotten:
        product = S3Location.parse(finding.product)
        request = request_for(product, _prefix(places), places.s3)
        if request is None:
            console.print(f"{product}: cannot be asked for by its metadata", soft_wrap=True)
            continue
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(request))
        sent += 1
    console.print(f"{sent} products are asked for; their entries are written anew")


def _prefix(places: Places) -> str:
    return places.stack.parameters.get("OutputPrefix", "dq_init/") if places.stack else "dq_init/"


def _show_findings(findings: list[Finding]) -> None:
    for finding in findings:
        console.print(f"{finding.product}: {finding.what}", soft_wrap=True)
    console.print(f"{len(findings)} findings")


@contextmanager
def _asked(places: Places, question: Question) -> Iterator[Affected]:
    """What a context affects, with a bar for whoever waits."""
    if places.mirror is None:
        raise Mistake("--stack NAME says where the mirror is; or give --mirror s3://bucket")

    def watched(groups: list[Group]) -> Iterator[Group]:
        with Progress(console=Console(stderr=True)) as bar:
            yield from bar.track(groups, description="Comparing")

    with (
        Catalogue.open(places.s3, places.catalogue) as catalogue,
        affected(catalogue, Mirror(places.s3, places.mirror), question, watched) as answer,
    ):
        yield answer


def _select(places: Places, arguments: argparse.Namespace) -> None:
    question = Question(arguments.to, arguments.compared, arguments.by == "pixels")
    with _asked(places, question) as answer:
        _show(answer, as_json=arguments.json)
        if arguments.out:
            requests = answer.requests(question.wanted(relabel=arguments.relabel))
            count = write_manifest(arguments.out, requests)
            console.print(f"{count} requests in {arguments.out}", soft_wrap=True)


def _submit(places: Places, arguments: argparse.Namespace) -> None:
    if places.stack is None or places.mirror is None:
        raise Mistake("--stack NAME says which stack is to do it")
    with tempfile.TemporaryDirectory() as folder:
        rules = Rules.of(places.mirror, Path(folder), places.s3)
        to = rules.context_name(arguments.to)
    place = campaign_place(places.ledger.bucket, to, relabel=arguments.relabel)
    conduct = Conduct(places.stack, Campaign(places.s3, place), console, arguments.pause)
    manifest = conduct.campaign.unfinished() or _begun(places, arguments, to, conduct.campaign)
    if manifest is None:
        return
    conduct.send(manifest)
    ended = conduct.follow(manifest)
    if arguments.json:
        print(json.dumps(asdict(ended), indent=2))
    else:
        conduct.show(ended, manifest.began)
    sys.exit(1 if ended.failed else 0)


def _begun(
    places: Places, arguments: argparse.Namespace, to: str, campaign: Campaign
) -> Manifest | None:
    """What is agreed to; None where there is nothing to do."""
    question = Question(to)
    with _asked(places, question) as answer:
        _show(answer, as_json=False)
        requests = list(answer.requests(question.wanted(relabel=arguments.relabel)))
    if not requests:
        console.print("Nothing is to be made anew.")
        return None
    if not arguments.yes and not is_agreed(f"Make {len(requests)} products anew?"):
        sys.exit("nothing was started")
    return campaign.begin(requests)


def _show(answer: Affected, *, as_json: bool) -> None:
    tallies = answer.tallies()
    if as_json:
        rows = [{"of": key, **tally.to_plain()} for key, tally in tallies.items()]
        print(json.dumps({"to": answer.to, "windows": rows}))
        return
    _show_tallies(answer.to, tallies)
    for problem, number in answer.problems().items():
        console.print(f"{number} cannot be decided: {problem}", soft_wrap=True, style="bold red")


def _show_tallies(to: str, tallies: dict[tuple[str, str, str], Tally]) -> None:
    title = f"Products that {to} would make otherwise"
    table = Table(box=SIMPLE, title=title, pad_edge=False, collapse_padding=True)
    table.add_column("Detector,\nwindow", no_wrap=True)
    for heading in ("Expo-\nsures", "by\nname", "by\ncontent", "by\npixels"):
        table.add_column(heading, justify="right")
    table.add_column("Flags that its\npixels gain and lose", overflow="fold")
    total, usd = Tally(), 0.0
    for (instrument, detector, window), tally in tallies.items():
        total.merge(tally)
        counts = _counts(tally)
        usd += exposure_usd(tally.size // max(tally.exposures, 1)) * counts[2]
        if sum(counts):
            cells = (str(n) for n in (tally.exposures, *counts))
            table.add_row(f"{instrument} {detector}\n{window}", *cells, _flags(tally))
    table.add_section()
    table.add_row("all", *(str(n) for n in (total.exposures, *_counts(total))), "")
    console.print(table)
    pixels = _counts(total)[2]
    console.print(
        f"{pixels} products have other pixels; to make them anew costs some {usd:.2f} USD."
    )
    left = total.by_change[Change.EXPRESSLY.value]
    if left:
        console.print(f"{left} whose mask or user DQ was named expressly are left alone.")


def _counts(tally: Tally) -> tuple[int, int, int]:
    """Products of another name, another content, other pixels: each among those before it."""
    pixels = tally.by_change[Change.PIXELS.value]
    content = tally.by_change[Change.CONTENT.value] + pixels
    return tally.by_change[Change.NAME.value] + content, content, pixels


def _flags(tally: Tally) -> str:
    gained = [f"+{n} {name}" for name, n in sorted(tally.gained.items())]
    lost = [f"-{n} {name}" for name, n in sorted(tally.lost.items())]
    return ", ".join(gained + lost)
