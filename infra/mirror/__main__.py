"""The command ``dq-init mirror``: fill, check and prune the CRDS mirror."""

import sys
import tempfile
from pathlib import Path

import boto3
import click
from rich.box import SIMPLE
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import infra.mirror.sync
import infra.mirror.verify
from core import EQUALS_JWST
from handler.crds.rules import BUILD, LATEST, is_applicable
from handler.s3.objects import S3Location
from infra import options
from infra.cli import confirm, plural
from infra.console import Console
from infra.mirror.bucket import Mirror, check_contexts, contexts_of
from infra.mirror.changes import changes, delete_unneeded, unneeded_keys
from infra.mirror.sources import Cache, Server

_SERVER = "https://jwst-crds.stsci.edu"
_INSTRUMENTS = ("FGS", "MIRI", "NIRCAM", "NIRISS", "NIRSPEC", "ALL")
_MB = 1_000_000

_location = click.argument("location", metavar="S3_URI", type=options.s3_uri)


def _mirror(location: S3Location) -> Mirror:
    return Mirror(boto3.client("s3"), location)


def _build(text: str) -> str:
    """Return the context of ``VERSION=CONTEXT``; VERSION must be `EQUALS_JWST`, or 3.0 or 3."""
    version, equals, context = text.partition("=")
    if not equals or not (version == EQUALS_JWST or EQUALS_JWST.startswith(f"{version}.")):
        raise click.BadParameter(f"{text!r}, expected {EQUALS_JWST}=jwst_N.pmap")
    return context


@click.group()
def command() -> None:
    """Fill, check and prune the CRDS mirror at S3_URI (s3://bucket[/prefix])."""


@command.command()
@_location
@options.context("--context", default="latest", help="latest, build, or a name: jwst_1321.pmap.")
@click.option(
    "--instrument",
    "instruments",
    multiple=True,
    type=click.Choice(_INSTRUMENTS, case_sensitive=False),
    help="Restrict the mirror to these instruments (repeat the option); ALL: to none.",
)
@click.option(
    "--build",
    type=_build,
    metavar=f"{EQUALS_JWST}=jwst_N.pmap",
    help="Build context for --context build with --from: a cache does not record it.",
)
@click.option("--from", "cache", type=options.FOLDER, help="Copy from a local CRDS cache.")
@click.option("--server", show_default=_SERVER, metavar="URL", help="CRDS server to copy from.")
@options.dry_run
def sync(  # noqa: PLR0913, PLR0917
    location: S3Location,
    context: str,
    instruments: tuple[str, ...],
    build: str | None,
    cache: Path | None,
    server: str | None,
    dry_run: bool,
) -> None:
    """Copy missing and wrong files of a context into the mirror; update its configuration.

    The source's operational context becomes that of the mirror, if the mirror holds it and the
    operator chose no other one with mirror use. Otherwise the operational context stays; in a new
    mirror, it is the copied context.
    """
    if build and not (cache and context == BUILD):
        raise click.UsageError("--build needs --context build and --from")
    if cache and server:
        raise click.UsageError("--from and --server exclude one another")
    if "ALL" in instruments and len(set(instruments)) > 1:
        raise click.UsageError("--instrument ALL excludes other instruments")
    mirror, console = _mirror(location), Console()
    restriction = frozenset(instruments) - {"ALL"} if instruments else None
    with tempfile.TemporaryDirectory() as folder:
        source = Cache(cache, build or "") if cache else Server(server or _SERVER, Path(folder))
        plan = infra.mirror.sync.plan_sync(source, mirror, context, restriction)
        to_copy = plan.to_copy
        size = sum(item.digest.size for item in to_copy)
        console.print(
            f"{plan.context.name}: {len(plan.items)} files; to copy: {len(to_copy)} "
            f"({sum(item.state == 'wrong' for item in to_copy)} wrong in the mirror), "
            f"{size / _MB:.1f} MB"
        )
        if dry_run:
            for item in to_copy:
                console.print(f"  {item.state:8} {item.digest.size / _MB:8.1f} MB  {item.key}")
            return
        if to_copy:
            text = TextColumn("{task.description}")
            columns = (text, BarColumn(), DownloadColumn(), TimeRemainingColumn())
            with Progress(*columns, console=console) as progress:
                task = progress.add_task("Copying", total=size)
                for item in infra.mirror.sync.copy(plan, source, mirror):
                    progress.update(task, advance=item.digest.size, description=item.name)
        operational = infra.mirror.sync.write_config(plan, source, mirror)
    console.print(f"{plan.context.name} is in {location}; operational there: {operational}")
    if plan.restricted_to:
        names = ", ".join(sorted(plan.restricted_to))
        console.print(f"The mirror is restricted to {names}; exposures of others fail.")
    for name in infra.mirror.sync.incomplete_contexts(mirror) if instruments else ():
        console.print(
            f"{name} lacks files of the added instruments; run dq-init mirror sync {location} "
            f"--context {name}",
            soft_wrap=True,
        )


