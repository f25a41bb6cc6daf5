"""Pages of flags and masks: ``python -m infra view TARGET... --out FOLDER``.

TARGET is a product, a raw exposure or a MASK file, on this machine or in S3 (``s3://bucket/key``);
of what lies in S3 only headers and flags are fetched. ``--against OLDER`` compares a mask with an
older one. ``--mirror`` (or ``--stack``) says where masks are: for raw exposures, and for what a
product's mask has outside its window. With ``--detector NRCA1`` TARGET is a mirror, and the page
is the history of that detector's masks. The pages need no server and no network.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import boto3

from core.errors import InputRejected
from core.mask import Mask
from handler.crds.masks import References
from handler.s3.objects import ObjectStore, S3Location
from infra.aws import find_stack
from infra.cli import UserError, parser_of
from infra.view.files import opened
from infra.view.flags import Look, mask_look, masks_look, product_look
from infra.view.pages import write_history, write_looks

__all__ = ["main"]


def main(words: list[str]) -> None:
    """Write the pages, and print where they are."""
    parser = parser_of("view", __doc__)
    parser.add_argument("target", nargs="+", help="product, raw exposure or mask")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pages")
    parser.add_argument("--against", help="an older mask")
    parser.add_argument("--detector", help="TARGET is a mirror: the history of a detector's masks")
    parser.add_argument("--mirror", type=S3Location.parse_prefix, help="s3://bucket[/prefix]")
    parser.add_argument("--stack", help="name of the deployed stack")
    parser.add_argument("--context", default="latest", help="for raw exposures")
    arguments = parser.parse_args(words)
    s3 = boto3.client("s3")
    if arguments.detector is not None:
        print(write_history(arguments.target[0], arguments.detector, arguments.out, s3))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = _mirror(arguments)
        references = References.of(place, Path(folder), s3) if place else None
        try:
            looks = [
                _look(target, arguments.against, references, arguments.context, s3)
                for target in arguments.target
            ]
        except InputRejected as exc:
            raise UserError(str(exc)) from exc
    print(write_looks(looks, arguments.out))


def _mirror(arguments: argparse.Namespace) -> S3Location | None:
    if arguments.mirror or not arguments.stack:
        mirror: S3Location | None = arguments.mirror
        return mirror
    return find_stack(arguments.stack).mirror


def _look(
    target: str, against: str | None, references: References | None, context: str, s3: Any
) -> Look:
    with opened(target, s3) as file:
        if against is not None:
            with opened(against, s3) as older:
                both = [Mask.from_bytes(one.content(), one.stem) for one in (older, file)]
            return masks_look(*both)
        if file.is_mask:
            return mask_look(file)
        return product_look(file, references, context, ObjectStore(s3))
