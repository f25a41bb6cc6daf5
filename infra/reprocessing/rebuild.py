"""Having the ledger remember products that it has forgotten.

Only the function may write the ledger. Asked by the cause that made a product to look what became
of it, the function makes nothing: it reads the product's metadata, headers and flags, announces
Complete, with the id that the product had before, and writes the entry.
"""

from typing import Any

from botocore.exceptions import ClientError

from handler.provenance import Provenance
from handler.requests import ExposureRequest
from handler.s3.errors import failures_of, is_missing
from handler.s3.locations import S3Location, version_of

__all__ = ["request_for"]

_DIGEST = "...sha256:"
"""What is recorded of a name that is too long."""


def request_for(product: S3Location, prefix: str, s3: Any) -> dict[str, Any] | None:
    """Return the direct request that has a product remembered.

    Parameters
    ----------
    product : `~handler.s3.locations.S3Location`
        The product.
    prefix : str
        Key prefix of the products.
    s3 : boto3 S3 client
        How to reach it.

    Returns
    -------
    dict or None
        None where it is no product of ours, or its exposure's name was too long to be recorded.
    """
    metadata = s3.head_object(**product.address)["Metadata"]
    made = Provenance.from_metadata(metadata)
    if made is None or not made.cause or _DIGEST in made.input_key:
        return None
    asked = {"bucket": made.input_bucket, "key": made.input_key, "cause": made.cause, "look": True}
    source = S3Location(made.input_bucket, made.input_key)
    if made.input_version and made.input_version != _current_version(source, s3):
        asked["versionId"] = made.input_version
    usual = ExposureRequest.from_direct(asked).target(product.bucket, prefix)
    return asked if usual == product else {**asked, "outputKey": product.key}


def _current_version(source: S3Location, s3: Any) -> str | None:
    """Return the version that a request without ``versionId`` would read."""
    with failures_of(f"{source}: looking it up"):
        try:
            return version_of(s3.head_object(**source.address))
        except ClientError as exc:
            if is_missing(exc):
                return None
            raise
