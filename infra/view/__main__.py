"""The command ``dq-init view``: pages that show flags and masks."""

import tempfile
from pathlib import Path
from typing import Any, cast

import click

from core.errors import InputRejected
from handler.crds.masks import References
from handler.s3.objects import ObjectStore, S3Location
from infra import options
from infra.aws import find_stack
from infra.cli import UserError
from infra.local.inputs import s3_client
from infra.mirror.bucket import Mirror
from infra.view.files import open_file
from infra.view.flags import Page, comparison_page, mask_page, product_page
from infra.view.pages import write_history, write_pages


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--out", type=options.FOLDER, required=True, help="Folder for the pages.")
@click.option("--against", metavar="MASK", help="Compare TARGET, a mask, with an older mask.")
@click.option("--detector", help="History of the detector's masks; TARGET is a mirror.")
@options.mirror
@options.stack()
@options.context("--context", default="latest", help="Context that selects a mask.")
def command(  # noqa: PLR0913, PLR0917
    targets: tuple[str, ...],
    out: Path,
    against: str | None,
    detector: str | None,
    mirror: S3Location | None,
    stack: str | None,
    context: str,
) -> None:
    """Write pages that show the flags of products, raw exposures and masks."""
    if detector is not None:
        if len(targets) > 1:
            raise click.UsageError("--detector expects one TARGET, the mirror")
        print(write_history(Mirror(s3_client(), options.s3_uri(targets[0])), detector, out))
        return
    if stack and not mirror:
        mirror = find_stack(stack).mirror
    with tempfile.TemporaryDirectory() as folder:
        references = References.of(mirror, Path(folder), s3_client()) if mirror else None
        try:
            pages = [_page(target, against, references, context) for target in targets]
        except InputRejected as exc:
            raise UserError(str(exc)) from exc
    print(write_pages(pages, out))


def _page(target: str, against: str | None, references: References | None, context: str) -> Page:
    with open_file(target) as file:
        if against is not None:
            with open_file(against) as older:
                return comparison_page(older.mask(), file.mask())
        if file.is_mask:
            return mask_page(file)
        # Only a mirror is read through the store; local files need no AWS settings.
        store = ObjectStore(s3_client() if references else cast("Any", None))
        return product_page(file, references, context, store)
