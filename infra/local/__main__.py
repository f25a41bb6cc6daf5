"""The command ``dq-init run``: the step on files of this machine."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from core.errors import EXPECTED, error_class
from core.product import NO_MASK, Encoding
from handler.s3.objects import S3Location
from infra import options
from infra.cli import UserError
from infra.local.inputs import check_outputs, expand
from infra.local.product import remove_leftovers
from infra.local.references import (
    ReferenceSettings,
    is_context,
    read_mask,
    read_user_dq,
    resolve_context,
)
from infra.local.report import report, show_line
from infra.local.run import (
    EXIT_CODES,
    Options,
    collected_warnings,
    process_all,
    worst,
)

_FLAGS = ("--skip", "--save-results")


class _Command(click.Command):
    """The command ``dq-init run``; a Boolean may follow --skip and --save-results."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        stop = args.index("--") if "--" in args else len(args)
        for place, word in enumerate(args[:stop]):
            following = args[place + 1 : place + 2]
            if _with_hyphens(word) in _FLAGS and not any(map(_is_boolean, following)):
                args[place] = f"{word}=true"
        return super().parse_args(ctx, args)


def _is_boolean(word: str) -> bool:
    try:
        click.BOOL.convert(word, None, None)
    except click.BadParameter:
        return False
    return True


def _not_empty(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return the value of an option; a usage error if it is empty, as a shell's unset variable."""
    if value == "":
        raise click.BadParameter("is empty, expected a file; leave the option out for none")
    return value


def _with_hyphens(name: str) -> str:
    return name.replace("_", "-")


def _flag(name: str, text: str) -> options.Decorator:
    """Return the decorator for a Boolean option: ``--skip`` or, as in strun, ``--skip=true``."""
    return click.option(
        name, type=bool, is_flag=False, default=False, show_default=False,
        metavar="[true|false]", help=text,
    )  # fmt: skip


# strun spells its options with underscores: --override_mask.
@click.command(cls=_Command, context_settings={"token_normalize_func": _with_hyphens})
@click.argument("exposures", metavar="EXPOSURE...", nargs=-1, required=True)
@click.option(
    "--output-dir", type=options.FOLDER, default=Path(), help="Folder of the products; created."
)
@click.option("--suffix", default="dq_init", help="Suffix of the products' names.")
@click.option(
    "--override-mask",
    metavar="MASK",
    callback=_not_empty,
    help="Mask: a path, s3://bucket/key or N/A.",
)
@click.option(
    "--user-supplied-dq",
    metavar="FILE",
    callback=_not_empty,
    help="FITS image of flags to merge with those of the mask; without a mask, it is not used.",
)
@_flag("--skip", "Use no mask: write zeros, and SKIPPED to S_DQINIT.")
@_flag("--save-results", "Ignored: products are always written, as by strun.")
@options.context("--context", help="CRDS context; default: CRDS_CONTEXT, else as jwst resolves it.")
@click.option("--crds-path", type=options.FOLDER, help="CRDS cache; default: CRDS_PATH.")
@options.mirror
@click.option(
    "--encoding",
    type=click.Choice([encoding.value for encoding in Encoding]),
    default=Encoding.NATIVE.value,
    help="Type of the science pixels: as in the exposure, or float32 as jwst writes them.",
)
@click.option("--force", is_flag=True, help="Rebuild every product, and replace other files.")
@click.option("--jobs", type=click.IntRange(1), default=1, help="Number of processes.")
@click.option("--check", is_flag=True, help="Explain each product, and write nothing.")
@options.as_json
def command(  # noqa: PLR0913, PLR0917
    exposures: tuple[str, ...],
    output_dir: Path,
    suffix: str,
    override_mask: str | None,
    user_supplied_dq: str | None,
    skip: bool,
    save_results: bool,  # noqa: ARG001
    context: str | None,
    crds_path: Path | None,
    mirror: S3Location | None,
    encoding: str,
    force: bool,
    jobs: int,
    check: bool,
    as_json: bool,
) -> None:
    """Run dq_init on raw exposures and write the products to this machine.

    EXPOSURE is a file, a folder, a pattern of local names or an S3 URI. A folder, whose URI ends
    with a slash in S3, stands for every *_uncal.fits below it. A product that is up to date is
    kept, another product of this program is replaced; any other file is replaced only with --force.

    References come from --mirror or from the CRDS cache; if CRDS_SERVER_URL is set, what the cache
    lacks is downloaded from that server and kept. Options can be spelled as in strun:
    --override_mask.

    Exit codes: 0, no exposure failed; 2, an exposure or an option is wrong; 3, a reference is not
    available; 1, another failure, such as a full disk; 4, a failure that a retry may solve. If
    several apply, the one that is listed first here is returned.
    """
    if "/" in suffix or not suffix:
        raise click.BadParameter(
            f"{suffix!r}, expected the end of a file name", param_hint="--suffix"
        )
    mask = NO_MASK if skip else override_mask
    settings = _reference_settings(mirror, crds_path, context)
    if not (mask or settings.mirror or settings.crds_path):
        raise UserError(
            "references: none are named, expected CRDS_PATH, --crds-path, --mirror or "
            "--override-mask"
        )
    run = Options(
        settings,
        mask,
        user_supplied_dq,
        Encoding(encoding),
        output_dir,
        suffix,
        force,
        check,
    )
    try:
        sys.exit(_run(exposures, run, jobs, as_json))
    except EXPECTED as exc:
        show_line(f"run: {exc}", is_error=True)
        sys.exit(EXIT_CODES[error_class(exc).__name__])


def _run(exposures: tuple[str, ...], run: Options, jobs: int, as_json: bool) -> int:
    """Process the exposures that arguments name; print each outcome and return the exit code."""
    with collected_warnings() as warnings:
        run = replace(run, references=resolve_context(run.references))
        if run.mask and run.mask != NO_MASK:  # a wrong file would fail every exposure
            read_mask(run.mask)
        if run.user_dq:
            read_user_dq(run.user_dq)
    for text in warnings:
        show_line(f"warning: {text}", is_error=True)
    names = expand(exposures)
    check_outputs({name: run.product_path(name) for name in names})
    if not run.check:
        run.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(run.folder)
    outcomes = report(process_all(names, run, jobs), len(names), as_json)
    codes = {EXIT_CODES.get(outcome.error, 1) for outcome in outcomes if outcome.error}
    return worst(codes)


def _reference_settings(
    mirror: S3Location | None, crds_path: Path | None, context: str | None
) -> ReferenceSettings:
    if mirror and crds_path:
        raise click.UsageError("--mirror and --crds-path exclude each other.")
    path, server, variable = map(os.environ.get, ("CRDS_PATH", "CRDS_SERVER_URL", "CRDS_CONTEXT"))
    context = context or variable or None
    if context and not is_context(context):
        raise click.BadParameter(
            f"{context!r}, expected latest, build or jwst_N.pmap",
            param_hint="--context or CRDS_CONTEXT",
        )
    if mirror:
        return ReferenceSettings(mirror, context=context)
    if not crds_path and path:
        crds_path = Path(path)
    if server and "serverless" in server:  # crds, too, takes it for no server
        server = None
    return ReferenceSettings(None, crds_path, server or None, context)
