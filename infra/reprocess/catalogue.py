"""The catalogue: a Parquet file of all products, brought up to date from what is new in the ledger.

It is one object, replaced under the condition that it is still the one that was found. An entry is
known by its entity tag, so that what was read before is never read again, and whoever is cut off
goes on.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
from botocore.exceptions import ClientError

from core.errors import TransientFailure
from handler.crds.lean_import import InvalidDatetimeError, timestamp
from handler.crds.parameters import UNDEFINED
from handler.event import ProcessingEvent
from handler.ledger import CatalogueRow, Entry, Ledger
from handler.s3.errors import is_conflict, is_missing
from handler.s3.objects import S3Location
from handler.s3.write import unchanged
from infra.aws import listed_entries, read_entry

__all__ = [
    "COLUMNS",
    "EXPRESSLY",
    "Catalogue",
    "check_row",
    "database",
    "quoted",
    "row_of",
]

COLUMNS: Mapping[str, str] = {
    "product_bucket": "VARCHAR",
    "product_key": "VARCHAR",
    "product_version": "VARCHAR",
    "product_etag": "VARCHAR",
    "product_bytes": "BIGINT",
    "input_bucket": "VARCHAR",
    "input_key": "VARCHAR",
    "input_version": "VARCHAR",
    "input_etag": "VARCHAR",
    "input_bytes": "BIGINT",
    "instrument": "VARCHAR",
    "detector": "VARCHAR",
    "exposure_type": "VARCHAR",
    "subarray": "VARCHAR",
    "kind": "VARCHAR",
    "integrations": "INTEGER",
    "groups": "INTEGER",
    "rows": "INTEGER",
    "columns": "INTEGER",
    "observed": "VARCHAR",
    "parameters": "VARCHAR",
    "mask": "VARCHAR",
    "mask_sha1": "VARCHAR",
    "context": "VARCHAR",
    "planes_sha256": "VARCHAR",
    "pixels": "BIGINT",
    "do_not_use": "BIGINT",
    "flags": "VARCHAR",
    "expressly": "VARCHAR",
    "output_key": "VARCHAR",
    "software": "VARCHAR",
    "failure_error": "VARCHAR",
    "failure_reason": "VARCHAR",
    "failure_at": "VARCHAR",
    "entry_etag": "VARCHAR",
}
"""Name and type of every column; docs/reprocessing.md says what they mean."""

EXPRESSLY = ("mask", "userSuppliedDq", "versionId")
"""Fields of a request that name what would be chosen otherwise: such products are left alone."""
_DATE, _TIME = "META.OBSERVATION.DATE", "META.OBSERVATION.TIME"


def row_of(bucket: str, key: str, entry: Entry, etag: str) -> dict[str, Any]:
    """Return a row, ready for JSON; what is not known is None.

    Parameters
    ----------
    bucket, key : str
        Of the product.
    entry : `~handler.ledger.Entry`
        What is known of it.
    etag : str
        The entry's own tag: an entry of the same tag need not be read again.
    """
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"product_bucket": bucket, "product_key": key, "entry_etag": etag}
    if entry.result is not None:
        row |= _of_result(entry.result)
    if entry.catalogue is not None:
        row |= of_planes(entry.catalogue)
        row["expressly"] = _expressly(row["expressly"] or "", entry.catalogue)
    if entry.failure is not None:
        failure = entry.failure
        row |= {
            "failure_error": failure.error,
            "failure_reason": failure.reason,
            "failure_at": failure.at,
        }
    return row


def check_row(row: Mapping[str, Any]) -> None:
    """Refuse a row that DuckDB, FITS or CRDS could not read later.

    Raises
    ------
    ValueError
        If a value is not a finite number of 64 bits, or not text in UTF-8.
    """
    parameters = json.loads(row["parameters"] or "{}")
    named = {name: value for name, value in row.items() if name not in {"parameters", "flags"}}
    for name, value in (named | parameters).items():
        kind = COLUMNS.get(name)
        if isinstance(value, str):
            value.encode()  # a lone surrogate is a ValueError
        elif not (value is None or isinstance(value, int | float)):
            raise ValueError(f"{name} is a {type(value).__name__}, expected text or a number")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}, expected a finite number")
        elif value is not None and not -(2**63) <= value < 2**63:
            raise ValueError(f"{name} is beyond 64 bits")
        if value is None or kind is None:
            continue
        if kind != "VARCHAR" and type(value) is not int:
            raise ValueError(f"{name} is {value!r}, expected an integer")
        if kind == "INTEGER" and not -(2**31) <= value < 2**31:
            raise ValueError(f"{name} is {value}, expected 32 bits")
        if kind == "VARCHAR" and not isinstance(value, str):
            raise ValueError(f"{name} is {value!r}, expected text")


def _expressly(requested: str, catalogue: CatalogueRow) -> str:
    """Return the fields that the request named, corrected by whether the product is pinned."""
    if catalogue.pinned:
        return requested or "pinned"
    return " ".join(name for name in requested.split() if name == "versionId")


def of_planes(catalogue: CatalogueRow) -> dict[str, Any]:
    """Return the columns that say what the planes depend on.

    The date and time of observation stand by themselves, so that exposures of one setting have the
    same parameters.
    """
    parameters = dict(catalogue.parameters)
    date, time = (str(parameters.pop(name, UNDEFINED)) for name in (_DATE, _TIME))
    return {
        "observed": _moment(f"{date} {time}"),
        "parameters": json.dumps(parameters, sort_keys=True),
        "planes_sha256": catalogue.planes_sha256,
    }


def _moment(text: str) -> str:
    """Return date and time as CRDS compares them; empty text if CRDS cannot read them."""
    try:
        return str(timestamp.reformat_date(text))
    except (InvalidDatetimeError, ValueError, LookupError):
        return ""


def _of_result(result: ProcessingEvent) -> dict[str, Any]:
    findings, request = result.findings, result.findings.request or {}
    row: dict[str, Any] = {
        "software": result.function.version,
        "expressly": " ".join(name for name in EXPRESSLY if name in request),
        "output_key": request.get("outputKey"),
    }
    for name, found in (("product", findings.output), ("input", findings.input)):
        if found is not None:
            row |= {
                f"{name}_bucket": found.bucket,
                f"{name}_key": found.key,
                f"{name}_version": found.version_id,
                f"{name}_etag": found.etag,
                f"{name}_bytes": found.bytes,
            }
    if (exposure := findings.exposure) is not None:
        row |= {
            "instrument": exposure.instrument,
            "detector": exposure.detector,
            "exposure_type": exposure.exposure_type,
            "subarray": exposure.subarray,
            "kind": exposure.kind,
            **dict(zip(("integrations", "groups", "rows", "columns"), exposure.shape, strict=True)),
        }
    if (reference := findings.reference) is not None:
        row |= {
            "mask": (reference.mask or "N/A").removeprefix("crds://"),
            "mask_sha1": reference.sha1 or "",
            "context": reference.context,
        }
    if (flags := findings.flags) is not None:
        counts = {name: count.pixels for name, count in flags.by_mnemonic.items()}
        row |= {
            "pixels": flags.pixels,
            "do_not_use": flags.do_not_use,
            "flags": json.dumps(counts, sort_keys=True),
        }
    return row


def quoted(path: Path) -> str:
    """Return a path as a string of SQL: TMPDIR may hold a quote."""
    text = str(path).replace("'", "''")
    return f"'{text}'"


FILE = "exposures.parquet"
_AT_ONCE = 16
_STRETCH = 20_000
"""Entries after which the catalogue is written, so that being cut off costs no more."""


@contextmanager
def database(folder: Path, memory: str = "128MB") -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB that keeps to its memory, and what is too much in a folder."""
    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{memory}'")
        connection.execute(f"SET temp_directory = {quoted(folder / 'spilled')}")
        connection.execute("SET threads = 2")
        connection.execute("SET preserve_insertion_order = false")
        yield connection


