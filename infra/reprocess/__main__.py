"""The command ``dq-init reprocess``: rebuild the products that a new context affects."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.progress import Progress

from infra import options
from infra.cli import plural
from infra.console import Console
from infra.reprocess import submit as rebuilding
from infra.reprocess.audit import audit as compare_with_products
from infra.reprocess.catalogue import Catalogue
from infra.reprocess.show import show
from infra.reprocess.submit import Archive

_stack = options.together(options.stack(required=True), options.as_json)
_to_context = options.together(
    options.context("--to", help="latest, build, or a name; default: that of the function."),
    click.option("--relabel", is_flag=True, help="Also products of which only the label changes."),
)


@click.group()
def command() -> None:
    """Find and rebuild the products that a new context affects."""


@command.command()
@_stack
def catalogue(stack: str, as_json: bool) -> None:
    """Update the catalogue with new, changed and deleted entries of the ledger."""
    archive = Archive.of_stack(stack)
    with Catalogue.open(archive.s3, archive.catalogue) as found:
        with Progress(console=Console(stderr=True)) as bar:
            task, read = bar.add_task("Reading the ledger", total=None), 0
            for read, total in found.update(archive.ledger):
                bar.update(task, completed=read, total=total)
        products, failures = found.count()
        _print_rejected(found, Console(stderr=as_json))
    if as_json:
        counts = {"products": products, "failures": failures, "read": read}
        rejected = {"rejected": dict(found.rejected)}
        print(json.dumps({"catalogue": str(archive.catalogue)} | counts | rejected))
    else:
        counted = f"{plural(products, 'product')}, {plural(failures, 'failure')}"
        print(f"{counted} in {archive.catalogue}; ledger entries read: {read}")


@command.command()
@_stack
@click.option("--rebuild", is_flag=True, help="Write missing ledger entries again.")
def audit(stack: str, as_json: bool, rebuild: bool) -> None:
    """Update the catalogue, then compare it with products and exposures in S3."""
    archive, console = Archive.of_stack(stack), Console(stderr=as_json)
    with Catalogue.open(archive.s3, archive.catalogue) as found:
        # The products are compared with the ledger of this moment.
        for _ in found.update(archive.ledger):
            pass
        _print_rejected(found, console)
        prefix = archive.stack.output_prefix
        findings = list(compare_with_products(found, archive.s3, archive.bucket, prefix))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            console.print(f"{finding.product}: {finding.what}", soft_wrap=True)
        console.print(plural(len(findings), "finding"))
    if rebuild:
        rebuilding.rewrite_entries(archive, [one for one in findings if one.is_forgotten], console)
    sys.exit(1 if findings else 0)


@command.command()
@_stack
@_to_context
@options.context("--from", "compared", help="Compare with this context, not with the masks used.")
@click.option("--by", type=click.Choice(["content", "pixels"]), default="pixels", help="Compare.")
@click.option("--out", type=options.FILE, help="Write the requests to a manifest (JSON array).")
def select(  # noqa: PLR0913, PLR0917
    stack: str,
    as_json: bool,
    to: str | None,
    relabel: bool,
    compared: str | None,
    by: str,
    out: Path | None,
) -> None:
    """Show how many products a context affects, by detector and window."""
    archive, console = Archive.of_stack(stack), Console(stderr=as_json)
    by_pixels = by == "pixels"
    with rebuilding.open_selection(archive, to, compared, by_pixels=by_pixels) as selection:
        show(selection, archive.stack.product, console, as_json=as_json)
        if out:
            prefix = archive.stack.output_prefix
            requests = list(selection.requests(prefix, to, relabel=relabel))
            out.write_text(json.dumps(requests), encoding="utf-8")
            left_out = selection.count(relabel=relabel) - len(requests)
            rebuilding.print_left_out(left_out, prefix, console)
            console.print(f"{plural(len(requests), 'request')} in {out}", soft_wrap=True)


@command.command()
@_stack
@_to_context
@options.yes
@options.pause
def submit(
    stack: str, as_json: bool, to: str | None, relabel: bool, yes: bool, pause: float
) -> None:
    """Rebuild products whose flags a context changes; with --relabel, whose mask changes.

    The exit code is 1 if a product failed, has no result or cannot be requested, or if you do not
    confirm. Products that cannot be decided are printed, and do not count.
    """
    archive = Archive.of_stack(stack)
    rebuilding.submit(archive, to, relabel=relabel, yes=yes, pause=pause, as_json=as_json)


def _print_rejected(catalogue: Catalogue, console: Console) -> None:
    """Print the ledger entries that `Catalogue.update` could not use, with the reasons."""
    for entry, reason in catalogue.rejected.items():
        text = (
            f"{entry}: {reason}; left out of the catalogue; run reprocess audit --rebuild, or "
            "delete the entry if its product does not exist"
        )
        console.print(text, soft_wrap=True, style="bold red")
