"""Having the ledger remember products that it has forgotten.

Only the function may write the ledger. Asked for a product that is there and as it should be, it
makes nothing: it reads the product's metadata, headers and flags, announces Complete, with the id
that the product had before, and writes the entry.
"""

from typing import Any

from handler.provenance import Provenance
from handler.requests import ExposureRequest
from handler.s3.locations import S3Location

__all__ = ["request_for"]

_DIGEST = "...sha256:"
"""What is recorded of a name that is too long."""


def request_for(product: S3Location, prefix: str, s3: Any) -> dict[str, str] | None:
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
        None where its metadata do not say all that was asked for: it is no product of ours, was
        made with user-supplied DQ, or a name was too long to be recorded.
    """
    metadata = s3.head_object(**product.address)["Metadata"]
    made = Provenance.from_metadata(metadata)
    if made is None or made.user_dq_etag or _DIGEST in f"{made.input_key}{made.mask}":
        return None
    request = {"bucket": made.input_bucket, "key": made.input_key, "context": made.crds_context}
    if made.mask.startswith("s3://"):
        request["mask"] = made.mask
    usual = ExposureRequest.from_direct(request).target(product.bucket, prefix)
    return request if usual == product else {**request, "outputKey": product.key}
