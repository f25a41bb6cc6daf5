"""The catalogue held against the products and exposures that there are."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.aws import listed
from infra.reprocess.catalogue import Catalogue, database, quoted

__all__ = ["Finding", "audit"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as the catalogue says.

    Attributes
    ----------
    product : str
        Its address.
    what : str
        What was found.
    is_forgotten : bool
        Whether only its entry of the ledger is missing.
    """

    product: str
    what: str
    is_forgotten: bool = False


def audit(catalogue: Catalogue, s3: Any, bucket: str, prefix: str) -> Iterator[Finding]:
    """Compare.

    Parameters
    ----------
    catalogue : `~infra.reprocess.catalogue.Catalogue`
        The catalogue.
    s3 : boto3 S3 client
        How to reach the buckets.
    bucket, prefix : str
        Where products lie.

    Yields
    ------
    `Finding`
        Products that the catalogue lacks (their ledger entry is gone: a direct request for the
        exposure writes it anew), products that are gone or others than it says, and exposures that
        were replaced since, or are gone.
    """
    with database(catalogue.path.parent) as connection:
        there = catalogue.path.with_name("products.jsonl")
        _list(s3, bucket, prefix, there)
        rows = (
            f"(SELECT * FROM read_parquet({quoted(catalogue.path)}) WHERE product_etag IS NOT NULL)"
        )
        for key, known, found in connection.execute(
            f"SELECT coalesce(c.product_key, t.key), trim(c.product_etag, '\"'), t.etag "
            f"FROM {rows} AS c FULL OUTER JOIN {_listed(there)} AS t ON c.product_key = t.key "
            "WHERE trim(c.product_etag, '\"') IS DISTINCT FROM t.etag ORDER BY 1"
        ).fetchall():
            is_forgotten = known is None
            yield Finding(f"s3://{bucket}/{key}", _of_product(known, found), is_forgotten)
        inputs = connection.execute(
            f"SELECT input_bucket, regexp_extract(input_key, '^(.*/)?', 0) AS folder FROM {rows} "
            "WHERE input_bucket IS NOT NULL GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        for input_bucket, folder in inputs:
            exposures = catalogue.path.with_name("exposures.jsonl")
            _list(s3, input_bucket, folder, exposures)
            for product, known, found in connection.execute(
                f"SELECT c.product_key, trim(c.input_etag, '\"'), t.etag FROM {rows} AS c "
                f"LEFT JOIN {_listed(exposures)} AS t ON c.input_key = t.key "
                "WHERE c.input_etag IS NOT NULL AND c.input_bucket = ? "
                "AND regexp_extract(c.input_key, '^(.*/)?', 0) = ? "
                "AND trim(c.input_etag, '\"') IS DISTINCT FROM t.etag ORDER BY 1",
                [input_bucket, folder],
            ).fetchall():
                gone = "its exposure is gone" if found is None else "its exposure was replaced"
                yield Finding(f"s3://{bucket}/{product}", f"{gone} (ETag {known}, now {found})")


def _of_product(known: str | None, found: str | None) -> str:
    if found is None:
        return f"is gone (ETag {known})"
    if known is None:
        return "is not in the catalogue: its entry of the ledger is gone, or not yet taken in"
    return f"is another product (ETag {known}, now {found})"


def _list(s3: Any, bucket: str, prefix: str, path: Path) -> None:
    """Write what lies below a prefix, line by line."""
    with path.open("w") as file:
        for item in listed(s3, bucket, prefix):
            line = {"key": item["Key"], "etag": item["ETag"].strip('"')}
            file.write(f"{json.dumps(line)}\n")


def _listed(path: Path) -> str:
    return f"read_json({quoted(path)}, columns = {{key: 'VARCHAR', etag: 'VARCHAR'}})"
