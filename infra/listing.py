"""What lies below a prefix of a bucket. The function itself lists nothing."""

from collections.abc import Iterator
from typing import Any

from handler.s3.errors import failures_of
from handler.s3.locations import S3Location

__all__ = ["listed", "listed_entries"]


def listed(s3: Any, bucket: str, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Yield what S3 says of every object (Key, Size, ETag, LastModified), page by page.

    Raises
    ------
    TransientFailure
        If the bucket may not be listed, or not now.
    """
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    with failures_of(f"s3://{bucket}/{prefix}: listing it"):
        for page in pages:
            yield from page.get("Contents", [])


def listed_entries(
    s3: Any, ledger: S3Location, common: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the product's key of every entry of a ledger, and what S3 says of the entry.

    Where an entry lies is `handler.ledger.Ledger`'s affair; `common` is what the keys of all
    products begin with that are asked for.
    """
    start = f"{ledger.key}/"
    for item in listed(s3, ledger.bucket, f"{start}{common}"):
        yield item["Key"].removeprefix(start).removesuffix(".json"), item
