"""An archive's products, and which of them a new context would make otherwise.

``python -m infra reprocess catalogue --stack NAME`` brings the catalogue up to date.
``python -m infra reprocess audit --stack NAME`` holds it against the products that there are.
``python -m infra reprocess select --stack NAME`` says what would be made otherwise.
``python -m infra reprocess submit --stack NAME`` rebuilds it, and follows that.

``--ledger`` and ``--catalogue`` name the prefixes where no stack is at hand (s3://.../dq_ledger).
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.progress import Progress

from handler.s3.objects import S3Location
from infra.cli import parser_of, plural
from infra.console import Console
from infra.reprocess.audit import audit
from infra.reprocess.catalogue import Catalogue
from infra.reprocess.show import show, show_findings
from infra.reprocess.submit import (
    Locations,
    locations_of,
    open_selection,
    rebuild,
    submit,
    write_manifest,
)

__all__ = ["main"]


def main(words: list[str]) -> None:
    """Run one of the commands."""
    arguments = _parser().parse_args(words)
    places = locations_of(arguments)
    console = Console(stderr=arguments.json)
    commands = {
        "catalogue": _catalogue,
        "audit": _audit,
        "select": _select,
        "submit": submit,
    }
    commands[arguments.command](places, arguments, console)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("reprocess", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "catalogue": "take in what is new in the ledger",
        "audit": "compare the catalogue with the products that there are",
        "select": "say which products a context would make otherwise",
        "submit": "rebuild them",
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
            command.add_argument(
                "--to", help="latest, build, or jwst_1321.pmap (the one that the function uses)"
            )
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
        "--out",
        type=_manifest,
        help="write the requests: x.jsonl, or x.json for the state machine Backfill",
    )
    commands.choices["audit"].add_argument(
        "--rebuild", action="store_true", help="write ledger entries that are missing again"
    )
    commands.choices["submit"].add_argument("--yes", action="store_true", help="do not ask")
    commands.choices["submit"].add_argument("--pause", type=float, default=5.0, help="seconds")
    return parser


def _manifest(text: str) -> Path:
    """Read the name of a file of requests."""
    path = Path(text)
    if path.suffix not in {".json", ".jsonl"}:
        raise argparse.ArgumentTypeError(f"{text}: expected a name that ends in .jsonl or .json")
    return path


def _print_rejected(catalogue: Catalogue, console: Console) -> None:
    for entry, reason in catalogue.rejected.items():
        console.print(f"{entry}: {reason}; skipped", soft_wrap=True, style="bold red", markup=False)


def _catalogue(places: Locations, arguments: argparse.Namespace, console: Console) -> None:
    with Catalogue.open(places.s3, places.catalogue) as catalogue:
        with Progress(console=Console(stderr=True)) as bar:
            task, read = bar.add_task("Reading the ledger", total=None), 0
            for read, total in catalogue.update(places.ledger):
                bar.update(task, completed=read, total=total)
        products, failures = catalogue.count()
        _print_rejected(catalogue, console)
    told = {
        "catalogue": str(places.catalogue),
        "products": products,
        "failures": failures,
        "read": read,
        "rejected": dict(catalogue.rejected),
    }
    print(
        json.dumps(told)
        if arguments.json
        else f"{plural(products, 'product')}, {plural(failures, 'failure')} in "
        f"{places.catalogue}; ledger entries read: {read}"
    )


def _audit(places: Locations, arguments: argparse.Namespace, console: Console) -> None:
    with Catalogue.open(places.s3, places.catalogue) as catalogue:
        # The ledger as it is now, not as the last `catalogue` found it.
        for _ in catalogue.update(places.ledger):
            pass
        _print_rejected(catalogue, console)
        findings = list(audit(catalogue, places.s3, places.ledger.bucket, places.prefix))
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        show_findings(findings, console)
    if arguments.rebuild:
        rebuild(places, [finding for finding in findings if finding.is_forgotten], console)
    sys.exit(1 if findings else 0)


def _select(places: Locations, arguments: argparse.Namespace, console: Console) -> None:
    to = arguments.to or places.context
    by_pixels = arguments.by == "pixels"
    with open_selection(places, to, arguments.compared, by_pixels=by_pixels) as selection:
        show(selection, console, as_json=arguments.json)
        if arguments.out:
            requests = selection.requests(arguments.to, relabel=arguments.relabel)
            count = write_manifest(arguments.out, requests)
            console.print(f"{plural(count, 'request')} in {arguments.out}", soft_wrap=True)
