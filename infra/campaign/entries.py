"""Read ledger entries, so that one that may not be read is an error."""

from typing import Any

from botocore.exceptions import ClientError

from handler.ledger import Entry
from handler.s3.errors import failures_of, is_missing
from handler.s3.locations import S3Location, version_of
from handler.s3.objects import StoredObject

__all__ = ["read_entry"]


def read_entry(s3: Any, ledger: S3Location, product: S3Location) -> Entry:
    """Return what the ledger holds of a product; an empty entry if there is none.

    Raises
    ------
    TransientFailure
        If the ledger may not be read, or not now.
    """
    location = ledger.below(f"{product.key}.json")
    with failures_of(f"{location}: reading it"):
        try:
            answer = s3.get_object(**location.address)
        except ClientError as exc:
            if is_missing(exc):
                return Entry()
            raise
    modified = answer["LastModified"].strftime("%Y-%m-%dT%H:%M:%SZ")
    stored = StoredObject(
        location, answer["ETag"], answer["ContentLength"], {}, version_of(answer), modified
    )
    return Entry.from_json(answer["Body"].read(), stored)
