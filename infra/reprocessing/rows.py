"""The rows of the catalogue: one for each product, as the ledger's entry tells of it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handler.event import ProcessingEvent
from handler.ledger import CatalogueRow, Entry
from handler.references.lean_crds import InvalidDatetimeError, timestamp
from handler.references.parameters import UNDEFINED

__all__ = ["COLUMNS", "EXPRESSLY", "check_row", "quoted", "row_of"]

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
