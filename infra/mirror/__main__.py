"""The CRDS mirror: ``python -m infra mirror sync|use|verify|contexts|diff|prune s3://bucket/prefix``.

The bucket is reached as boto3 reaches it (AWS_PROFILE, AWS_ENDPOINT_URL and so on).
"""

import argparse
import sys
import tempfile
from pathlib import Path

import boto3
from rich.box import SIMPLE
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from core import EQUALS_JWST
from handler.s3.objects import S3Location
from infra.cli import UserError, confirm, parser_of, plural
from infra.console import Console
from infra.mirror.bucket import Mirror, check_contexts
from infra.mirror.changes import changes, keep_only, superfluous
from infra.mirror.sources import Cache, Server, Source
from infra.mirror.sync import Plan, copy, make_plan, publish, use
from infra.mirror.verify import Report, verify
from infra.view.pages import write_changes

SERVER = "https://jwst-crds.stsci.edu"
MB = 1_000_000
ALL = "ALL"
_INSTRUMENTS = ("FGS", "MIRI", "NIRCAM", "NIRISS", "NIRSPEC")
console = Console()


def main(words: list[str]) -> None:
    """Run one of the commands; exit with 1 if the mirror has a fault."""
    arguments = _parser().parse_args(words)
    mirror = Mirror(boto3.client("s3"), arguments.mirror)
    commands = {
        "sync": _sync,
        "verify": _verify,
        "contexts": _contexts,
        "use": _use,
        "diff": _diff,
        "prune": _prune,
    }
    commands[arguments.command](mirror, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("mirror", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sync = _command(commands, "sync", "copy a context and its masks into the mirror")
    sync.add_argument(
        "--context", default="latest", help="latest, build, or such as jwst_1321.pmap"
    )
    sync.add_argument(
        "--instrument",
        action="append",
        type=str.upper,
        choices=[*_INSTRUMENTS, ALL],
        help="restrict the mirror (give it once for each); ALL lifts that; else it stays as it is",
    )
    sync.add_argument(
        "--build",
        type=_build,
        metavar=f"{EQUALS_JWST}=jwst_N.pmap",
        help="for --context build from a cache, which does not know it",
    )
    sync.add_argument("--from", dest="cache", type=Path, help="a CRDS cache, instead of a server")
    sync.add_argument("--server", default=SERVER, help=f"the CRDS server ({SERVER})")
    sync.add_argument("--dry-run", action="store_true", help="say what would be copied")
    _command(commands, "verify", "read the mirror as the function will")
    _command(commands, "contexts", "list what the mirror holds")
    use = _command(commands, "use", "make a context operational, until another is named")
    use.add_argument("context", help="such as jwst_1320.pmap; latest: what the last sync found")
    diff = _command(commands, "diff", "show which masks change between two contexts")
    diff.add_argument("before")
    diff.add_argument("after")
    diff.add_argument(
        "--look", type=Path, metavar="FOLDER", help="write a page for each mask that changes"
    )
    prune = _command(commands, "prune", "delete what no kept context needs")
    prune.add_argument("--keep", nargs="*", default=[], help="contexts beside the operational one")
    prune.add_argument(
        "--forget-previous", action="store_true", help="what was operational before is not kept"
    )
    prune.add_argument("--yes", action="store_true", help="do not ask")
    prune.add_argument("--dry-run", action="store_true", help="say what would be deleted")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text)
    command.add_argument("mirror", type=_place, help="s3://bucket[/prefix]")
    return command


def _place(text: str) -> S3Location:
    try:
        return S3Location.parse_prefix(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"expected s3://bucket[/prefix], not {text!r}") from exc


def _sync(mirror: Mirror, arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source: Source
        if arguments.cache:
            if not arguments.cache.is_dir():
                raise UserError(f"--from {arguments.cache}: no such folder, expected a CRDS cache")
            source = Cache(arguments.cache, arguments.build or "")
        else:
            source = Server(arguments.server, Path(folder))
        plan = make_plan(source, mirror, arguments.context, _restriction(arguments.instrument))
        wrong = sum(item.state == "wrong" for item in plan.to_copy)
        size = sum(item.digest.size for item in plan.to_copy)
        console.print(
            f"{plan.context.name}: {len(plan.items)} files; to copy: {len(plan.to_copy)} "
            f"({wrong} of them wrong in the mirror), {size / MB:.1f} MB"
        )
        if arguments.dry_run:
            for item in plan.to_copy:
                console.print(f"  {item.state:8} {item.digest.size / MB:8.1f} MB  {item.key}")
            return
        if plan.to_copy:
            _copy(plan, source, mirror)
        operational = publish(plan, source, mirror)
    console.print(f"{plan.context.name} is in {mirror.location}; operational there: {operational}")
    if plan.restricted_to:
        names = ", ".join(sorted(plan.restricted_to))
        console.print(f"The mirror is restricted to {names}; exposures of others fail there.")


def _restriction(instruments: list[str] | None) -> frozenset[str] | None:
    return None if instruments is None else frozenset(instruments) - {ALL}


def _build(text: str) -> str:
    """The context of ``--build VERSION=CONTEXT``; its version must be the one that matters."""
    version, equals, context = text.partition("=")
    if not equals or not (version == EQUALS_JWST or EQUALS_JWST.startswith(f"{version}.")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected {EQUALS_JWST}=jwst_N.pmap")
    return context


def _copy(plan: Plan, source: Source, mirror: Mirror) -> None:
    size = sum(item.digest.size for item in plan.to_copy)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Copying", total=size)
        for item in copy(plan, source, mirror):
            progress.update(task, advance=item.digest.size, description=item.name)


def _verify(mirror: Mirror, arguments: argparse.Namespace) -> None:  # noqa: ARG001
    report = Report()
    with console.status("Reading the mirror") as status:
        for name, so_far in verify(mirror):
            report = so_far
            status.update(f"Reading {name}")
    table = Table(
        title=f"{mirror.location}, operational: {report.operational}", header_style="bold"
    )
    for heading in (
        "Instrument",
        "Detector",
        "Rules",
        "Masks",
        "MB",
        "Whole",
        "Flags that jwst ignores",
    ):
        table.add_column(heading)
    for instrument, detector, rules in report.rows():
        masks = {rule.mask for rule in rules if rule.mask.upper() != "N/A"}
        whole = {name: report.masks[name] for name in masks & report.masks.keys()}
        table.add_row(
            instrument,
            detector,
            str(len(rules)),
            str(len(masks)),
            f"{sum(mask.size for mask in whole.values()) / MB:.1f}",
            str(len(whole)),
            ", ".join(sorted({name for mask in whole.values() for name in mask.unknown})),
        )
    console.print(table)
    for name, mask in report.masks.items():
        if mask.unnamed:
            console.print(
                f"{name}: {mask.unnamed:,} of {mask.flagged:,} flagged pixels carry bits that its "
                "DQ_DEF does not name; the step drops them, as jwst does",
                highlight=False,
                soft_wrap=True,
            )
    for fault in report.faults:
        console.print(f"FAULT {fault}", highlight=False, markup=False, soft_wrap=True)
    if report.faults:
        sys.exit(1)
    console.print(
        f"Complete: {plural(len(report.contexts), 'context')}, {plural(len(report.masks), 'mask')}."
    )


def _contexts(mirror: Mirror, arguments: argparse.Namespace) -> None:  # noqa: ARG001
    config = mirror.config()
    operational = config.operational_context if config else ""
    builds = config.builds if config else {}
    names = mirror.contexts()
    if not names:
        console.print(f"{mirror.location}: no contexts; run mirror sync", soft_wrap=True)
    for name in names:
        told = []
        if config and name == operational:
            told = ["operational, held by hand" if config.held_by_hand else "operational"]
        told += [f"build of jwst {version}" for version, build in builds.items() if build == name]
        console.print("  ".join([name, *told]))
    if config and config.instruments:
        console.print(f"restricted to {', '.join(sorted(config.instruments))}")


def _use(mirror: Mirror, arguments: argparse.Namespace) -> None:
    check_contexts(mirror, arguments.context)
    before, after = use(arguments.context, mirror)
    name = after.operational_context
    if name == before.operational_context:
        held = "held by hand now" if after.held_by_hand else "syncs may replace it now"
        console.print(f"{mirror.location}: {name} was operational already; {held}", soft_wrap=True)
        return
    console.print(
        f"{mirror.location}: operational is {name}, was {before.operational_context}; functions "
        "with CRDS_CONTEXT=latest follow within three minutes",
        soft_wrap=True,
    )


def _diff(mirror: Mirror, arguments: argparse.Namespace) -> None:
    check_contexts(mirror, arguments.before, arguments.after)
    before, after = (mirror.context(name) for name in (arguments.before, arguments.after))
    table = Table(title=f"{before.name} -> {after.name}", box=SIMPLE, collapse_padding=True)
    for heading in ("For", "Observed from", "until", "Before", "After"):
        table.add_column(heading, overflow="fold")
    found = list(changes(before, after))
    for change in found:
        matched = " ".join([change.instrument, *(value for _, value in change.parameters)])
        dates = (date.removesuffix(" 00:00:00") for date in (change.start, change.stop))
        table.add_row(matched, *dates, _short(change.before), _short(change.after))
    console.print(table if table.row_count else "No mask changes.")
    if arguments.look and found:
        title = f"{before.name} to {after.name}"
        page = write_changes(mirror, found, title, arguments.look)
        console.print(f"Look at them: {page}", soft_wrap=True)


def _short(mask: str) -> str:
    """A mask's name without what its row says already."""
    return f"mask_{mask.rpartition('_')[2].removesuffix('.fits')}" if "_mask_" in mask else mask


def _prune(mirror: Mirror, arguments: argparse.Namespace) -> None:
    check_contexts(mirror, *arguments.keep)
    config = mirror.operational()
    names = {config.operational_context, *config.builds.values(), *arguments.keep}
    if not arguments.forget_previous:
        earlier = {config.previous_context, config.announced_context}
        names |= earlier & set(mirror.contexts())
    contexts = [mirror.context(name) for name in sorted(names)]
    keys = superfluous(mirror, contexts)
    for key in keys:
        console.print(f"to delete: {key}", soft_wrap=True, markup=False)
    console.print(
        f"{plural(len(keys), 'file')} to delete; kept: {', '.join(sorted(names))}", soft_wrap=True
    )
    interrupted = config.prunes % 2 == 1
    if interrupted:
        console.print("Another prune is running or was interrupted; this one completes it.")
    if arguments.dry_run or not (keys or interrupted):
        return
    question = f"Delete {plural(len(keys), 'file')} permanently?"
    if keys and not arguments.yes and not confirm(question):
        sys.exit("nothing was deleted")
    keep_only(mirror, contexts, keys, config)
    console.print(f"deleted {plural(len(keys), 'file')}")


if __name__ == "__main__":
    main(sys.argv[1:])
