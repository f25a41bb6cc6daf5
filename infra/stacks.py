"""What a deployed stack is made of, so that nobody copies addresses by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError

from handler.s3.locations import S3Location
from infra.cost.invocation import DEFAULT_MEMORY
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

    def output(self, name: str) -> str:
        """Return an output.

        Raises
        ------
        Mistake
            If the stack has none of that name.
        """
        if name not in self.outputs:
            known = ", ".join(sorted(self.outputs))
            raise Mistake(f"stack {self.name} has no {name!r}, expected one of {known}")
        return self.outputs[name]

    @property
    def mirror(self) -> S3Location:
        """Where the stack reads its references."""
        return S3Location(self.parameters["MirrorBucket"], self.parameters.get("MirrorPrefix", ""))

    @property
    def output_prefix(self) -> str:
        """Key prefix of the products."""
        return self.parameters.get("OutputPrefix", "dq_init/")

    @property
    def memory(self) -> int:
        """MB that the function has."""
        return int(self.parameters.get("Memory", DEFAULT_MEMORY))

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
    try:
        (found,) = boto3.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except ClientError as exc:
        raise Mistake(f"stack {name}: cannot be found: {exc}") from exc
    return Stack(name, _named(found, "Outputs", "Output"), _named(found, "Parameters", "Parameter"))


def _named(found: Any, field: str, prefix: str) -> dict[str, str]:
    items = found.get(field, [])
    return {item[f"{prefix}Key"]: item[f"{prefix}Value"] for item in items}
