"""The main job, on an embedded AWS: exposures are uploaded, the function makes their products.

``python -m infra.demo`` generates one exposure of every kind. ``--file`` and ``--crds-path`` do the
same for a person's own exposure and own CRDS cache. Nothing leaves this machine.
"""

import argparse
import filecmp
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from astropy.io import fits
from rich.box import SIMPLE
from rich.json import JSON
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from handler.crds.masks import References
from handler.s3.objects import ObjectStore, S3Location
from infra.console import Console, lines
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws, LocalContext, local_aws
from infra.demo.samples.exposures import sample_name, write_exposure
from infra.demo.samples.mirror import write_sample_mirror
from infra.demo.samples.modes import MODES
from infra.mirror.cache import upload_cache
from infra.view.files import opened
from infra.view.flags import product_look
from infra.view.pages import write_looks

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

OUTPUT = Path("demo-output")
console = Console()
_UNFINISHED = "arn:aws:sqs:us-east-1:123456789012:unfinished"
_WIDE = 120
"""Columns of a terminal that has room for the flags."""
_EXPOSURES = (replace(MODES[0], shape=(1, 10, *MODES[0].shape[2:])), *MODES[1:])
"""One exposure of every mode; the first as large as many are, 92 MB."""
_KEPT = 10_000_000
"""Bytes of the largest generated exposure that is kept."""


@dataclass(frozen=True)
class Material:
    """What the demo works on: raw exposures, and a CRDS cache."""

    exposures: list[Path]
    crds_cache: Path


def main() -> None:
    """Run the demo."""
    arguments = _parser().parse_args()
    own = _own_material(arguments.file, arguments.crds_path)
    OUTPUT.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".run-", dir=OUTPUT) as written,
        _own_scratch(),
        local_aws() as aws,
        _progress() as progress,
    ):
        material = own or generate(Path(written), progress)
        notes = [] if own else keep(Path(written), OUTPUT)
        fill_mirror(aws, material, progress)
        announcements = run(aws, material, progress)
        download(aws, announcements)
        index = look_at(aws, announcements)
        masks = _masks_read(announcements, material.crds_cache)
    show(announcements, masks)
    for note in notes:
        console.print(note, soft_wrap=True)
    if index is not None:
        console.print(f"Look at the flags: {index.resolve()}", soft_wrap=True)
    silent = {path.name for path in material.exposures} - {_file_of(d) for d in announcements}
    for name in sorted(silent):
        console.print(f"{name}: nothing was announced of it", style="bold red")
    if silent or any(detail["status"] == "Failed" for detail in announcements):
        sys.exit(1)


def _own_material(file: Path | None, crds_path: Path | None) -> Material | None:
    """A person's exposure and cache; what is wrong with them is one line."""
    if file is None and crds_path is None:
        return None
    if file is None or crds_path is None:
        sys.exit("FILE and CRDS_PATH go together: an exposure, and the CRDS cache to choose from")
    if not file.is_file():
        sys.exit(f"FILE={file}: no such file")
    if not file.name.endswith("_uncal.fits"):
        sys.exit(f"FILE={file}: expected a name that ends in _uncal.fits, as S3 is watched for")
    if not (crds_path / "mappings" / "jwst").is_dir():
        sys.exit(f"CRDS_PATH={crds_path}: expected a CRDS cache, a folder with mappings/jwst in it")
    try:
        fits.getval(file, "INSTRUME")
    except (OSError, KeyError) as exc:
        sys.exit(f"FILE={file}: expected a FITS file whose primary header has INSTRUME: {exc}")
    return Material([file], crds_path)


@contextmanager
def _own_scratch() -> Iterator[None]:
    """Let the function start with an empty /tmp, as a new container does."""
    with tempfile.TemporaryDirectory() as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def _progress() -> Progress:
    """Bars that are bars at 80 columns, too."""
    columns = TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn()
    return Progress(*columns, console=console, expand=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, help="an exposure of your own, *_uncal.fits")
    parser.add_argument("--crds-path", type=Path, help="a CRDS cache of your own")
    return parser


def generate(folder: Path, progress: Progress) -> Material:
    """Write rules, masks and one exposure of every mode to a folder of this run."""
    cache = folder / "crds_cache"
    task = progress.add_task("Making rules, masks, exposures", total=len(_EXPOSURES) + 1)
    write_sample_mirror(cache)
    progress.advance(task)
    paths = []
    for mode in _EXPOSURES:
        paths.append(folder / "inputs" / sample_name(mode))
        write_exposure(mode, paths[-1])
        progress.advance(task)
    return Material(paths, cache)


