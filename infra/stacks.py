"""What a deployed stack is made of, so that nobody copies addresses by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError

from handler.s3.locations import S3Location
from infra.terminal import Mistake

__all__ = ["Stack", "find_stack"]


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
        Mistake
            If the stack has none of that name.
        """
        if not self.outputs:
            raise Mistake(f"stack {self.name}: has no outputs, expected a deployed dq-init stack")
        if name not in self.outputs:
            known = " or ".join(sorted(known for known in self.outputs if known.endswith(kind)))
            raise Mistake(f"stack {self.name}: has no output {name!r}, expected {known}")
        return self.outputs[name]

    @property
    def mirror(self) -> S3Location:
        """Where the stack reads its references.

        Raises
        ------
        Mistake
            If the stack has no parameter MirrorBucket.
        """
        bucket = self.parameters.get("MirrorBucket")
        if bucket is None:
            raise Mistake(f"stack {self.name}: has no parameter MirrorBucket; not a dq-init stack")
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
    Mistake
        If there is none of that name.
    """
    client = boto3.client("cloudformation")
    try:
        (found,) = client.describe_stacks(StackName=name)["Stacks"]
    except ClientError as exc:
        error = exc.response["Error"]
        if error["Code"] == "ValidationError" and "does not exist" in error["Message"]:
            raise Mistake(f"no stack named {name} in {client.meta.region_name}") from exc
        raise Mistake(f"stack {name}: {error['Message']}") from exc
    return Stack(name, _named(found, "Outputs", "Output"), _named(found, "Parameters", "Parameter"))


def _named(found: Any, field: str, prefix: str) -> dict[str, str]:
    items = found.get(field, [])
    return {item[f"{prefix}Key"]: item[f"{prefix}Value"] for item in items}
