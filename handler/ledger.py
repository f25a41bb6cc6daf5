"""The ledger: one object per product, below LEDGER_URI. Storage, and nothing else.

s3://bucket/prefix/<the product's key>.json
    {"result": the processing event's detail, or null,
     "catalogue": what a CRDS rule may match on, the window, the digest of the planes, or null,
     "failure": how the last attempt to make it failed, or null}

It saves repeated events their announcement, tells why an exposure is unfinished, and is what an
archive is searched by. It can be made again from the products, so nothing that goes wrong here ever
fails an exposure.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from handler.event import ProcessingEvent
from handler.s3.errors import NETWORK
from handler.s3.objects import ObjectStore, S3Location, StoredObject
from handler.s3.write import Target, WriteConflict, put, unchanged

__all__ = ["CatalogueRow", "Entry", "Failure", "Ledger", "is_usable"]

log = logging.getLogger(__name__)

_LARGEST_ENTRY = 256 * 1024
_CONFLICTS = 3
"""How often an entry is tried to be written that others write at the same time."""
_LARGEST_INTEGER = 2**63
_PINNING = frozenset({"mask", "userSuppliedDq"})
"""Fields of a request that pin its product."""
_DIFFICULTIES = (TransientFailure, WriteConflict, ClientError, *NETWORK)


@dataclass(frozen=True)
class CatalogueRow:
    """What decides whether another context would make another product.

    Attributes
    ----------
    parameters : mapping
        Every parameter that a rule may match on and that the exposure has.
    window : tuple of int, or None
        SUBSTRT1, SUBSTRT2, SUBSIZE1, SUBSIZE2; None where the exposure does not say.
    planes_sha256 : str
        Of the data-quality image: its shape, which pixels are flagged, and how (big-endian uint32).
    pinned : bool
        Whether the request named the mask or user DQ (`handler.provenance.Provenance.pinned`).
    """

    parameters: Mapping[str, str | int | float | bool]
    window: tuple[int, int, int, int] | None
    planes_sha256: str
    pinned: bool = False

    @classmethod
    def from_plain(cls, row: Mapping[str, Any], request: Mapping[str, Any]) -> "CatalogueRow":
        """Read a row; one without ``pinned`` is pinned if the recorded request says so."""
        known = _known(cls, row)
        parameters = {name: value for name, value in row["parameters"].items() if is_usable(value)}
        pinned = bool(row.get("pinned", not _PINNING.isdisjoint(request)))
        return cls(**{**known, "parameters": parameters, "pinned": pinned})


def is_usable(value: object) -> bool:
    """Say whether a keyword's value can be written as JSON and searched by later.

    Floats must be finite, integers fit 64 bits, and text have printable characters only.
    """
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) < _LARGEST_INTEGER
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) and value.isprintable()


@dataclass(frozen=True)
class Failure:
    """How an attempt to make the product failed.

    Attributes
    ----------
    cause : str
        Who asked.
    error, reason : str
        Class of the exception, and its message.
    at : str
        ISO 8601, UTC.
    published : bool
        Whether its event is on the bus.
    """

    cause: str
    error: str
    reason: str
    at: str
    published: bool = False


@dataclass(frozen=True)
class Entry:
    """What is known of a product.

    Attributes
    ----------
    result : `~handler.event.ProcessingEvent` or None
        The last result that was announced.
    catalogue : `CatalogueRow` or None
        What the product depends on.
    failure : `Failure` or None
        How the last attempt failed, if it did.
    stored : `~handler.s3.objects.StoredObject` or None
        The object that it was read from.
    """

    result: ProcessingEvent | None = None
    catalogue: CatalogueRow | None = None
    failure: Failure | None = None
    stored: StoredObject | None = None

    def to_json(self) -> bytes:
        """Return the object's content."""
        content = {
            "result": self.result and self.result.to_detail(),
            "catalogue": self.catalogue and asdict(self.catalogue),
            "failure": self.failure and asdict(self.failure),
        }
        return json.dumps(content, allow_nan=False).encode()

    @classmethod
    def from_json(cls, content: bytes, stored: StoredObject) -> "Entry":
        """Read an object; fields of a newer release are ignored, and what is no entry is none."""
        try:
            data = json.loads(content)
            result, row, failure = (data[name] for name in ("result", "catalogue", "failure"))
            return cls(
                result and ProcessingEvent.from_detail(result),
                row and CatalogueRow.from_plain(row, (result or {}).get("request") or {}),
                failure and Failure(**_known(Failure, failure)),
                stored,
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log.warning("%s: is no entry of the ledger", stored.location, exc_info=True)
            return cls(stored=stored)


@dataclass(frozen=True)
class Ledger:
    """The entries below a prefix.

    Attributes
    ----------
    prefix : `~handler.s3.objects.S3Location` or None
        Where they are kept; None to keep none.
    """

    prefix: S3Location | None

    def read(self, product: S3Location, store: ObjectStore) -> Entry:
        """Return what is known of a product; nothing, where that cannot be read."""
        try:
            return self.entry(product, store)
        except _DIFFICULTIES:
            log.warning("%s: its entry cannot be read", product, exc_info=True)
            return Entry()

    def record(
        self, product: S3Location, etag: str | None, entry: Entry, store: ObjectStore
    ) -> None:
        """Write a result in place of the entry that it was made from.

        What others have written meanwhile is replaced only while the product with that entity tag
        is there: of two results the later one is remembered, whoever was faster to write.
        """

        def entries() -> Iterator[Entry]:
            yield entry
            while (now := store.find(product)) is not None and now.etag == etag:
                yield replace(entry, stored=self.entry(product, store).stored)

        self._write(product, entries(), store)

    def note(self, product: S3Location, failure: Failure, store: ObjectStore) -> None:
        """Write a failure beside the last result, which stays what it is."""

        def entries() -> Iterator[Entry]:
            while True:
                yield replace(self.entry(product, store), failure=failure)

        self._write(product, entries(), store)

    def _write(self, product: S3Location, entries: Iterator[Entry], store: ObjectStore) -> None:
        """Write the first of some entries that nobody else has written in place of."""
        try:
            for entry in islice(entries, _CONFLICTS):
                if self._is_put(product, entry, store):
                    return
        except _DIFFICULTIES:
            log.warning("%s: its entry cannot be written", product, exc_info=True)

    def _is_put(self, product: S3Location, entry: Entry, store: ObjectStore) -> bool:
        try:
            self._put(product, entry, store)
        except WriteConflict:
            return False
        return True

    def entry(self, product: S3Location, store: ObjectStore) -> Entry:
        """Return what is known of a product; nothing, where there is no entry.

        Raises
        ------
        TransientFailure, ClientError
            If it cannot be read.
        """
        if self.prefix is None:
            return Entry()
        try:
            with store.open(self._location(self.prefix, product), FileNotFoundError) as body:
                if body.described.size > _LARGEST_ENTRY:
                    return Entry(stored=body.described)
                return Entry.from_json(b"".join(body.pieces), body.described)
        except FileNotFoundError:
            return Entry()

    def _put(self, product: S3Location, entry: Entry, store: ObjectStore) -> None:
        if self.prefix is None:
            return
        location = self._location(self.prefix, product)
        condition = unchanged(entry.stored.etag if entry.stored else None)
        put(entry.to_json(), Target(location, {}, condition, "application/json"), store)

    @staticmethod
    def _location(prefix: S3Location, product: S3Location) -> S3Location:
        return prefix.below(f"{product.key}.json")


def _known(part: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(part) if field.name in data}