def keep(written: Path, folder: Path) -> list[str]:
    """Copy what this run wrote, but large exposures, to a folder; no file there is replaced.

    Parameters
    ----------
    written : `pathlib.Path`
        The folder of this run.
    folder : `pathlib.Path`
        Where to copy it.

    Returns
    -------
    list of str
        Notes for the user.
    """
    notes = []
    inputs = sorted((written / "inputs").iterdir())
    small = [path for path in inputs if path.stat().st_size <= _KEPT]
    cache = sorted(path for path in (written / "crds_cache").rglob("*") if path.is_file())
    for path in (*small, *cache):
        target = folder / path.relative_to(written)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("rb") as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy)
        except FileExistsError:
            # server_config holds a gzip stream with its time: never the same bytes again.
            is_same = target.is_file() and filecmp.cmp(path, target, shallow=False)
            if not is_same and path.name != "server_config":
                notes.append(f"{target}: kept as it was; this run used another file of that name")
    notes.append(
        f"The exposures: {len(small)} of {len(inputs)} in {(folder / 'inputs').resolve()}; "
        f"those of more than {_KEPT // 1_000_000} MB are not kept"
    )
    return notes


def fill_mirror(aws: LocalAws, material: Material, progress: Progress) -> None:
    """Fill the mirror bucket from the CRDS cache, for the instruments that are needed."""
    instruments = {str(fits.getval(path, "INSTRUME")).lower() for path in material.exposures}
    task = progress.add_task("Filling the CRDS mirror bucket", total=None)
    for _ in upload_cache(material.crds_cache, aws.client("s3"), MIRROR, instruments=instruments):
        progress.advance(task)
    progress.update(task, total=progress.tasks[task].completed)


def run(aws: LocalAws, material: Material, progress: Progress) -> list[dict[str, Any]]:
    """Upload the exposures; let the function process the events that S3 sends of them."""
    os.environ.update(
        OUTPUT_BUCKET=PRODUCTS,
        LEDGER_URI=f"s3://{PRODUCTS}/dq_ledger",
        CRDS_MIRROR=f"s3://{MIRROR}",
        UNFINISHED_QUEUE_ARN=_UNFINISHED,
        POWERTOOLS_LOG_LEVEL="CRITICAL",
        POWERTOOLS_METRICS_DISABLED="true",
    )
    from handler.app import lambda_handler  # noqa: PLC0415  # reads the environment, as it does in AWS

    task = progress.add_task("Uploading, processing", total=len(material.exposures))
    for path in material.exposures:
        aws.client("s3").upload_file(str(path), RAW, f"2023/03/{path.name}")
        for number, message in enumerate(aws.receive(aws.uploads)):
            # The parts of Lambda's context that the function reads.
            context = cast("LambdaContext", LocalContext(f"demo-{number}"))
            if lambda_handler(_batch(message), context)["batchItemFailures"]:
                # SQS would have it attempted again, then move it to the queue that is looked at.
                lambda_handler(_batch(message, _UNFINISHED), context)
        progress.advance(task)
    messages = aws.receive(aws.announcements)
    return [json.loads(message["Body"])["detail"] for message in messages]


def _batch(message: dict[str, Any], queue: str = "") -> dict[str, Any]:
    """A message, as Lambda's poller hands it to the function."""
    record = {
        "eventSource": "aws:sqs",
        "eventSourceARN": queue,
        "messageId": message["MessageId"],
        "body": message["Body"],
    }
    return {"Records": [record]}


def download(aws: LocalAws, announcements: list[dict[str, Any]]) -> None:
    """Bring the products to disk."""
    folder = OUTPUT / "products"
    folder.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "events.json").write_text(json.dumps(announcements, indent=2))
    for output in (detail["output"] for detail in announcements):
        if output is not None:
            name = output["key"].rpartition("/")[2]
            aws.client("s3").download_file(output["bucket"], output["key"], str(folder / name))


def _masks_read(announcements: list[dict[str, Any]], cache: Path) -> list[int]:
    """Bytes of masks that each exposure had fetched: each mask once, as a container keeps it."""
    known = {"N/A"}
    found = []
    for detail in announcements:
        mask = (detail["reference"] or {}).get("mask") or "N/A"
        files = [] if mask in known else (cache / "references").rglob(mask.removeprefix("crds://"))
        known.add(mask)
        found.append(sum(path.stat().st_size for path in files))
    return found


def look_at(aws: LocalAws, announcements: list[dict[str, Any]]) -> Path | None:
    """Write a page of flags for every product, with what the mask has outside the window."""
    s3, looks = aws.client("s3"), []
    with tempfile.TemporaryDirectory() as folder:
        references = References.of(S3Location(MIRROR, ""), Path(folder), s3)
        for output in (detail["output"] for detail in announcements):
            if output is not None:
                address = f"s3://{output['bucket']}/{output['key']}"
                with opened(address, s3) as file:
                    looks.append(product_look(file, references, "latest", ObjectStore(s3)))
    return write_looks(looks, OUTPUT / "pages") if looks else None