@dataclass
class Catalogue:
    """The catalogue, with a copy on this machine.

    Attributes
    ----------
    s3 : boto3 S3 client
        How to reach it.
    place : `~handler.s3.objects.S3Location`
        The prefix below which it lies.
    path : `pathlib.Path`
        The copy.
    etag : str or None
        Of the object that was copied; None if there is none yet.
    rejected : dict of str to str
        Ledger entries that were skipped, and why.
    """

    s3: Any
    place: S3Location
    path: Path
    etag: str | None = None
    rejected: dict[str, str] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open(cls, s3: Any, place: S3Location) -> Iterator["Catalogue"]:
        """Fetch it; an empty one, where there is none."""
        with tempfile.TemporaryDirectory() as folder:
            found = cls(s3, place, Path(folder) / FILE)
            found._fetch()
            yield found

    def update(self, ledger: Ledger) -> Iterator[tuple[int, int]]:
        """Take in what is new in the ledger; yields how many entries are read, and of how many.

        Raises
        ------
        TransientFailure
            If somebody else has written the catalogue meanwhile.
        """
        with database(self.path.parent) as connection:
            new = self._new_entries(connection, ledger)
            yield 0, len(new)
            entries, done = iter(new), 0
            while some := list(islice(entries, _STRETCH)):
                for count in self._read(some, ledger):
                    yield done + count, len(new)
                done += len(some)
                self._merge(connection)
            if self._has_forgotten(connection):
                self._new_rows.write_text("")
                self._merge(connection)

    def _fetch(self) -> None:
        try:
            head = self.s3.head_object(**self.place.below(FILE).as_kwargs)
        except ClientError as exc:
            if not is_missing(exc):
                raise
            self._write_empty()
            return
        self.etag = head["ETag"]
        address = self.place.below(FILE)
        self.s3.download_file(address.bucket, address.key, str(self.path))

    def _write_empty(self) -> None:
        columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in COLUMNS.items())
        with database(self.path.parent) as connection:
            connection.execute(f"COPY (SELECT {columns} WHERE false) TO {quoted(self.path)}")

    def _new_entries(
        self, connection: duckdb.DuckDBPyConnection, ledger: Ledger
    ) -> list[tuple[str, str]]:
        """Products whose entry the catalogue does not know, and the entries' tags."""
        assert ledger.prefix is not None
        entries = listed_entries(self.s3, ledger.prefix)
        lines = ({"key": key, "etag": item["ETag"].strip('"')} for key, item in entries)
        _write_lines(self._listing, lines)
        return connection.execute(
            f"SELECT key, etag FROM {self._entries} AS l WHERE NOT EXISTS "
            f"(SELECT 1 FROM read_parquet({quoted(self.path)}) AS c "
            "WHERE c.product_key = l.key AND c.entry_etag = l.etag) ORDER BY key"
        ).fetchall()

    def _read(self, some: list[tuple[str, str]], ledger: Ledger) -> Iterator[int]:
        """Read entries, and write their rows into a file beside the copy; skip bad ones."""
        prefix = ledger.prefix
        assert prefix is not None

        def row(item: tuple[str, str]) -> dict[str, Any] | str:
            key, _ = item
            try:
                entry = read_entry(self.s3, prefix, S3Location(prefix.bucket, key))
                if entry.stored is None:
                    return ""  # deleted since it was listed
                if entry.result is None and entry.catalogue is None and entry.failure is None:
                    return "not a ledger entry"
                found = row_of(prefix.bucket, key, entry, entry.stored.etag.strip('"'))
                check_row(found)
            except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as exc:
                return f"cannot be used: {exc}"
            return found

        with ThreadPoolExecutor(_AT_ONCE) as reading, self._new_rows.open("w") as file:
            for count, (item, found) in enumerate(
                zip(some, reading.map(row, some), strict=True), 1
            ):
                if isinstance(found, dict):
                    file.write(f"{json.dumps(found)}\n")
                elif found:
                    self.rejected[f"{prefix}/{item[0]}.json"] = found
                yield count

    def _has_forgotten(self, connection: duckdb.DuckDBPyConnection) -> bool:
        """Whether a row's entry is not in the ledger any more."""
        return bool(
            connection.execute(
                f"SELECT 1 FROM read_parquet({quoted(self.path)}) AS c WHERE NOT EXISTS "
                f"(SELECT 1 FROM {self._entries} AS l WHERE l.key = c.product_key) LIMIT 1"
            ).fetchall()
        )

    def _merge(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Put the new rows in place of the old ones, and write the catalogue."""
        merged = self.path.with_name("merged.parquet")
        kinds = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
        names = ", ".join(COLUMNS)
        fresh = f"read_json({quoted(self._new_rows)}, columns = {{{kinds}}})"
        connection.execute(
            f"COPY (SELECT {names} FROM read_parquet({quoted(self.path)}) AS c WHERE NOT EXISTS "
            f"(SELECT 1 FROM {fresh} AS f WHERE f.product_key = c.product_key) AND EXISTS "
            f"(SELECT 1 FROM {self._entries} AS l WHERE l.key = c.product_key) "
            f"UNION ALL SELECT {names} FROM {fresh} ORDER BY instrument, detector, parameters) "
            f"TO {quoted(merged)} (FORMAT parquet, COMPRESSION zstd)"
        )
        merged.replace(self.path)
        self._store()

    def _store(self) -> None:
        with self.path.open("rb") as file:
            try:
                answer = self.s3.put_object(
                    **self.place.below(FILE).as_kwargs, Body=file, **unchanged(self.etag)
                )
            except ClientError as exc:
                if is_conflict(exc):
                    raise TransientFailure(
                        f"{self.place}: somebody else has written it meanwhile; try again"
                    ) from exc
                raise
        self.etag = answer["ETag"]

    @property
    def _new_rows(self) -> Path:
        return self.path.with_name("new.jsonl")

    @property
    def _listing(self) -> Path:
        return self.path.with_name("listing.jsonl")

    @property
    def _entries(self) -> str:
        return f"read_json({quoted(self._listing)}, columns = {{key: 'VARCHAR', etag: 'VARCHAR'}})"


def _write_lines(path: Path, items: Iterable[dict[str, Any]]) -> None:
    with path.open("w") as file:
        for item in items:
            file.write(f"{json.dumps(item)}\n")
