"""What lies in a stack's product bucket beside the products: prefixes that template.yaml names."""

from handler.s3.locations import S3Location

__all__ = ["catalogue_in", "kept_in", "ledger_in"]


def ledger_in(bucket: str) -> S3Location:
    """Return where the ledger lies."""
    return S3Location(bucket, "dq_ledger")


def catalogue_in(bucket: str) -> S3Location:
    """Return where the catalogue of the archive lies."""
    return S3Location(bucket, "dq_catalogue")


def kept_in(bucket: str, campaign: str) -> S3Location:
    """Return where a campaign is kept, by its name."""
    return S3Location(bucket, f"dq_backfills/{campaign}")
