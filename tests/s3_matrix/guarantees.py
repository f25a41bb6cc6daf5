"""The guarantees of S3 that the function relies on, each with a trial of it.

They are documented in the Amazon S3 API Reference (PutObject, UploadPartCopy,
CompleteMultipartUpload) and in the User Guide ("Conditional requests", "Checking object
integrity", "Multipart upload limits"). A trial uses the function's own requests if there are any.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from botocore.exceptions import ClientError

from handler.s3.errors import CONFLICTS, error_code
from handler.s3.objects import ObjectStore, S3Location, StoredObject
from handler.s3.write import ABSENT, Target, crc32_of, multipart, unchanged
from handler.s3.write import put as put_object

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["GUARANTEES", "Guarantee", "Scratch", "tried"]

MIB = 1024 * 1024
ODD_KEY = "a b+c %d/ü_uncal.fits"
_CONTENT = os.urandom(MIB) * 11
"""Of an object whose ranges may be copied: more than 5 MB."""
_COPIED = 6 * MIB
_TAIL = b"the last part may be short"
_RACERS = 4


@dataclass
class Scratch:
    """A key prefix for trials; everything below it is removed at the end."""

    prefix: S3Location
    client: "S3Client"
    _keys: set[str] = field(default_factory=set)

    @property
    def store(self) -> ObjectStore:
        """The function's access to S3."""
        return ObjectStore(self.client)

    def new(self, name: str = "") -> S3Location:
        """Return a key that has no object."""
        location = self.prefix.below(name or uuid.uuid4().hex)
        self._keys.add(location.key)
        return location

    def put(self, content: bytes = b"first", name: str = "", **more: Any) -> StoredObject:
        """Write an object and describe it."""
        location = self.new(name)
        self.client.put_object(**location.as_kwargs, Body=content, **more)
        return self.describe(location)

    def describe(self, location: S3Location) -> StoredObject:
        """Describe an object."""
        return self.store.describe(location, FileNotFoundError)

    def read(self, location: S3Location) -> bytes:
        """Read an object."""
        return self.client.get_object(**location.as_kwargs)["Body"].read()

    def remove(self) -> None:
        """Remove every version of the objects that were written."""
        for key in sorted(self._keys):
            self.client.delete_object(Bucket=self.prefix.bucket, Key=key)
        found = self.client.list_object_versions(
            Bucket=self.prefix.bucket, Prefix=f"{self.prefix.key}/"
        )
        for item in [*found.get("Versions", []), *found.get("DeleteMarkers", [])]:
            self.client.delete_object(
                Bucket=self.prefix.bucket, Key=item["Key"], VersionId=item["VersionId"]
            )


@dataclass(frozen=True)
class Guarantee:
    """A guarantee, the consequence if it is not kept, and a trial."""

    name: str
    otherwise: str
    is_kept: Callable[[Scratch], bool]


def _refused(call: Callable[[], object], *codes: str) -> bool:
    """Return whether S3 refuses a request with one of some error codes."""
    try:
        call()
    except Exception as exc:
        answer = exc if isinstance(exc, ClientError) else exc.__cause__  # of the function's errors
        if isinstance(answer, ClientError) and error_code(answer) in codes:
            return True
        raise
    return False


_FAILED = ("412", "PreconditionFailed")
_STALE = '"0123456789abcdef0123456789abcdef"'
"""An ETag that no object has."""


def _write(location: S3Location, condition: Mapping[str, str], scratch: Scratch) -> None:
    put_object(b"second", Target(location, {}, condition), scratch.store)


def _creates_only(scratch: Scratch) -> bool:
    there = scratch.put().location
    return _refused(lambda: _write(there, ABSENT, scratch), *_FAILED)


def _replaces_only(scratch: Scratch) -> bool:
    there = scratch.put()
    _write(there.location, unchanged(there.etag), scratch)
    return _refused(lambda: _write(there.location, unchanged(there.etag), scratch), *_FAILED)


def _replaces_nothing(scratch: Scratch) -> bool:
    condition = unchanged(_STALE)
    return _refused(lambda: _write(scratch.new(), condition, scratch), *_FAILED, "404", "NoSuchKey")


def _source(scratch: Scratch) -> StoredObject:
    return scratch.put(_CONTENT)


def _assemble(
    scratch: Scratch, source: StoredObject, target: Target, first: int = 5, etag: str = ""
) -> None:
    """Assemble an object from a copied byte range and an uploaded part."""
    with multipart(target, scratch.store) as upload:
        copied = upload.copy(1, source.location, etag or source.etag, first, _COPIED)
        upload.complete([copied, upload.put(2, _TAIL)], _COPIED + len(_TAIL))


def _target(scratch: Scratch) -> Target:
    return Target(scratch.new(), {}, ABSENT)


def _completes_only(scratch: Scratch) -> bool:
    there = scratch.put().location
    target = Target(there, {}, ABSENT)
    return _refused(lambda: _assemble(scratch, _source(scratch), target), *CONFLICTS)


def _completes_in_place_of(scratch: Scratch) -> bool:
    there = scratch.put()
    _write(there.location, unchanged(there.etag), scratch)
    target = Target(there.location, {}, unchanged(there.etag))
    return _refused(lambda: _assemble(scratch, _source(scratch), target), *CONFLICTS)


def _reads_ranges(scratch: Scratch) -> bool:
    there = scratch.put(b"0123456789")
    stale = replace(there, etag=_STALE)
    is_right = scratch.store.read(there, 3, 4) == b"3456"
    return is_right and _refused(lambda: scratch.store.read(stale, 3, 4), *_FAILED)


def _copies_ranges(scratch: Scratch) -> bool:
    target = _target(scratch)
    _assemble(scratch, _source(scratch), target, first=77)
    return scratch.read(target.location) == _CONTENT[77 : 77 + _COPIED] + _TAIL


