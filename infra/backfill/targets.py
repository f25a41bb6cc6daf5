"""Which exposures a person means: a prefix, an address, a name of the archive, a file of those."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.s3.locations import S3Location
from infra.listing import listed
from infra.terminal import Mistake

__all__ = ["ARCHIVE", "Found", "archive_location", "digest_of_list", "find"]

ARCHIVE = "stpubdata"
"""The public archive of JWST (registry.opendata.aws/jwst), free to read from us-east-1."""
_SUFFIX = "_uncal.fits"
_NAME = re.compile(r"(?:mast:JWST/product/)?((jw\d{5})(\d{6})_\S+_uncal\.fits)")


@dataclass(frozen=True)
class Found:
    """An exposure that is meant; its size where it was listed."""

    location: S3Location
    size: int | None


def archive_location(name: str) -> S3Location:
    """Return where the public archive keeps an exposure, by the name that MAST gives it.

    Raises
    ------
    Mistake
        If it is no such name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise Mistake(
            f"{name!r}: expected s3://..., or a name such as jw02733001001_..._uncal.fits"
        )
    file_name, program, visit = match.groups()
    return S3Location(ARCHIVE, f"jwst/public/{program}/{program}{visit}/{file_name}")


def find(words: Iterable[str], s3: Any) -> Iterator[Found]:
    """Find the exposures that the words mean, each once.

    Parameters
    ----------
    words : iterable of str
        ``s3://bucket/prefix``, ``s3://bucket/key_uncal.fits``, names of the archive, or files that
        hold such words line by line (``#`` begins a remark).
    s3 : boto3 S3 client
        Lists prefixes.

    Raises
    ------
    Mistake
        If a word means nothing.
    """
    known: set[S3Location] = set()
    for word in _words(words):
        for found in _meant(word, s3):
            if found.location not in known:
                known.add(found.location)
                yield found


def digest_of_list(word: str) -> str | None:
    """Return a digest of a list's content; None where a word names no list."""
    return hashlib.sha256(Path(word).read_bytes()).hexdigest() if _is_list(word) else None


def _is_list(word: str) -> bool:
    is_name = word.startswith("s3://") or word.endswith(_SUFFIX)
    return not is_name and Path(word).is_file()


def _words(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if not _is_list(word):
            yield word
            continue
        try:
            text = Path(word).read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            raise Mistake(f"{word}: expected a list of exposures, line by line: {exc}") from exc
        yield from (line for raw in text.splitlines() if (line := raw.split("#")[0].strip()))


def _meant(word: str, s3: Any) -> Iterator[Found]:
    if not word.startswith("s3://"):
        yield Found(archive_location(word), None)
        return
    try:
        place = S3Location.parse_prefix(word)
    except ValueError as exc:
        raise Mistake(str(exc)) from exc
    if word.endswith(_SUFFIX):
        yield Found(S3Location(place.bucket, place.key), None)
        return
    folder = f"{place.key}/" if word.endswith("/") and place.key else place.key
    for item in listed(s3, place.bucket, folder):
        if item["Key"].endswith(_SUFFIX):
            yield Found(S3Location(place.bucket, item["Key"]), item["Size"])
