"""The rows of the catalogue: one for each product, as the ledger's entry tells of it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from handler.event import ProcessingEvent
from handler.ledger import CatalogueRow, Entry

__all__ = ["COLUMNS", "EXPRESSLY", "row_of"]

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
_PLAIN_DATE = re.compile(r"\d{4}-\d\d-\d\d")


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
    if entry.failure is not None:
        failure = entry.failure
        row |= {
            "failure_error": failure.error,
            "failure_reason": failure.reason,
            "failure_at": failure.at,
        }
    return row


def of_planes(catalogue: CatalogueRow) -> dict[str, Any]:
    """Return the columns that say what the planes depend on.

    The date and time of observation stand by themselves, so that exposures of one setting have the
    same parameters.
    """
    parameters = dict(catalogue.parameters)
    date, time = (str(parameters.pop(name, "")) for name in (_DATE, _TIME))
    return {
        "observed": f"{date} {time}".strip() if _PLAIN_DATE.fullmatch(date) else "",
        "parameters": json.dumps(parameters, sort_keys=True),
        "planes_sha256": catalogue.planes_sha256,
    }


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
