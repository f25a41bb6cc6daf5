"""Pages of flags and masks: ``python -m infra look TARGET... --out FOLDER``.

TARGET is a product, a raw exposure or a MASK file, on this machine or in S3 (``s3://bucket/key``);
of what lies in S3 only headers and flags are fetched. ``--against OLDER`` compares a mask with an
older one. ``--mirror`` (or ``--stack``) says where masks are: for raw exposures, and for what a
product's mask has outside its window. With ``--detector NRCA1`` TARGET is a mirror, and the page
is the history of that detector's masks; ``s3://bucket/dq_catalogue`` (or exposures.parquet) gives
pages of an archive. The pages need no server and no network.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import boto3

from core.errors import InputRejected
from core.mask import Mask
from handler.references.resolution import References
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore
from infra.look.files import opened
from infra.look.flags import Look, mask_look, masks_look, product_look
from infra.look.history import chapters, history_look, history_table
from infra.look.page import Link, picture_page, write_index
from infra.mirror.bucket import Mirror
from infra.stacks import find_stack
from infra.terminal import Mistake

__all__ = ["main", "write_looks"]


def main(words: list[str]) -> None:
    """Write the pages, and print where they are."""
    parser = argparse.ArgumentParser(
        prog="python -m infra look",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    if arguments.target[0].endswith((".parquet", "/dq_catalogue")):
        print(_write_catalogue(arguments.target[0], arguments.out, s3))
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
            raise Mistake(str(exc)) from exc
    print(write_looks(looks, arguments.out))


def _mirror(arguments: argparse.Namespace) -> S3Location | None:
    if arguments.mirror or not arguments.stack:
        mirror: S3Location | None = arguments.mirror
        return mirror
    known = find_stack(arguments.stack).parameters
    return S3Location(known["MirrorBucket"], known.get("MirrorPrefix", ""))


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


def write_history(mirror: str, detector: str, folder: Path, s3: Any) -> Path:
    """Write the page of a detector's masks; returns it."""
    place = S3Location.parse_prefix(mirror)
    told = chapters(Mirror(s3, place), detector)
    look = history_look(detector, told, str(place))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{detector}.html"
    path.write_text(picture_page(look, history_table(told), start=len(told) - 1))
    return path


def _write_catalogue(target: str, folder: Path, s3: Any) -> Path:
    """Write the pages of a catalogue that lies here, or in S3."""
    from infra.look.catalogue import write_catalogue  # noqa: PLC0415  # needs DuckDB
    from infra.reprocessing.catalogue import Catalogue  # noqa: PLC0415

    if not target.startswith("s3://"):
        return write_catalogue(Path(target), folder)
    place = S3Location.parse_prefix(target.removesuffix("/exposures.parquet"))
    with Catalogue.open(s3, place) as catalogue:
        return write_catalogue(catalogue.path, folder)


def write_looks(looks: list[Look], folder: Path) -> Path:
    """Write a page for each, and an index of them; returns the page to open first."""
    folder.mkdir(parents=True, exist_ok=True)
    links = []
    for look in looks:
        path = folder / f"{look.title.replace(' ', '-')}.html"
        path.write_text(picture_page(look))
        links.append(Link(path.name, look.title, "; ".join(text for _, text in look.facts[:4])))
    return path if len(links) == 1 else write_index(folder, "Flags", links)
