"""The catalogue: a Parquet file with one row per ledger entry, that is, per product.

The file is replaced as a whole, on condition that no other writer replaced it (ETag). A row keeps
the ETag of its ledger entry, so an update reads only the entries that changed since the last one.
"""

import json
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from boto3.exceptions import Boto3Error
from s3transfer.exceptions import S3DownloadFailedError

from core.errors import TransientFailure
from core.product import NO_MASK
from handler.crds.lean_import import InvalidDatetimeError, timestamp
from handler.crds.parameters import UNDEFINED
from handler.event import ProcessingEvent
from handler.ledger import CatalogueRow, Entry
from handler.s3.errors import translate_errors
from handler.s3.objects import ObjectStore, S3Location
from infra.aws import list_entries, put_if_unchanged, read_entry
from infra.cli import UserError

log = logging.getLogger(__name__)

COLUMNS: Mapping[str, str] = {
    "product_bucket": "VARCHAR", "product_key": "VARCHAR", "product_version": "VARCHAR",
    "product_etag": "VARCHAR", "product_bytes": "BIGINT",
    "input_bucket": "VARCHAR", "input_key": "VARCHAR", "input_version": "VARCHAR",
    "input_etag": "VARCHAR", "input_bytes": "BIGINT",
    "instrument": "VARCHAR", "detector": "VARCHAR", "exposure_type": "VARCHAR",
    "subarray": "VARCHAR", "kind": "VARCHAR", "integrations": "INTEGER", "groups": "INTEGER",
    "rows": "INTEGER", "columns": "INTEGER", "observed": "VARCHAR", "parameters": "VARCHAR",
    "mask": "VARCHAR", "mask_sha1": "VARCHAR", "context": "VARCHAR", "planes_sha256": "VARCHAR",
    "pixels": "BIGINT", "do_not_use": "BIGINT", "flags": "VARCHAR",
    "requested_fields": "VARCHAR", "output_key": "VARCHAR", "software": "VARCHAR",
    "failure_error": "VARCHAR", "failure_reason": "VARCHAR", "failure_at": "VARCHAR",
    "entry_etag": "VARCHAR",
}  # fmt: skip
"""Name and type of every column, described in docs/how-to/reprocess.md."""

