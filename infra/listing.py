"""What lies below a prefix of a bucket. The function itself lists nothing."""

from collections.abc import Iterator
from typing import Any

__all__ = ["listed"]


def listed(s3: Any, bucket: str, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Yield what S3 says of every object (Key, Size, ETag, LastModified), page by page."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        yield from page.get("Contents", [])