def _pins_copies(scratch: Scratch) -> bool:
    source, target = _source(scratch), _target(scratch)
    return _refused(lambda: _assemble(scratch, source, target, etag=_STALE), *_FAILED)


def _refuses_short_parts(scratch: Scratch) -> bool:
    def assemble() -> None:
        with multipart(_target(scratch), scratch.store) as upload:
            upload.complete([upload.put(1, b"short"), upload.put(2, _TAIL)], 5 + len(_TAIL))

    return _refused(assemble, "EntityTooSmall")


def _sums_the_whole(scratch: Scratch) -> bool:
    target = _target(scratch)
    _assemble(scratch, _source(scratch), target, first=0)
    return scratch.describe(target.location).crc32 == crc32_of([_CONTENT[:_COPIED], _TAIL])


def _refuses_damage(scratch: Scratch) -> bool:
    def put() -> None:
        scratch.put(b"damaged", ChecksumCRC32=crc32_of([b"whole"]))

    return _refused(put, "BadDigest", "InvalidRequest", "XAmzContentChecksumMismatch")


def _keeps_metadata(scratch: Scratch) -> bool:
    metadata = {"input-key": quote(ODD_KEY), "cause": "c" * 1500}
    target = Target(scratch.new(), metadata, ABSENT)
    _assemble(scratch, _source(scratch), target)
    return scratch.describe(target.location).metadata == metadata


def _takes_any_key(scratch: Scratch) -> bool:
    there = scratch.put(b"odd", ODD_KEY)
    return scratch.read(there.location) == b"odd"


def _forgets_aborted_uploads(scratch: Scratch) -> bool:
    with suppress(_Aborted), multipart(_target(scratch), scratch.store) as upload:
        upload.put(1, _TAIL)
        raise _Aborted
    address = {**upload.target.location.as_kwargs, "UploadId": upload.upload_id}
    return _refused(
        lambda: scratch.client.list_parts(**address), "NoSuchUpload", "NoSuchKey", "404"
    )


class _Aborted(Exception):
    """Raised to abort an upload."""


def _keeps_versions(scratch: Scratch) -> bool:
    there = scratch.put()
    _write(there.location, unchanged(there.etag), scratch)
    if there.version_id is None:
        return False
    return scratch.read(replace(there.location, version_id=there.version_id)) == b"first"


def _has_one_winner(write: Callable[[Scratch, Target], None]) -> Callable[[Scratch], bool]:
    """Return a trial in which several write to one key at once, and one succeeds."""

    def is_kept(scratch: Scratch) -> bool:
        target = _target(scratch)
        with ThreadPoolExecutor(_RACERS) as racers:
            racing = [
                racers.submit(_refused, lambda: write(scratch, target), *CONFLICTS)
                for _ in range(_RACERS)
            ]
            return [future.result() for future in racing].count(False) == 1

    return is_kept


def _put_target(scratch: Scratch, target: Target) -> None:
    put_object(uuid.uuid4().bytes, target, scratch.store)


def _assemble_target(scratch: Scratch, target: Target) -> None:
    _assemble(scratch, _source(scratch), target)


_LOST = "of two products written at once, one is lost without a failure"
GUARANTEES = (
    Guarantee("PUT with If-None-Match creates, and never replaces", _LOST, _creates_only),
    Guarantee("PUT with If-Match replaces only what was found", _LOST, _replaces_only),
    Guarantee("PUT with If-Match creates nothing", _LOST, _replaces_nothing),
    Guarantee("completion with If-None-Match never replaces", _LOST, _completes_only),
    Guarantee(
        "completion with If-Match replaces only what was found", _LOST, _completes_in_place_of
    ),
    Guarantee("of concurrent PUTs one succeeds", _LOST, _has_one_winner(_put_target)),
    Guarantee("of concurrent completions one succeeds", _LOST, _has_one_winner(_assemble_target)),
    Guarantee(
        "a read with If-Match returns only the object that was found",
        "headers of two versions of an exposure are mixed",
        _reads_ranges,
    ),
    Guarantee(
        "UploadPartCopy copies a byte range", "products of 5 MB and more are wrong", _copies_ranges
    ),
    Guarantee(
        "CopySourceIfMatch copies only the object that was found",
        "a replaced input is found only by the check before completion",
        _pins_copies,
    ),
    Guarantee(
        "parts of less than 5 MiB are refused",
        "no consequence; no part of ours is shorter",
        _refuses_short_parts,
    ),
    Guarantee(
        "the CRC-32 of a whole object is known, including copied parts",
        "a block is checked by its recorded CRC-32 only",
        _sums_the_whole,
    ),
    Guarantee(
        "a body with another CRC-32 is refused",
        "bytes damaged in transfer are stored",
        _refuses_damage,
    ),
    Guarantee(
        "2 KB of metadata are returned unchanged",
        "the provenance of products is lost",
        _keeps_metadata,
    ),
    Guarantee("every key is accepted", "exposures with unusual names fail", _takes_any_key),
    Guarantee(
        "an aborted upload is removed",
        "parts of failed uploads are paid for",
        _forgets_aborted_uploads,
    ),
    Guarantee(
        "replaced versions can be read (versioning is on)",
        "a replaced product is lost; two writes within a second count as one result",
        _keeps_versions,
    ),
)


def tried(scratch: Scratch) -> Iterator[tuple[Guarantee, bool, str]]:
    """Yield each guarantee, whether it is kept, and the error of its trial."""
    for guarantee in GUARANTEES:
        try:
            yield guarantee, guarantee.is_kept(scratch), ""
        except Exception as exc:  # servers fail in various ways; the caller prints it
            yield guarantee, False, f"{type(exc).__name__}: {exc}"