_FIXING = ("mask", "userSuppliedDq", "versionId")
"""Fields of requests whose products are not rebuilt for a new context."""
_EXPECTED = {
    "VARCHAR": "text",
    "BIGINT": "a 64-bit integer",
    "INTEGER": "a 32-bit integer",
    None: "text or a finite 64-bit number",  # of a parameter
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_FILE = "exposures.parquet"
_READERS = 16
_STRETCH = 20_000
"""Entries between two writes of the catalogue: an interruption loses at most these."""


def row_of(bucket: str, key: str, entry: Entry, etag: str) -> dict[str, Any]:
    """Return the row of the product at `bucket` and `key`."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"product_bucket": bucket, "product_key": key, "entry_etag": etag}
    if entry.result is not None:
        row |= _columns_of_result(entry.result)
    if entry.catalogue is not None:
        row |= columns_of_planes(entry.catalogue)
        requested = row["requested_fields"] or ""
        if entry.catalogue.pinned:  # a rebuilt ledger entry knows that, but not the request
            row["requested_fields"] = requested or "pinned"
        else:
            row["requested_fields"] = "versionId" if "versionId" in requested else ""
    if entry.failure is not None:
        for name in ("error", "reason", "at"):
            row[f"failure_{name}"] = getattr(entry.failure, name)
    return row


def _columns_of_result(result: ProcessingEvent) -> dict[str, Any]:
    """Return the columns that a result fills."""
    findings = result.findings
    request = findings.request or {}
    row: dict[str, Any] = {
        "software": result.function.version,
        "requested_fields": " ".join(name for name in _FIXING if name in request),
        "output_key": request.get("outputKey"),
    }
    for prefix, found in (("product", findings.output), ("input", findings.input)):
        if found is not None:
            row[f"{prefix}_version"] = found.version_id
            for name in ("bucket", "key", "etag", "bytes"):
                row[f"{prefix}_{name}"] = getattr(found, name)
    if (exposure := findings.exposure) is not None:
        for name in ("instrument", "detector", "exposure_type", "subarray", "kind"):
            row[name] = getattr(exposure, name)
        row |= zip(("integrations", "groups", "rows", "columns"), exposure.shape, strict=True)
    if (reference := findings.reference) is not None:
        row["mask"] = (reference.mask or NO_MASK).removeprefix("crds://")
        row["mask_sha1"] = reference.sha1 or ""
        row["context"] = reference.context
    if (flags := findings.flags) is not None:
        row["pixels"], row["do_not_use"] = flags.pixels, flags.do_not_use
        counts = {name: count.pixels for name, count in flags.by_mnemonic.items()}
        row["flags"] = json.dumps(counts, sort_keys=True)
    return row


def columns_of_planes(catalogue: CatalogueRow) -> dict[str, Any]:
    """Return the columns observed, parameters and planes_sha256 of a row."""
    parameters = dict(catalogue.parameters)
    # The date has its own column, so that exposures of one setting have equal parameters.
    date, time = (
        parameters.pop(f"META.OBSERVATION.{name}", UNDEFINED) for name in ("DATE", "TIME")
    )
    try:
        observed = str(timestamp.reformat_date(f"{date} {time}"))  # as CRDS compares dates
    except (InvalidDatetimeError, ValueError, LookupError):
        observed = ""
    return {
        "observed": observed,
        "parameters": json.dumps(parameters, sort_keys=True),
        "planes_sha256": catalogue.planes_sha256,
    }


def check_row(row: Mapping[str, Any]) -> None:
    """Raise ValueError if a value of a row, or one of its parameters, is not usable later."""
    for name, value in {**row, **json.loads(row["parameters"] or "{}")}.items():
        kind = COLUMNS.get(name)
        if value is not None and not _is_readable(value, kind):
            what = f"column {name}" if kind else f"parameter {name}"
            found = json.dumps(value)[:80]
            raise ValueError(f"{what}: found {found}, expected {_EXPECTED[kind]}")


def _is_readable(value: object, kind: str | None) -> bool:
    """Return whether a value fits a column of SQL type `kind` (None: a parameter in JSON)."""
    if isinstance(value, str):
        return kind in {"VARCHAR", None} and not _SURROGATE.search(value)
    if kind is None:
        return isinstance(value, int | float) and -(2**63) <= value < 2**63  # NaN is not
    limit = {"INTEGER": 2**31, "BIGINT": 2**63}.get(kind, 0)
    return type(value) is int and -limit <= value < limit


def quoted(text: str | Path) -> str:
    """Return a text or path as an SQL string; a quote in it is escaped."""
    escaped = str(text).replace("'", "''")
    return f"'{escaped}'"


def listing(path: Path, items: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """Write keys and unquoted ETags to a file; return an SQL expression of this table."""
    with path.open("w") as file:
        for key, item in items:
            file.write(json.dumps({"key": key, "etag": item["ETag"].strip('"')}) + "\n")
    return f"read_json({quoted(path)}, columns = {{key: 'VARCHAR', etag: 'VARCHAR'}})"


@contextmanager
def database(folder: Path, memory: str = "128MB") -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB database in memory, which spills into a folder beyond `memory`."""
    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{memory}'")
        connection.execute(f"SET temp_directory = {quoted(folder / 'spilled')}")
        connection.execute("SET threads = 2")
        connection.execute("SET preserve_insertion_order = false")
        yield connection


@dataclass
class Catalogue:
    """A local copy of the catalogue, and the DuckDB connection that reads it."""

    s3: Any
    location: S3Location  # prefix of the Parquet file in S3
    path: Path  # of the local copy
    connection: duckdb.DuckDBPyConnection
    # Of the catalogue in S3 when it was last read or written; None if it did not exist.
    etag: str | None = None
    # Entries that `update` could not use: reason by URI of the ledger entry.
    rejected: dict[str, str] = field(default_factory=dict)
    is_new: bool = False  # when opened, S3 had no catalogue that was readable and had these columns

    @classmethod
    @contextmanager
    def open(cls, s3: Any, location: S3Location) -> Iterator["Catalogue"]:
        """Download the catalogue into a temporary folder, which is deleted at the end."""
        with tempfile.TemporaryDirectory() as name, database(Path(name)) as connection:
            catalogue = cls(s3, location, Path(name) / _FILE, connection)
            catalogue._download()
            try:
                yield catalogue
            except duckdb.Error:
                catalogue._check()
                raise

    @property
    def table(self) -> str:
        """SQL expression that reads the rows."""
        return f"read_parquet({quoted(self.path)})"

    def count(self) -> tuple[int, int]:
        """Return the number of products, and of ledger entries whose last attempt failed."""
        counts: tuple[int, int] = self.connection.execute(
            f"SELECT count(product_etag), count(failure_error) FROM {self.table}"
        ).fetchall()[0]
        return counts

    def update(self, ledger: S3Location) -> Iterator[tuple[int, int]]:
        """Read new and changed entries of a ledger, drop deleted ones; yield done and total.

        Iterate to the end: it writes to S3 after every 20,000 entries and after the last. If
        another command replaced the catalogue, `TransientFailure`. `rejected` gets damaged entries.
        """
        entries = listing(self.path.with_name("ledger.jsonl"), list_entries(self.s3, ledger))
        new = self.connection.execute(
            f"SELECT key FROM {entries} AS e WHERE NOT EXISTS (SELECT 1 FROM {self.table} AS c "
            "WHERE c.product_key = e.key AND c.entry_etag = e.etag) ORDER BY key"
        ).fetchall()
        yield 0, len(new)
        rows = self.path.with_name("new.jsonl")
        for start in range(0, len(new), _STRETCH):
            keys = [key for (key,) in new[start : start + _STRETCH]]
            with ThreadPoolExecutor(_READERS) as pool, rows.open("w") as file:
                read = pool.map(lambda key: self._read(ledger, key), keys)
                for number, (key, row) in enumerate(zip(keys, read, strict=True), start + 1):
                    file.write(f"{json.dumps(row or {'product_key': key})}\n")
                    yield number, len(new)
            self._merge(rows, entries)
        deleted = self.connection.execute(
            f"SELECT 1 FROM {self.table} AS c WHERE NOT EXISTS "
            f"(SELECT 1 FROM {entries} AS e WHERE e.key = c.product_key) LIMIT 1"
        ).fetchall()
        if deleted or (self.is_new and not new):
            rows.write_text("")
            self._merge(rows, entries)

    def _download(self) -> None:
        """Copy the catalogue from S3, or begin an empty one if it is missing or unusable."""
        source = self.location.below(_FILE)
        if stored := ObjectStore(self.s3).find(source):
            self.etag = stored.etag
            try:
                with translate_errors(f"{source}: reading it", TransientFailure):
                    self.s3.download_file(source.bucket, source.key, str(self.path))
                found = self.connection.execute(f"FROM {self.table} LIMIT 0").description
            except (Boto3Error, S3DownloadFailedError) as exc:
                raise TransientFailure(f"{source}: reading it: {exc}; retry") from exc
            except duckdb.Error:
                log.warning("%s: damaged, expected Parquet; the next update rewrites it", source)
                found = []
            if [name for name, *_ in found] == [*COLUMNS]:
                return
        self.is_new = True
        # The next update reads the whole ledger.
        columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in COLUMNS.items())
        self.connection.execute(f"COPY (SELECT {columns} WHERE false) TO {quoted(self.path)}")

    def _check(self) -> None:
        """Raise `UserError` if the local copy cannot be read to its end."""
        try:
            self.connection.execute(f"SELECT max(hash(COLUMNS(*))) FROM {self.table}").fetchall()
        except duckdb.Error as exc:
            raise UserError(
                f"{self.location.below(_FILE)}: damaged ({exc}); delete it, then run reprocess "
                "catalogue"
            ) from exc

    def _read(self, ledger: S3Location, key: str) -> dict[str, Any] | None:
        """Read an entry, return its row; None if it was deleted, or added to `rejected`."""
        location = f"{ledger}/{key}.json"
        entry = read_entry(self.s3, ledger, S3Location(ledger.bucket, key))
        if entry.stored is None:
            return None
        expected = "expected the JSON that the function writes"
        if entry.result is None and entry.catalogue is None and entry.failure is None:
            self.rejected[location] = f"not a ledger entry, {expected}"
            return None
        try:
            row = row_of(ledger.bucket, key, entry, entry.stored.etag.strip('"'))
        except (ValueError, TypeError, AttributeError, KeyError) as exc:
            self.rejected[location] = f"damaged ({type(exc).__name__}: {exc}), {expected}"
            return None
        try:
            check_row(row)
        except ValueError as exc:
            self.rejected[location] = str(exc)
            return None
        return row

    def _merge(self, rows: Path, entries: str) -> None:
        """Replace rows by new ones, drop rows without a ledger entry, and upload the result.

        `entries` is the SQL table of the ledger. A new row with only its key removes the product's
        row. `TransientFailure` if another command replaced the catalogue in S3.
        """
        merged = self.path.with_name("merged.parquet")
        kinds = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
        new = f"read_json({quoted(rows)}, columns = {{{kinds}}})"
        names = ", ".join(COLUMNS)
        self.connection.execute(
            f"COPY (SELECT {names} FROM {self.table} AS c WHERE NOT EXISTS "
            f"(SELECT 1 FROM {new} AS n WHERE n.product_key = c.product_key) AND EXISTS "
            f"(SELECT 1 FROM {entries} AS e WHERE e.key = c.product_key) "
            f"UNION ALL SELECT {names} FROM {new} WHERE entry_etag IS NOT NULL "
            "ORDER BY instrument, detector, parameters) "
            f"TO {quoted(merged)} (FORMAT parquet, COMPRESSION zstd)"
        )
        merged.replace(self.path)
        target = self.location.below(_FILE)
        with self.path.open("rb") as file:
            self.etag = put_if_unchanged(self.s3, target, file, self.etag)
        if self.etag is None:
            raise TransientFailure(
                f"{target}: another command replaced it meanwhile; run the same command again"
            )