@command.command()
@_location
def verify(location: S3Location) -> None:
    """Check all contexts and masks; the exit code is 1 if one is missing or unusable.

    A context whose sync was interrupted or still runs is only named. Bad files are not checked.
    """
    console = Console()
    with console.status("Reading the mirror") as status:
        report = infra.mirror.verify.verify(
            _mirror(location), lambda name: status.update(f"Reading {name}")
        )
    headings = ("Instrument", "Detector", "Rules", "Masks", "MB", "Whole")
    title = f"{location}, operational: {report.operational}"
    table = Table(*headings, "Flags that jwst ignores", title=title, header_style="bold")
    for instrument, detector, rules in report.rows():
        names = {rule.mask for rule in rules if is_applicable(rule.mask)}
        whole = [report.masks[name] for name in names & report.masks.keys()]
        size = f"{sum(mask.size for mask in whole) / _MB:.1f}"
        ignored = ", ".join(sorted({flag for mask in whole for flag in mask.unknown}))
        counts = (str(len(rules)), str(len(names)), size, str(len(whole)))
        table.add_row(instrument, detector, *counts, ignored)
    console.print(table)
    for name, mask in report.masks.items():
        if mask.unnamed:
            console.print(
                f"{name}: {mask.unnamed:,} of {mask.flagged:,} flagged pixels carry bits that its "
                "DQ_DEF does not name; the step drops them, as jwst does",
                soft_wrap=True,
            )
    for name in report.unused:
        console.print(
            f"{name}: incomplete and unused, because a sync was interrupted or still runs; run "
            f"dq-init mirror sync {location} --context {name}, or dq-init mirror prune {location}",
            soft_wrap=True,
        )
    for fault in report.faults:
        console.print(f"FAULT {fault}", soft_wrap=True)
    if report.faults:
        sys.exit(1)
    number = plural(len(report.contexts), "context")
    console.print(f"Complete: {number}, {plural(len(report.masks), 'mask')}.")


@command.command()
@_location
def contexts(location: S3Location) -> None:
    """List the mirror's contexts and their roles, except those whose sync is unfinished."""
    mirror, console = _mirror(location), Console()
    config = mirror.config()
    names = contexts_of(config) if config else []
    if not names:
        text = f"{location}: has no contexts; run dq-init mirror sync {location}"
        console.print(text, soft_wrap=True)
    for name in names:
        roles = []
        if config and name == config.operational_context:
            roles = ["operational, held by hand" if config.held_by_hand else "operational"]
        if config:
            roles += [f"build of jwst {v}" for v, build in config.builds.items() if build == name]
        console.print("  ".join([name, *roles]))
    if config and config.instruments:
        console.print(f"restricted to {', '.join(sorted(config.instruments))}")


@command.command()
@_location
@click.argument("context")
def use(location: S3Location, context: str) -> None:
    """Make CONTEXT operational."""
    mirror, console = _mirror(location), Console()
    if context != LATEST:
        (context,) = check_contexts(mirror, context)
    before, after = infra.mirror.sync.use(context, mirror)
    name = after.operational_context
    if name == before.operational_context:
        state = "held by hand now" if after.held_by_hand else "syncs may replace it now"
        console.print(f"{location}: {name} was operational already; {state}", soft_wrap=True)
        return
    console.print(
        f"{location}: operational is {name}, was {before.operational_context}; functions with "
        "CRDS_CONTEXT=latest follow within three minutes",
        soft_wrap=True,
    )


@command.command()
@_location
@click.argument("before")
@click.argument("after")
@click.option("--look", "folder", type=options.FOLDER, help="Write pages of the changed masks.")
def diff(location: S3Location, before: str, after: str, folder: Path | None) -> None:
    """Show which masks change from context BEFORE to context AFTER."""
    mirror, console = _mirror(location), Console()
    before, after = check_contexts(mirror, before, after)
    found = list(changes(mirror.context(before), mirror.context(after)))
    table = Table(title=f"{before} -> {after}", box=SIMPLE, collapse_padding=True)
    for heading in ("For", "Observed from", "until", "Before", "After"):
        table.add_column(heading, overflow="fold")
    for change in found:
        matched = " ".join([change.instrument, *(value for _, value in change.parameters)])
        dates = (date.removesuffix(" 00:00:00") for date in (change.start, change.stop))
        table.add_row(matched, *dates, _short(change.before), _short(change.after))
    console.print(table if found else "No mask changes.")
    if folder and found:
        from infra.view.pages import write_changes  # noqa: PLC0415  # imports matplotlib

        page = write_changes(mirror, found, f"{before} to {after}", folder)
        console.print(f"Pages: {page}", soft_wrap=True)


def _short(mask: str) -> str:
    """Shorten ``jwst_nircam_mask_0033.fits`` to ``mask_0033``: rows name the instrument."""
    return f"mask_{mask.rpartition('_')[2].removesuffix('.fits')}" if "_mask_" in mask else mask


@command.command()
@_location
@options.context("--keep", multiple=True, help="Keep this context; repeatable.")
@click.option("--forget-previous", is_flag=True, help="Delete the previous operational context.")
@options.yes
@options.dry_run
def prune(
    location: S3Location, keep: tuple[str, ...], forget_previous: bool, yes: bool, dry_run: bool
) -> None:
    """Delete the files that no kept context needs.

    The operational context, build contexts and those of --keep are kept. Without --forget-previous,
    the previously operational context and the one that the last "CRDS Context Changed" event
    announced are kept, too.
    """
    mirror, console = _mirror(location), Console()
    config = mirror.operational()
    names = {config.operational_context, *config.builds.values(), *check_contexts(mirror, *keep)}
    if not forget_previous:
        names |= {config.previous_context, config.announced_context} & set(contexts_of(config))
    kept = [mirror.context(name) for name in sorted(names)]
    keys = unneeded_keys(mirror, kept)
    for key in keys:
        console.print(f"to delete: {key}", soft_wrap=True)
    number = plural(len(keys), "file")
    console.print(f"{number} to delete; kept: {', '.join(sorted(names))}", soft_wrap=True)
    interrupted = config.prunes % 2 == 1
    if interrupted:
        console.print("Another prune is running or was interrupted; this one completes it.")
    if dry_run or not (keys or interrupted):
        return
    if keys and not yes and not confirm(f"Delete {number} permanently?"):
        sys.exit("nothing was deleted")
    delete_unneeded(mirror, kept, keys, config)
    console.print(f"deleted {number}")
