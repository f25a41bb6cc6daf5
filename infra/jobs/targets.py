"""The exposures of a backfill, found by prefix, by key, by name at MAST, or in a list of these."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from handler.s3.objects import ObjectStore, S3Location
from infra.aws import Stack, listed
from infra.cli import UserError, plural

ARCHIVE = "stpubdata"
"""The public bucket of JWST data, without charge in us-east-1 (registry.opendata.aws/jwst)."""
_SUFFIX = "_uncal.fits"
_NAME = re.compile(r"(?:mast:JWST/product/)?((jw\d{5})(\d{6})_\S+_uncal\.fits)")
# A comment follows white space, because # is an ordinary character of a key.
_COMMENT = re.compile(r"(^|\s)#.*")
_CHECKED = 100  # named exposures whose existence is checked before they are sent
_SHOWN = 5  # of the missing ones


@dataclass(frozen=True)
class Found:
    """An exposure that a target names or contains; a named one may not exist."""

    location: S3Location
    size: int | None  # in bytes; None if the exposure was named by a target, not listed


def archive_location(name: str) -> S3Location:
    """Return the location in the public archive of an exposure with this file name at MAST."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"{name}: no such file, expected a text file with one exposure per line, an S3 URI, or "
            "a file name at MAST such as jw02733001001_02101_00001_nrca1_uncal.fits"
        )
    file_name, program, visit = match.groups()
    return S3Location(ARCHIVE, f"jwst/public/{program}/{program}{visit}/{file_name}")


def find(targets: Iterable[str], s3: Any) -> Iterator[Found]:
    """Yield the exposures of targets (S3 URIs, names at MAST, lists of these), each once."""
    known: set[S3Location] = set()
    for target in targets:
        for found in _from_list(target, s3) if _is_list(target) else _from_target(target, s3):
            if found.location not in known:
                known.add(found.location)
                yield found


def warnings(found: list[Found], stack: Stack, s3: Any) -> Iterator[str]:
    """Yield warnings: buckets and keys the stack may not read, named exposures not found."""
    others = {name.strip() for name in stack.parameters.get("ReadBuckets", "").split(",")}
    raw, prefix = stack.output("RawBucket"), stack.parameters.get("InputPrefix", "")
    for bucket in sorted({item.location.bucket for item in found} - others - {raw}):
        yield (
            f"s3://{bucket}: not a bucket that stack {stack.name} may read; add it to the stack's "
            "parameter ReadBuckets"
        )
    in_raw = [item.location for item in found if item.location.bucket in {raw} - others]
    if outside := [location for location in in_raw if not location.key.startswith(prefix)]:
        yield (
            f"s3://{raw}: {plural(len(outside), 'exposure')}, such as {outside[0].key}, not below "
            f"the stack's parameter InputPrefix ({prefix}), so that the function may not read them"
        )
    store, problems = ObjectStore(s3), []
    for item in [item for item in found if item.size is None][:_CHECKED]:
        try:
            if store.find(item.location) is None:
                problems.append(f"{item.location}: no such object; check the name")
        except (TransientFailure, ClientError) as exc:
            problems.append(str(exc))
    yield from problems[:_SHOWN]
    if len(problems) > _SHOWN:
        yield f"{len(problems) - _SHOWN} more of the first {_CHECKED} named exposures have problems"


def digest_of_list(target: str) -> str | None:
    """Return the SHA-256 (hexadecimal) of a target that is a list; None for any other target."""
    return hashlib.sha256(Path(target).read_bytes()).hexdigest() if _is_list(target) else None


def _is_list(target: str) -> bool:
    is_name = target.startswith("s3://") or target.endswith(_SUFFIX)
    return not is_name and Path(target).is_file()


def _from_list(path: str, s3: Any) -> Iterator[Found]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # editors of Windows write a BOM
    except UnicodeDecodeError as exc:
        raise UserError(f"{path}: not UTF-8 text, expected one exposure per line") from exc
    # Not splitlines(), which splits at characters that a key may contain.
    for number, raw in enumerate(text.split("\n"), 1):
        line = _COMMENT.sub("", raw).strip()
        if not line:
            continue
        if line.startswith("s3://") and not line.endswith(("/", _SUFFIX)):
            raise UserError(
                f"{path}, line {number}: found {line}, expected a key that ends in {_SUFFIX} or a "
                "prefix that ends in /"
            )
        try:
            yield from _from_target(line, s3)
        except UserError as exc:
            raise UserError(f"{path}, line {number}: {exc}") from exc


def _from_target(target: str, s3: Any) -> Iterator[Found]:
    if not target.startswith("s3://"):
        yield Found(archive_location(target), None)
        return
    try:
        if target.endswith(_SUFFIX):
            yield Found(S3Location.parse(target), None)
            return
        bucket, _, prefix = target.removeprefix("s3://").partition("/")
        S3Location.parse_prefix(f"s3://{bucket}")
    except ValueError as exc:
        raise UserError(str(exc)) from exc
    for item in listed(s3, bucket, prefix):
        if item["Key"].endswith(_SUFFIX):
            yield Found(S3Location(bucket, item["Key"]), item["Size"])
