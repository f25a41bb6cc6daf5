"""The ledger: one object per product, below LEDGER_URI.

s3://bucket/prefix/<the product's key>.json
    {"result": the last processing event's detail, or null,
     "catalogue": rule parameters, window and digest of the planes, or null,
     "failure": how the last attempt failed, or null}

It can be rebuilt from the products, so a failure to read or write it never fails an exposure.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from handler.event import ProcessingEvent
from handler.s3.errors import NETWORK, is_archived
from handler.s3.objects import ObjectStore, S3Location, StoredObject
from handler.s3.write import Target, WriteConflict, put, unchanged

log = logging.getLogger(__name__)

_LARGEST_ENTRY = 256 * 1024
_ATTEMPTS = 3  # to write an entry that others write at the same time
_LARGEST_INTEGER = 2**63
_PINNING = frozenset({"mask", "userSuppliedDq"})  # fields of a request that pin its product


@dataclass(frozen=True)
class CatalogueRow:
    """Everything that decides whether another context would give another product."""

    parameters: Mapping[str, str | int | float | bool]  # that a MASK rule may match on
    # SUBSTRT1, SUBSTRT2, SUBSIZE1, SUBSIZE2; None if one is missing or invalid.
    window: tuple[int, int, int, int] | None
    planes_sha256: str  # shape, indices and values of flagged pixels (big-endian uint32)
    pinned: bool = False

    @classmethod
    def from_plain(cls, row: Mapping[str, Any], request: Mapping[str, Any]) -> "CatalogueRow":
        """Return the row in an entry's JSON, without parameters that are not `is_usable`.

        If the row lacks ``pinned``, it is pinned if `request`, a direct request, names a mask or
        user DQ.
        """
        parameters = {name: value for name, value in row["parameters"].items() if is_usable(value)}
        pinned = bool(row.get("pinned", not _PINNING.isdisjoint(request)))
        return cls(**{**_known(cls, row), "parameters": parameters, "pinned": pinned})


def is_usable(value: object) -> bool:
    """Say whether a keyword's value can be kept as JSON and in a column of the catalogue."""
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) < _LARGEST_INTEGER
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) and value.isprintable()


@dataclass(frozen=True)
class Failure:
    """A failed attempt to process a request, as the ledger keeps it."""

    cause: str
    error: str  # class of the exception
    reason: str
    at: str  # ISO 8601, UTC
    published: bool = False  # whether its event is on the bus


@dataclass(frozen=True)
class Entry:
    """The ledger's entry of a product: last Complete event, catalogue row, last failure."""

    result: ProcessingEvent | None = None  # the last Complete event that was published
    catalogue: CatalogueRow | None = None
    failure: Failure | None = None  # the last one; None after a product was built or kept
    stored: StoredObject | None = None  # the object that holds the entry

    def to_json(self) -> bytes:
        """Return the entry as JSON, the content of its S3 object."""
        content = {
            "result": self.result and self.result.to_detail(),
            "catalogue": self.catalogue and asdict(self.catalogue),
            "failure": self.failure and asdict(self.failure),
        }
        return json.dumps(content, allow_nan=False).encode()

    @classmethod
    def from_json(cls, content: bytes, stored: StoredObject) -> "Entry":
        """Return the entry in an object's content; an empty one, and a warning, if damaged."""
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
            log.warning("%s: not a ledger entry, ignored", stored.location, exc_info=True)
            return cls(stored=stored)


@dataclass(frozen=True)
class Ledger:
    """The ledger's entries, below a key prefix; with None, nothing is read or written."""

    prefix: S3Location | None

    def read(self, product: S3Location, store: ObjectStore) -> Entry:
        """Return the entry of a product; an empty one if it is missing or cannot be read."""
        with _tolerated(f"{product}: cannot read its ledger entry"):
            return self.entry(product, store)
        return Entry()

    def entry(self, product: S3Location, store: ObjectStore) -> Entry:
        """Return the entry of a product, empty if missing or damaged; raise errors of S3."""
        if self.prefix is None:
            return Entry()
        location = self.prefix.below(f"{product.key}.json")
        try:
            reader = store.begin(location, _LARGEST_ENTRY, FileNotFoundError)
        except FileNotFoundError as exc:
            # An archived entry cannot be read, but is replaced.
            return Entry(stored=store.find(location) if is_archived(exc.__cause__) else None)
        stored = reader.described
        if stored.size > _LARGEST_ENTRY:
            return Entry(stored=stored)
        return Entry.from_json(reader.read(0, stored.size), stored)

    def record(
        self, product: S3Location, etag: str | None, entry: Entry, store: ObjectStore
    ) -> None:
        """Write the entry of a product; only log errors of S3.

        If another writer has replaced `entry.stored`, the new one is replaced only while the
        product has the ETag `etag`. Three conflicts end the attempts.
        """
        with _tolerated(f"{product}: cannot write its ledger entry"):
            for _ in range(_ATTEMPTS):
                if self._is_put(product, entry, store):
                    return
                # Another writer was faster. Its entry is replaced only while the product with this
                # ETag exists, so that the entry describes the current product.
                now = store.find(product)
                if now is None or now.etag != etag:
                    return
                entry = replace(entry, stored=self.entry(product, store).stored)
            _log_conflicts(product)

    def record_failure(self, product: S3Location, failure: Failure, store: ObjectStore) -> None:
        """Write a failure into the entry, which keeps its last result; only log errors of S3.

        An unpublished one is not written if another attempt of the same cause has left a result.
        """
        with _tolerated(f"{product}: cannot write its ledger entry"):
            for _ in range(_ATTEMPTS):
                entry = self.entry(product, store)
                is_over = entry.result is not None and entry.result.cause == failure.cause
                if is_over and not failure.published:
                    return
                if self._is_put(product, replace(entry, failure=failure), store):
                    return
            _log_conflicts(product)

    def _is_put(self, product: S3Location, entry: Entry, store: ObjectStore) -> bool:
        if self.prefix is None:
            return True
        location = self.prefix.below(f"{product.key}.json")
        condition = unchanged(entry.stored.etag if entry.stored else None)
        try:
            put(entry.to_json(), Target(location, {}, condition, "application/json"), store)
        except WriteConflict:
            return False
        return True


def _log_conflicts(product: S3Location) -> None:
    log.warning(
        "%s: its ledger entry is not written: %d attempts failed or met another writer",
        *(product, _ATTEMPTS),
    )


@contextmanager
def _tolerated(message: str) -> Iterator[None]:
    try:
        yield
    except (TransientFailure, ClientError, *NETWORK):
        log.warning(message, exc_info=True)


def _known(part: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(part) if field.name in data}
