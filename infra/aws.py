"""What a deployed stack is made of, so that nobody copies addresses by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError

from handler.ledger import Entry
from handler.s3.errors import failures_of, is_missing
from handler.s3.objects import S3Location, StoredObject, version_of
from infra.cli import UserError

__all__ = [
    "Stack",
    "catalogue_in",
    "find_stack",
    "job_in",
    "ledger_in",
    "listed",
    "listed_entries",
    "read_entry",
]


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
            answer = s3.get_object(**location.as_kwargs)
        except ClientError as exc:
            if is_missing(exc):
                return Entry()
            raise
    modified = answer["LastModified"].strftime("%Y-%m-%dT%H:%M:%SZ")
    stored = StoredObject(
        location, answer["ETag"], answer["ContentLength"], {}, version_of(answer), modified
    )
    return Entry.from_json(answer["Body"].read(), stored)


def ledger_in(bucket: str) -> S3Location:
    """Return where the ledger lies."""
    return S3Location(bucket, "dq_ledger")


def catalogue_in(bucket: str) -> S3Location:
    """Return where the catalogue of the archive lies."""
    return S3Location(bucket, "dq_catalogue")


def job_in(bucket: str, name: str) -> S3Location:
    """Return where a job is stored, by its name."""
    return S3Location(bucket, f"dq_backfills/{name}/job.jsonl.gz")


@dataclass(frozen=True)
class Stack:
    """A deployed stack.

    Attributes
    ----------
    name : str
        As `sam deploy` was given it.
    outputs, parameters : mapping of str to str
        By the names that the template gives them.
    """

    name: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]

    def output(self, name: str, kind: str = "") -> str:
        """Return an output; `kind` is what the names of the possible ones end with.

        Raises
        ------
        UserError
            If the stack has none of that name.
        """
        if not self.outputs:
            raise UserError(f"stack {self.name}: has no outputs, expected a deployed dq-init stack")
        if name not in self.outputs:
            known = " or ".join(sorted(known for known in self.outputs if known.endswith(kind)))
            raise UserError(f"stack {self.name}: has no output {name!r}, expected {known}")
        return self.outputs[name]

    @property
    def mirror(self) -> S3Location:
        """Where the stack reads its references.

        Raises
        ------
        UserError
            If the stack has no parameter MirrorBucket.
        """
        bucket = self.parameters.get("MirrorBucket")
        if bucket is None:
            raise UserError(
                f"stack {self.name}: has no parameter MirrorBucket; not a dq-init stack"
            )
        return S3Location(bucket, self.parameters.get("MirrorPrefix", "").removesuffix("/"))

    @property
    def output_prefix(self) -> str:
        """Key prefix of the products."""
        return self.parameters.get("OutputPrefix", "dq_init/")

    @property
    def science_encoding(self) -> str:
        """Of the products' science pixels."""
        return self.parameters.get("ScienceEncoding", "native")

    @property
    def requester_pays(self) -> list[str]:
        """Buckets whose requests the stack agrees to pay for."""
        return self.parameters.get("RequesterPaysBuckets", "").split(",")


def find_stack(name: str) -> Stack:
    """Look a stack up, in the account and region that boto3 reaches.

    Raises
    ------
    UserError
        If there is none of that name.
    """
    client = boto3.client("cloudformation")
    try:
        (found,) = client.describe_stacks(StackName=name)["Stacks"]
    except ClientError as exc:
        error = exc.response["Error"]
        if error["Code"] == "ValidationError" and "does not exist" in error["Message"]:
            raise UserError(f"no stack named {name} in {client.meta.region_name}") from exc
        raise UserError(f"stack {name}: {error['Message']}") from exc
    return Stack(name, _named(found, "Outputs", "Output"), _named(found, "Parameters", "Parameter"))


def _named(found: Any, field: str, prefix: str) -> dict[str, str]:
    items = found.get(field, [])
    return {item[f"{prefix}Key"]: item[f"{prefix}Value"] for item in items}
