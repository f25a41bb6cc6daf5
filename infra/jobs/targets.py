"""The exposures of a backfill: prefixes, keys, names of files in MAST's archive, and lists."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from handler.s3.errors import error_code, is_missing
from handler.s3.objects import S3Location
from infra.aws import Stack, listed
from infra.cli import UserError

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
    """An exposure; its size if it was listed."""

    location: S3Location
    size: int | None


def archive_location(name: str) -> S3Location:
    """Return the location of an exposure in the public archive, from its name at MAST."""
    match = _NAME.fullmatch(name)
    if match is not None:
        file_name, program, visit = match.groups()
        return S3Location(ARCHIVE, f"jwst/public/{program}/{program}{visit}/{file_name}")
    if "/" in name or name.endswith((".txt", ".list", ".csv")):
        raise UserError(f"{name}: no such file")
    raise UserError(
        f"{name}: no such file, expected a text file with one exposure per line, s3://... or the "
        "name of a file at MAST such as "
        "jw02733001001_02101_00001_nrca1_uncal.fits"
    )


def find(targets: Iterable[str], s3: Any) -> Iterator[Found]:
    """Yield the exposures of all targets, each once."""
    known: set[S3Location] = set()
    for target in targets:
        for found in _from_list(target, s3) if _is_list(target) else _from_target(target, s3):
            if found.location not in known:
                known.add(found.location)
                yield found


def warnings(found: list[Found], stack: Stack, s3: Any) -> Iterator[str]:
    """Yield the reasons why requests will fail: unreadable buckets, missing objects."""
    names = stack.parameters.get("ReadBuckets", "").split(",")
    readable = {name.strip() for name in names} | {stack.output("RawBucket")}
    for bucket in sorted({item.location.bucket for item in found} - readable):
        yield f"s3://{bucket}: not a bucket that the stack reads; add it to ReadBuckets"
    problems = []
    for item in [item for item in found if item.size is None][:_CHECKED]:
        try:
            s3.head_object(**item.location.as_kwargs)
        except ClientError as exc:
            reason = (
                "no such object" if is_missing(exc) else f"cannot be checked ({error_code(exc)})"
            )
            problems.append(f"{item.location}: {reason}")
    yield from problems[:_SHOWN]
    if len(problems) > _SHOWN:
        yield f"{len(problems) - _SHOWN} more of the first {_CHECKED} named exposures likewise"


def digest_of_list(target: str) -> str | None:
    """Return the SHA-256 of a list's content; None if the target is not a list."""
    return hashlib.sha256(Path(target).read_bytes()).hexdigest() if _is_list(target) else None


def _is_list(target: str) -> bool:
    is_name = target.startswith("s3://") or target.endswith(_SUFFIX)
    return not is_name and Path(target).is_file()


def _from_list(path: str, s3: Any) -> Iterator[Found]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise UserError(f"{path}: not UTF-8 text, expected one exposure per line") from exc
    # Not splitlines(), which splits at characters that a key may contain.
    for number, raw in enumerate(text.split("\n"), 1):
        line = _COMMENT.sub("", raw).strip()
        if not line:
            continue
        if line.startswith("s3://") and not line.endswith(("/", _SUFFIX)):
            raise UserError(
                f"{path}, line {number}: {line}: expected *{_SUFFIX}, or a prefix that ends in /"
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
