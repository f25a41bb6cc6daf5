"""Audit: a comparison of the catalogue with the products and exposures in S3."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.aws import listed
from infra.reprocess.catalogue import Catalogue, listing, quoted


@dataclass(frozen=True)
class Finding:
    """A difference between a product, its catalogue row and its exposure."""

    product: str  # S3 URI
    what: str  # the difference, a sentence without its subject
    is_forgotten: bool = False  # the product exists, but no row of the catalogue describes it


def audit(catalogue: Catalogue, s3: Any, bucket: str, prefix: str) -> Iterator[Finding]:
    """Yield a finding for each product below `prefix` that has changed or has no row.

    Changed: deleted, or replaced by another ETag. Another finding follows for each of these
    products whose exposure has changed. `bucket` has the products; `catalogue` is not updated.
    """
    rows = (
        f"(SELECT * FROM {catalogue.table} WHERE product_etag IS NOT NULL "
        f"AND starts_with(product_key, {quoted(prefix)}))"
    )
    products = _listing(catalogue, s3, bucket, prefix)
    for key, known, found in catalogue.connection.execute(
        f"SELECT coalesce(c.product_key, t.key), trim(c.product_etag, '\"'), t.etag "
        f"FROM {rows} AS c FULL OUTER JOIN {products} AS t ON c.product_key = t.key "
        "WHERE trim(c.product_etag, '\"') IS DISTINCT FROM t.etag ORDER BY 1"
    ).fetchall():
        if found is None:
            what = f"was deleted (ETag {known})"
        elif known is None:
            what = "is not in the catalogue: its ledger entry is missing, damaged or not read yet"
        else:
            what = f"is another product (ETag {found}, expected {known})"
        yield Finding(f"s3://{bucket}/{key}", what, is_forgotten=known is None)
    folder_of = "regexp_extract(input_key, '^(.*/)?', 0)"
    folders = catalogue.connection.execute(
        f"SELECT DISTINCT input_bucket, {folder_of} FROM {rows} WHERE input_bucket IS NOT NULL "
        "ORDER BY ALL"
    ).fetchall()
    for input_bucket in dict.fromkeys(bucket for bucket, _ in folders):
        own = [folder for bucket, folder in folders if bucket == input_bucket]
        exposures = _listing(catalogue, s3, input_bucket, *own)
        for key, known, found in catalogue.connection.execute(
            f"SELECT product_key, trim(input_etag, '\"'), t.etag FROM {rows} AS c "
            f"LEFT JOIN (SELECT DISTINCT * FROM {exposures}) AS t ON c.input_key = t.key "
            "WHERE input_etag IS NOT NULL AND input_bucket = ? "
            "AND trim(input_etag, '\"') IS DISTINCT FROM t.etag ORDER BY 1",
            [input_bucket],
        ).fetchall():
            what = f"its exposure was {'deleted' if found is None else 'replaced'}"
            etags = f"ETag {known}" if found is None else f"ETag {found}, expected {known}"
            yield Finding(f"s3://{bucket}/{key}", f"{what} ({etags})")


def _listing(catalogue: Catalogue, s3: Any, bucket: str, *prefixes: str) -> str:
    """Return an SQL table expression of the keys and ETags (unquoted) below prefixes."""
    items = ((item["Key"], item) for prefix in prefixes for item in listed(s3, bucket, prefix))
    return listing(catalogue.path.with_name("listing.jsonl"), items)
