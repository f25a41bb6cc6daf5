"""Find the exposures of a backfill: a prefix, a key, a name of the archive, a list of those."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from handler.s3.errors import code_of, is_missing
from handler.s3.objects import S3Location
from infra.aws import Stack, listed
from infra.cli import UserError

__all__ = ["ARCHIVE", "Found", "archive_location", "digest_of_list", "find", "warnings"]

ARCHIVE = "stpubdata"
"""The public archive of JWST (registry.opendata.aws/jwst), free to read from us-east-1."""
_SUFFIX = "_uncal.fits"
_NAME = re.compile(r"(?:mast:JWST/product/)?((jw\d{5})(\d{6})_\S+_uncal\.fits)")
_REMARK = re.compile(r"(^|\s)#.*")
"""A remark begins a line or follows a blank: ``#`` is an ordinary character of a key."""
_CHECKED, _SHOWN = 100, 5
"""Named exposures whose existence is checked before they are sent; those shown one by one."""


@dataclass(frozen=True)
class Found:
    """An exposure; its size if it was listed."""

    location: S3Location
    size: int | None


def archive_location(name: str) -> S3Location:
    """Return where the public archive keeps an exposure, by the name that MAST gives it.

    Raises
    ------
    UserError
        If it is not such a name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        if "/" in name or name.endswith((".txt", ".list", ".csv")):
            raise UserError(f"{name}: no such file")
        raise UserError(
            f"{name}: no such file, and neither s3://... nor a name such as "
            "jw02733001001_02101_00001_nrca1_uncal.fits"
        )
    file_name, program, visit = match.groups()
    return S3Location(ARCHIVE, f"jwst/public/{program}/{program}{visit}/{file_name}")


def find(words: Iterable[str], s3: Any) -> Iterator[Found]:
    """Find the exposures that the words mean, each once.

    Parameters
    ----------
    words : iterable of str
        ``s3://bucket/prefix``, ``s3://bucket/key_uncal.fits``, names of the archive, or files that
        hold one exposure, or one prefix that ends in ``/``, per line.
    s3 : boto3 S3 client
        Lists prefixes.

    Raises
    ------
    UserError
        If a word means nothing; it names the line of a file.
    """
    known: set[S3Location] = set()
    for word in words:
        for found in _of_list(word, s3) if _is_list(word) else _meant(word, s3):
            if found.location not in known:
                known.add(found.location)
                yield found


def warnings(found: list[Found], stack: Stack, s3: Any) -> Iterator[str]:
    """Yield what will make requests fail: buckets that the stack does not read, missing keys."""
    named = stack.parameters.get("ReadBuckets", "").split(",")
    readable = {bucket.strip() for bucket in named} | {stack.output("RawBucket")}
    for bucket in sorted({item.location.bucket for item in found} - readable):
        yield f"s3://{bucket}: not a bucket that the stack reads; add it to ReadBuckets"
    problems = []
    for item in [item for item in found if item.size is None][:_CHECKED]:
        try:
            s3.head_object(**item.location.as_kwargs)
        except ClientError as exc:
            reason = "no such object" if is_missing(exc) else f"cannot be checked ({code_of(exc)})"
            problems.append(f"{item.location}: {reason}")
    yield from problems[:_SHOWN]
    if len(problems) > _SHOWN:
        yield f"{len(problems) - _SHOWN} more of the first {_CHECKED} named exposures likewise"


def digest_of_list(word: str) -> str | None:
    """Return a digest of a list's content; None if the word does not name a list."""
    return hashlib.sha256(Path(word).read_bytes()).hexdigest() if _is_list(word) else None


def _is_list(word: str) -> bool:
    is_name = word.startswith("s3://") or word.endswith(_SUFFIX)
    return not is_name and Path(word).is_file()


def _of_list(path: str, s3: Any) -> Iterator[Found]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise UserError(f"{path}: not UTF-8 text, expected one exposure per line") from exc
    # Only line feeds end a line: str.splitlines would split at characters that a key may hold.
    for number, raw in enumerate(text.split("\n"), 1):
        line = _REMARK.sub("", raw).strip()
        if not line:
            continue
        if line.startswith("s3://") and not line.endswith(("/", _SUFFIX)):
            raise UserError(
                f"{path}, line {number}: {line}: expected *{_SUFFIX}, or a prefix that ends in /"
            )
        try:
            yield from _meant(line, s3)
        except UserError as exc:
            raise UserError(f"{path}, line {number}: {exc}") from exc


def _meant(word: str, s3: Any) -> Iterator[Found]:
    if not word.startswith("s3://"):
        yield Found(archive_location(word), None)
        return
    try:
        if word.endswith(_SUFFIX):
            yield Found(S3Location.parse(word), None)
            return
        bucket, _, prefix = word.removeprefix("s3://").partition("/")
        S3Location.parse_prefix(f"s3://{bucket}")
    except ValueError as exc:
        raise UserError(str(exc)) from exc
    try:
        for item in listed(s3, bucket, prefix):
            if item["Key"].endswith(_SUFFIX):
                yield Found(S3Location(bucket, item["Key"]), item["Size"])
    except ClientError as exc:
        if code_of(exc) == "NoSuchBucket":
            raise UserError(f"s3://{bucket}: no such bucket") from exc
        raise
