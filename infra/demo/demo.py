"""Process exposures with an AWS that runs on this machine, and show the results.

``python -m infra.demo`` generates one exposure of every kind. ``--file`` and ``--crds-path``
process an exposure of your own with the rules and masks of your own CRDS cache.
"""

import argparse
import filecmp
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from astropy.io import fits
from rich.box import SIMPLE
from rich.json import JSON
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from handler.crds.masks import References
from handler.s3.objects import ObjectStore, S3Location
from infra.cli import plural
from infra.console import Console, lines
from infra.demo.local_aws import (
    MIRROR,
    PRODUCTS,
    RAW,
    LocalAws,
    LocalContext,
    copy_cache,
    local_aws,
)
from infra.demo.samples import MODES, sample_name, write_cache, write_exposure
from infra.view.files import open_file
from infra.view.flags import product_page
from infra.view.pages import write_pages

OUTPUT = Path("demo-output")
console = Console()
_UNFINISHED = "arn:aws:sqs:us-east-1:123456789012:unfinished"
_LARGEST_KEPT = 10_000_000  # bytes


def main() -> None:
    """Run the demo with the options in sys.argv; exit with 1 if an exposure has no success."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--file", type=Path, help="an exposure of your own, *_uncal.fits")
    parser.add_argument("--crds-path", type=Path, help="your CRDS cache")
    arguments = parser.parse_args()
    own = _own_input(arguments.file, arguments.crds_path)
    OUTPUT.mkdir(exist_ok=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn()
    with (
        tempfile.TemporaryDirectory(prefix=".run-", dir=OUTPUT) as written,
        tempfile.TemporaryDirectory() as scratch,
        local_aws() as aws,
        Progress(*columns, console=console, expand=True) as progress,
    ):
        tempfile.tempdir = scratch  # the function starts with an empty /tmp, as in a new container
        exposures, cache = own or generate(Path(written), progress)
        notes = [] if own else keep(Path(written), OUTPUT)
        task = progress.add_task("Copying rules and masks", total=1)
        instruments = {str(fits.getval(path, "INSTRUME")).lower() for path in exposures}
        copy_cache(cache, aws.client("s3"), MIRROR, instruments=instruments)
        progress.advance(task)
        details = process(aws, exposures, progress)
        index = save(aws, details)
        masks = _masks_read(details, cache)
    show(details, masks)
    for note in notes:
        console.print(note, soft_wrap=True)
    if index is not None:
        console.print(f"Pages of the flags: {index.resolve()}", soft_wrap=True)
    silent = {path.name for path in exposures} - {_file_of(detail) for detail in details}
    for name in sorted(silent):
        console.print(f"{name}: no event was published", style="bold red")
    if silent or any(detail["status"] == "Failed" for detail in details):
        sys.exit(1)


def _own_input(file: Path | None, cache: Path | None) -> tuple[list[Path], Path] | None:
    """Return the exposure and CRDS cache that the options name; None if they name neither."""
    if file is None and cache is None:
        return None
    if file is None or cache is None:
        sys.exit("FILE and CRDS_PATH go together; name an exposure and a CRDS cache")
    if not file.is_file():
        sys.exit(f"FILE={file}: no such file, expected an exposure *_uncal.fits")
    if not file.name.endswith("_uncal.fits"):
        sys.exit(f"FILE={file}: expected a name that ends in _uncal.fits; rename it")
    for part in ("mappings/jwst", "config/jwst/server_config"):
        if not (cache / part).exists():
            sys.exit(f"CRDS_PATH={cache}: has no {part}, expected a CRDS cache")
    try:
        fits.getval(file, "INSTRUME")
    except (OSError, KeyError) as exc:
        sys.exit(f"FILE={file}: expected a FITS file whose primary header has INSTRUME: {exc}")
    return [file], cache


def generate(folder: Path, progress: Progress) -> tuple[list[Path], Path]:
    """Write one exposure of each of `MODES` and a CRDS cache to `folder`; return paths."""
    task = progress.add_task("Generating exposures and masks", total=len(MODES) + 1)
    write_cache(folder / "crds_cache")
    progress.advance(task)
    paths = []
    for mode in MODES:
        paths.append(folder / "inputs" / sample_name(mode))
        write_exposure(mode, paths[-1])
        progress.advance(task)
    return paths, folder / "crds_cache"


def keep(written: Path, folder: Path) -> list[str]:
    """Copy exposures of at most 10 MB and the CRDS cache from `written` to `folder`."""
    notes = []
    inputs = sorted((written / "inputs").iterdir())
    small = [path for path in inputs if path.stat().st_size <= _LARGEST_KEPT]
    cache = sorted(path for path in (written / "crds_cache").rglob("*") if path.is_file())
    for path in (*small, *cache):
        target = folder / path.relative_to(written)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        # server_config contains a gzip stream with a time stamp: its bytes always differ.
        elif path.name != "server_config" and not filecmp.cmp(path, target, shallow=False):
            notes.append(f"{target}: kept as it was; this run used another file of that name")
    notes.append(
        f"The exposures: {len(small)} of {len(inputs)} in {(folder / 'inputs').resolve()}; "
        f"those of more than {_LARGEST_KEPT // 1_000_000} MB are not kept"
    )
    return notes


def process(aws: LocalAws, exposures: list[Path], progress: Progress) -> list[dict[str, Any]]:
    """Upload exposures and invoke the function for each of them."""
    os.environ.update(
        OUTPUT_BUCKET=PRODUCTS,
        LEDGER_URI=f"s3://{PRODUCTS}/dq_ledger",
        CRDS_MIRROR=f"s3://{MIRROR}",
        UNFINISHED_QUEUE_ARN=_UNFINISHED,
        POWERTOOLS_LOG_LEVEL="CRITICAL",
        POWERTOOLS_METRICS_DISABLED="true",
    )
    from handler.app import lambda_handler  # noqa: PLC0415  # it reads the environment

    task = progress.add_task("Uploading and processing", total=len(exposures))
    for path in exposures:
        aws.client("s3").upload_file(str(path), RAW, f"2023/03/{path.name}")
        for number, message in enumerate(aws.receive(aws.uploads)):
            context: Any = LocalContext(f"demo-{number}")
            record = {
                "eventSource": "aws:sqs",
                "messageId": message["MessageId"],
                "body": message["Body"],
            }
            if lambda_handler({"Records": [record]}, context)["batchItemFailures"]:
                # SQS would retry, then move the message to the dead-letter queue.
                record["eventSourceARN"] = _UNFINISHED
                lambda_handler({"Records": [record]}, context)
        progress.advance(task)
    return [json.loads(event["Body"])["detail"] for event in aws.receive(aws.announcements)]


def save(aws: LocalAws, details: list[dict[str, Any]]) -> Path | None:
    """Write events, products and pages of their flags to `OUTPUT`; return the page to open."""
    s3, pages, folder = aws.client("s3"), [], OUTPUT / "products"
    folder.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "events.json").write_text(json.dumps(details, indent=2))
    references = References.of(S3Location(MIRROR, ""), Path(tempfile.mkdtemp()), s3)
    for output in (detail["output"] for detail in details if detail["output"]):
        name = output["key"].rpartition("/")[2]
        s3.download_file(output["bucket"], output["key"], str(folder / name))
        with open_file(f"s3://{output['bucket']}/{output['key']}", s3) as file:
            pages.append(product_page(file, references, "latest", ObjectStore(s3)))
    return write_pages(pages, OUTPUT / "pages") if pages else None


def _masks_read(details: list[dict[str, Any]], cache: Path) -> list[int]:
    """Return the bytes of mask that the function read for the exposure of each event."""
    known, sizes = {"N/A"}, []
    for detail in details:
        mask = (detail["reference"] or {}).get("mask") or "N/A"
        files = [] if mask in known else (cache / "references").rglob(mask.removeprefix("crds://"))
        known.add(mask)
        sizes.append(sum(path.stat().st_size for path in files))
    return sizes


def show(details: list[dict[str, Any]], masks: list[int]) -> None:
    """Print a table of the exposures, failures, totals, and an excerpt of the first event."""
    _show_table(details, masks)
    for detail in details:
        if detail["status"] != "Complete":
            line = f"{_file_of(detail)}: {detail['status']}: {detail['reason']}"
            console.print(line, soft_wrap=True)
    received = sum(detail["function"]["bytesReceived"] for detail in details)
    sent = sum(detail["function"]["bytesSent"] for detail in details)
    written = sum(detail["output"]["bytes"] for detail in details if detail["output"])
    console.print(
        f"{plural(len(details), 'exposure')}. Products: {written / 1e6:.1f} MB. In: "
        f"{(received - sum(masks)) / 1e6:.1f} MB, masks: {sum(masks) / 1e6:.1f} MB. "
        f"Out: {sent / 1e6:.1f} MB."
    )
    console.print(
        "An exposure of less than some 10 MB passes through the function whole. Of a larger one "
        "the headers do, and 5 MiB of pixels where S3's parts meet: S3 copies the rest itself."
    )
    if details:
        excerpt = {name: details[0][name] for name in ("id", "status", "reason", "reference")}
        console.print(lines("", "Excerpt of the first event:"))
        console.print(JSON(json.dumps(excerpt)))
    console.print(lines("", f"All events: {OUTPUT / 'events.json'}"))
    console.print(f"The products: {(OUTPUT / 'products').resolve()}", soft_wrap=True)
    console.print(
        "Next: open a product and run the other jwst steps on it (docs/how-to/use-products.md); "
        "process your own exposure (make demo FILE=... CRDS_PATH=...); deploy it "
        "(docs/how-to/deploy.md)"
    )


def _show_table(details: list[dict[str, Any]], masks: list[int]) -> None:
    names = [_file_of(detail).removesuffix("_uncal.fits") for detail in details]
    common = os.path.commonprefix(names) if len(names) > 1 else ""  # noqa: RUF071  # not paths
    common = common[: common.rfind("_") + 1]
    table = Table(
        title="dq_init by jwst-dq-init-lambda", box=SIMPLE, collapse_padding=True, pad_edge=False
    )
    table.add_column(lines("Exposure,", "mask"), overflow="fold", min_width=24)
    table.add_column(lines("Kind,", "shape"), overflow="fold", min_width=14)
    for heading in ("Do not\nuse", "Size\nMB", "In\nMB", "Mask\nMB", "Out\nMB", "s"):
        table.add_column(lines(*heading.split("\n")), justify="right")
    for name, detail, mask in zip(names, details, masks, strict=True):
        moved, output = detail["function"], detail["output"]
        is_complete = detail["status"] == "Complete"
        exposure = detail["exposure"] if is_complete else {"kind": detail["status"], "shape": ()}
        reference = (detail["reference"] or {}).get("mask") or "no mask"
        table.add_row(
            lines(name.removeprefix(common), Path(reference.removeprefix("crds://")).stem),
            lines(exposure["kind"], "x".join(map(str, exposure["shape"])) or detail["error"] or ""),
            f"{detail['flags']['doNotUseFraction']:.2%}" if is_complete else "",
            f"{output['bytes'] / 1e6:.1f}" if output else "",
            f"{(moved['bytesReceived'] - mask) / 1e6:.1f}",
            f"{mask / 1e6:.1f}" if mask else "",
            f"{moved['bytesSent'] / 1e6:.1f}",
            f"{moved['durationSeconds']:.1f}",
        )
    if common:
        console.print(f"Every exposure's name begins with {common}")
    console.print(table)


def _file_of(detail: dict[str, Any]) -> str:
    found = detail["input"] or detail["request"] or {"key": "?"}
    return str(found["key"]).rpartition("/")[2]