def show(announcements: list[dict[str, Any]], masks: list[int]) -> None:
    """Print what a person wants to see; the flags one by one where the terminal is wide."""
    names = [_name(detail) for detail in announcements]
    common = _common(names)
    table = Table(
        title="dq_init by jwst-dq-init-lambda", box=SIMPLE, collapse_padding=True, pad_edge=False
    )
    for heading, width in ((("Exposure,", "mask"), 24), (("Kind,", "shape"), 14)):
        table.add_column(lines(*heading), overflow="fold", min_width=width)
    for heading in (
        ("Do not", "use"),
        ("Product", "MB"),
        ("MB in,", "+ mask"),
        ("MB out", ""),
        ("s", ""),
    ):
        table.add_column(lines(*heading), justify="right")
    if console.width >= _WIDE:
        table.add_column("Flagged pixels")
    for name, detail, mask in zip(names, announcements, masks, strict=True):
        cells = _cells(name.removeprefix(common), detail, mask)
        table.add_row(*cells[: len(table.columns)])
    if common:
        console.print(f"Every exposure's name begins with {common}")
    console.print(table)
    for name, detail in zip(names, announcements, strict=True):
        if detail["status"] != "Complete":
            console.print(f"{name}: {detail['status']}: {detail['reason']}", soft_wrap=True)
    _show_totals(announcements, masks)
    if announcements:
        console.print(lines("", "Of the first processing event:"))
        console.print(JSON(json.dumps(_shortened(announcements[0]))))
    console.print(lines("", f"All events, whole: {OUTPUT / 'events.json'}"))
    console.print(f"The products: {(OUTPUT / 'products').resolve()}", soft_wrap=True)
    console.print(
        "Next: open one, go on with jwst (docs/using.md); your own exposure "
        "(make demo FILE=... CRDS_PATH=...); deploy it (docs/operating.md)"
    )


def _show_totals(announcements: list[dict[str, Any]], masks: list[int]) -> None:
    moved = [detail["function"] for detail in announcements]
    received, sent = (sum(m[way] for m in moved) for way in ("bytesReceived", "bytesSent"))
    written = sum(detail["output"]["bytes"] for detail in announcements if detail["output"])
    console.print(
        f"{len(announcements)} exposures. Products: {written / 1e6:.0f} MB. In: "
        f"{(received - sum(masks)) / 1e6:.0f} MB, and {sum(masks) / 1e6:.0f} MB of masks. "
        f"Out: {sent / 1e6:.0f} MB."
    )
    console.print(
        "An exposure of less than some 10 MB passes through the function whole. Of a larger one "
        "the headers do, and 5 MiB of pixels where S3's parts meet: S3 copies the rest itself."
    )


def _shortened(detail: dict[str, Any]) -> dict[str, Any]:
    """What matters at first sight of a processing event."""
    told = {name: detail[name] for name in ("id", "status", "reason")}
    for name, fields in (("input", ("key",)), ("output", ("key", "bytes"))):
        told[name] = {field: (detail[name] or {}).get(field) for field in fields}
    reference = detail["reference"] or {}
    return {**told, "reference": {name: reference.get(name) for name in ("mask", "context")}}


def _file_of(detail: dict[str, Any]) -> str:
    asked = detail["input"] or detail["request"] or {"key": "?"}
    name: str = asked["key"].rpartition("/")[2]
    return name


def _name(detail: dict[str, Any]) -> str:
    return _file_of(detail).removesuffix("_uncal.fits")


def _common(names: list[str]) -> str:
    """The parts, up to an underscore, with which all names begin."""
    shared = os.path.commonprefix(names) if len(names) > 1 else ""  # noqa: RUF071  # as characters
    return shared[: shared.rfind("_") + 1]


def _cells(name: str, detail: dict[str, Any], mask_bytes: int) -> list[str | Text]:
    moved, output = detail["function"], detail["output"]
    received = f"{(moved['bytesReceived'] - mask_bytes) / 1e6:.1f}"
    numbers: list[str | Text] = [
        f"{output['bytes'] / 1e6:.1f}" if output else "",
        lines(received, f"+ {mask_bytes / 1e6:.1f}") if mask_bytes else received,
        f"{moved['bytesSent'] / 1e6:.1f}",
        f"{moved['durationSeconds']:.2f}",
    ]
    if detail["status"] != "Complete":
        return [name, lines(detail["status"], detail["error"] or ""), "", *numbers, ""]
    exposure, flags = detail["exposure"], detail["flags"]
    mask = (detail["reference"]["mask"] or "no mask").removeprefix("crds://").removesuffix(".fits")
    return [
        lines(name, mask),
        lines(exposure["kind"], "x".join(map(str, exposure["shape"]))),
        f"{flags['doNotUseFraction']:.2%}",
        *numbers,
        ", ".join(f"{name} {n['pixels']}" for name, n in flags["byMnemonic"].items()),
    ]
