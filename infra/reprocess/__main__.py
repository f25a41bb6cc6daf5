"""The command ``dq-init reprocess``: products that a new context affects."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from infra import options
from infra.cli import plural
from infra.console import Console
from infra.reprocess import submit as rebuilding
from infra.reprocess.audit import audit as compare_with_products
from infra.reprocess.catalogue import Catalogue
from infra.reprocess.show import show, show_findings

_locations = options.together(
    options.stack(),
    click.option("--ledger", type=options.s3_uri, help="s3://.../dq_ledger."),
    click.option("--catalogue", type=options.s3_uri, help="s3://.../dq_catalogue."),
    options.mirror,
    options.as_json,
)
_to_context = options.together(
    options.context("--to", help="latest, build, or a name; default: that of the function."),
    click.option("--relabel", is_flag=True, help="Also products of which only the label changes."),
)


@click.group()
def command() -> None:
    """Find and rebuild the products that a new context affects.

    Without --stack, --ledger, --catalogue and --mirror name the locations.
    """


@command.command()
@_locations
def catalogue(as_json: bool, **given: Any) -> None:
    """Add the new entries of the ledger to the catalogue."""
    places = rebuilding.locations_of(**given)
    with Catalogue.open(places.s3, places.catalogue) as found:
        with Progress(console=Console(stderr=True)) as bar:
            task, read = bar.add_task("Reading the ledger", total=None), 0
            for read, total in found.update(places.ledger):
                bar.update(task, completed=read, total=total)
        products, failures = found.count()
        _print_rejected(found, Console(stderr=as_json))
    if as_json:
        counts = {"products": products, "failures": failures, "read": read}
        rejected = {"rejected": dict(found.rejected)}
        print(json.dumps({"catalogue": str(places.catalogue)} | counts | rejected))
    else:
        counted = f"{plural(products, 'product')}, {plural(failures, 'failure')}"
        print(f"{counted} in {places.catalogue}; ledger entries read: {read}")


@command.command()
@_locations
@click.option("--rebuild", is_flag=True, help="Write missing ledger entries again.")
def audit(as_json: bool, rebuild: bool, **given: Any) -> None:
    """Compare the ledger with products and exposures in S3; the exit code is 1 if they differ."""
    places, console = rebuilding.locations_of(**given), Console(stderr=as_json)
    with Catalogue.open(places.s3, places.catalogue) as found:
        # The products are compared with the ledger of this moment.
        for _ in found.update(places.ledger):
            pass
        _print_rejected(found, console)
        findings = list(
            compare_with_products(found, places.s3, places.ledger.bucket, places.prefix)
        )
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        show_findings(findings, console)
    if rebuild:
        rebuilding.rebuild(places, [one for one in findings if one.is_forgotten], console)
    sys.exit(1 if findings else 0)


def _manifest(text: str) -> Path:
    if not text.endswith((".json", ".jsonl")):
        raise click.BadParameter(f"{text}: expected a name that ends in .jsonl or .json")
    return Path(text)


@command.command()
@_locations
@_to_context
@options.context("--from", "compared", help="Compare with this context, not with the masks used.")
@click.option("--by", type=click.Choice(["content", "pixels"]), default="pixels", help="Compare.")
@click.option(
    "--out", type=_manifest, metavar="FILE", help="Write the requests: x.jsonl or x.json."
)
def select(
    as_json: bool,
    to: str | None,
    relabel: bool,
    compared: str | None,
    by: str,
    out: Path | None,
    **given: Any,
) -> None:
    """Show the products that a context affects."""
    places, console = rebuilding.locations_of(**given), Console(stderr=as_json)
    context, by_pixels = to or places.context, by == "pixels"
    with rebuilding.open_selection(places, context, compared, by_pixels=by_pixels) as selection:
        show(selection, console, as_json=as_json)
        if out:
            count = rebuilding.write_manifest(out, selection.requests(to, relabel=relabel))
            console.print(f"{plural(count, 'request')} in {out}", soft_wrap=True)


@command.command()
@_locations
@_to_context
@options.yes
@options.pause
def submit(
    as_json: bool, to: str | None, relabel: bool, yes: bool, pause: float, **given: Any
) -> None:
    """Rebuild the products that a context affects; the exit code is 1 if one fails."""
    places = rebuilding.locations_of(**given)
    rebuilding.submit(places, to, relabel=relabel, yes=yes, pause=pause, as_json=as_json)


def _print_rejected(catalogue: Catalogue, console: Console) -> None:
    for entry, reason in catalogue.rejected.items():
        console.print(f"{entry}: {reason}; skipped", soft_wrap=True, style="bold red")
