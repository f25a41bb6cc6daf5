"""What lies in a stack's product bucket beside the products: prefixes that template.yaml names."""

from handler.s3.locations import S3Location

__all__ = ["catalogue_in", "job_in", "ledger_in"]


def ledger_in(bucket: str) -> S3Location:
    """Return where the ledger lies."""
    return S3Location(bucket, "dq_ledger")


def catalogue_in(bucket: str) -> S3Location:
    """Return where the catalogue of the archive lies."""
    return S3Location(bucket, "dq_catalogue")


def job_in(bucket: str, name: str) -> S3Location:
    """Return where a job is stored, by its name."""
    return S3Location(bucket, f"dq_backfills/{name}/job.jsonl.gz")
