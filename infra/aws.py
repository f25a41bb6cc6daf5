"""Calls to S3 and CloudFormation that the commands share.

The Lambda functions of infra/mirror.yaml import this module: it must not need rich or duckdb.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import boto3
from botocore.exceptions import ClientError

from core.product import Form
from handler.ledger import Entry, Ledger
from handler.s3.errors import NO_BUCKET, error_code, is_conflict, is_missing, translate_errors
from handler.s3.objects import ObjectStore, S3Location
from handler.s3.write import unchanged
from handler.settings import bucket_names
from infra.cli import UserError


def listed(s3: Any, bucket: str, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Yield Key, Size, ETag and LastModified of each object whose key begins with `prefix`."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    with translate_errors(f"s3://{bucket}/{prefix}: listing it"):
        try:
            for page in pages:
                yield from page.get("Contents", [])
        except ClientError as exc:
            _check_bucket(exc, bucket)
            raise


def read_object(s3: Any, location: S3Location) -> tuple[bytes, str] | None:
    """Return the content and the ETag (with quotes) of an object; None if it does not exist."""
    with translate_errors(f"{location}: reading it"):
        try:
            answer = s3.get_object(**location.as_kwargs)
            return answer["Body"].read(), answer["ETag"]
        except ClientError as exc:
            _check_bucket(exc, location.bucket)
            if is_missing(exc):
                return None
            raise


def put_if_unchanged(
    s3: Any, location: S3Location, content: bytes | BinaryIO, etag: str | None
) -> str | None:
    """Write an object if its ETag is `etag` (None: if it is missing); return its new ETag.

    Return None, without writing, if it has another ETag, was deleted or, with None, exists.
    """
    with translate_errors(f"{location}: writing it"):
        try:
            answer = s3.put_object(**location.as_kwargs, Body=content, **unchanged(etag))
        except ClientError as exc:
            if is_conflict(exc):
                return None
            raise
    return str(answer["ETag"])


def _check_bucket(exc: ClientError, bucket: str) -> None:
    """Raise `UserError` that names the bucket if `exc` is NoSuchBucket; else do nothing."""
    if error_code(exc) == NO_BUCKET:
        raise UserError(f"s3://{bucket}: no such bucket; check its name") from exc


def list_entries(
    s3: Any, ledger: S3Location, common: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each ledger entry: the key of its product, and its S3 object as `listed` does.

    Only entries of products whose keys begin with `common`.
    """
    start = f"{ledger.key}/"
    for item in listed(s3, ledger.bucket, f"{start}{common}"):
        yield item["Key"].removeprefix(start).removesuffix(".json"), item


def read_entry(s3: Any, ledger: S3Location, product: S3Location) -> Entry:
    """Return the ledger entry of a product; an empty entry if it is missing or damaged."""
    return Ledger(ledger).entry(product, ObjectStore(s3))


def ledger_in(bucket: str) -> S3Location:
    """Return the bucket and key prefix of the ledger, which is in the product bucket."""
    return S3Location(bucket, "dq_ledger")


def catalogue_in(bucket: str) -> S3Location:
    """Return the bucket and key prefix of the catalogue, which is in the product bucket."""
    return S3Location(bucket, "dq_catalogue")


def job_in(bucket: str, name: str) -> S3Location:
    """Return the location, in the product bucket, of the S3 object that stores a job."""
    return S3Location(bucket, f"dq_backfills/{name}/job.jsonl.gz")


@dataclass(frozen=True)
class Stack:
    """A deployed CloudFormation stack, with its outputs and parameters by name."""

    name: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]

    def output(self, name: str, kind: str = "") -> str:
        """Return the value of an output, or raise `UserError` if the stack lacks it.

        The message names the outputs whose names end with `kind`; by default all.
        """
        if name not in self.outputs:
            known = " or ".join(sorted(known for known in self.outputs if known.endswith(kind)))
            expected = known or "those of a deployed dq-init stack"
            raise UserError(f"stack {self.name}: has no output {name!r}, expected {expected}")
        return self.outputs[name]

    @property
    def mirror(self) -> S3Location:
        """The CRDS mirror of the stack; `UserError` without the parameter MirrorBucket."""
        bucket = self.parameters.get("MirrorBucket")
        if bucket is None:
            raise UserError(
                f"stack {self.name}: has no parameter MirrorBucket, expected a dq-init stack"
            )
        return S3Location(bucket, self.parameters.get("MirrorPrefix", "").removesuffix("/"))

    @property
    def output_prefix(self) -> str:
        """The parameter OutputPrefix; the template demands a slash at its end."""
        return self.parameters.get("OutputPrefix", "dq_init/")

    @property
    def product(self) -> str:
        """The `product` of cost estimates: native or float32 if assembled, or virtual."""
        if self.product_form is Form.VIRTUAL:
            return self.product_form
        return self.parameters.get("ScienceEncoding", "native")

    @property
    def product_form(self) -> Form:
        """The form of products whose requests name neither a form nor an output key."""
        return Form(self.parameters.get("ProductForm", Form.ASSEMBLED))

    def digest(self, *words: str) -> str:
        """Return eight hexadecimal digits that stand for words and for what this stack builds."""
        built = (self.output("BackfillQueue"), self.output_prefix, self.product_form)
        return hashlib.sha256(json.dumps([*built, *words]).encode()).hexdigest()[:8]

    @property
    def requester_pays(self) -> frozenset[str]:
        """The names of Requester Pays buckets whose charges the stack accepts, if any."""
        return bucket_names(self.parameters.get("RequesterPaysBuckets", ""))


def find_stack(name: str) -> Stack:
    """Return the stack with this name or ARN, or raise `UserError` if there is none."""
    client = boto3.client("cloudformation")
    with translate_errors(f"stack {name}: looking it up"):
        try:
            (found,) = client.describe_stacks(StackName=name)["Stacks"]
        except ClientError as exc:
            if error_code(exc) != "ValidationError":
                raise
            message = exc.response["Error"]["Message"]
            if "does not exist" in message:
                where = f"{client.meta.region_name}; check --stack and AWS_PROFILE"
                message = f"not found in {where}"
            raise UserError(f"stack {name}: {message}") from exc
    outputs = {item["OutputKey"]: item["OutputValue"] for item in found.get("Outputs", [])}
    parameters = {
        item["ParameterKey"]: item["ParameterValue"] for item in found.get("Parameters", [])
    }
    return Stack(found["StackName"], outputs, parameters)
