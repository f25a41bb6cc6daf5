"""Buckets whose reading is paid by who reads: S3 answers only those who say that they know it.

Amazon S3 User Guide, "Using Requester Pays general purpose buckets".
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["agree_to_pay"]

_READS = ("HeadObject", "GetObject", "UploadPartCopy", "ListObjectsV2")


def agree_to_pay(s3: "S3Client", buckets: Collection[str]) -> None:
    """Have a client say with every read of these buckets that the requester pays.

    Parameters
    ----------
    s3 : boto3 S3 client
        The client; nothing else of it changes.
    buckets : collection of str
        Names.
    """

    def agree(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        source = params.get("CopySource")
        read = source["Bucket"] if isinstance(source, dict) else params.get("Bucket")
        return {**params, "RequestPayer": "requester"} if read in buckets else params

    for operation in _READS if buckets else ():
        s3.meta.events.register(f"provide-client-params.s3.{operation}", agree)  # type: ignore[arg-type]
