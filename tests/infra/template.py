"""Read the template; resolve its intrinsic functions with names of the embedded AWS."""

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from infra.demo.local_aws import MIRROR, PRODUCTS, RAW
from tests.conftest import PROJECT, UNFINISHED

ACCOUNT = "123456789012"
ARNS = "arn:aws:{}:us-east-1:" + ACCOUNT + ":{}"
REFERENCES = {
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::AccountId": ACCOUNT,
    "AWS::StackName": "dq-init",
    "MirrorBucket": MIRROR,
    "RawBucket": RAW,
    "ProductBucket": PRODUCTS,
    "UploadedQueue": "uploads",
    "BackfillQueue": "backfills",
    "EventLog": "/aws/events/dq-init",
    "UnfinishedQueue": "unfinished",
    "FunctionLog": "/aws/lambda/dq-init",
}
ATTRIBUTES = {
    "RawBucket.Arn": f"arn:aws:s3:::{RAW}",
    "ProductBucket.Arn": f"arn:aws:s3:::{PRODUCTS}",
    "MirrorBucket.Arn": "arn:aws:s3:::fresh-mirror",
    "Reprocessing.Arn": ARNS.format("lambda", "function:reprocessing"),
    "FreshenLog.Arn": ARNS.format("logs", "log-group:/aws/lambda/crds-mirror:*"),
    "BackfillQueue.Arn": ARNS.format("sqs", "backfills"),
    "UndeliveredQueue.Arn": ARNS.format("sqs", "undelivered"),
    "UploadedQueue.Arn": ARNS.format("sqs", "uploads"),
    "UnfinishedQueue.Arn": UNFINISHED,
    "FunctionRole.Arn": "arn:aws:iam::123456789012:role/dq-init",
    "Function.Arn": ARNS.format("lambda", "function:dq-init"),
    "FunctionLog.Arn": ARNS.format("logs", "log-group:/aws/lambda/dq-init:*"),
}


NAMED = {
    "KmsKey": "arn:kms:key",
    "ReadKmsKeys": "arn:kms:read",
    "RawBucketName": "mine",
    "ReadBuckets": "stpubdata,theirs",
}
"""Parameters that conditions test."""


class Loader(yaml.SafeLoader):
    """A YAML loader that reads ``!Ref x`` as its JSON form."""


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    return {name: loader.construct_sequence(node, deep=True)}


Loader.add_multi_constructor("!", _intrinsic)


def load(name: str = "template.yaml") -> dict[str, Any]:
    """Read a template."""
    return yaml.load((PROJECT / name).read_text(), Loader=Loader)  # noqa: S506


def resolve(  # noqa: PLR0911  # one for each function
    value: Any, names: Mapping[str, str], conditions: Mapping[str, bool]
) -> Any:
    """Replace intrinsic functions by their values; None for AWS::NoValue."""
    if isinstance(value, list):
        return [r for item in value if (r := resolve(item, names, conditions)) is not None]
    if not isinstance(value, dict):
        return value
    match next(iter(value.items()), None):
        case ("Ref", name):
            return names.get(name)
        case ("Fn::GetAtt", name):
            return ATTRIBUTES[name]
        case ("Fn::Sub", [text, more]):
            own = {name: resolve(item, names, conditions) for name, item in more.items()}
            return resolve({"Fn::Sub": text}, {**names, **own}, conditions)
        case ("Fn::Sub", text):
            known = {**ATTRIBUTES, **names}
            return re.sub(r"\$\{([^}]+)\}", lambda found: known[found[1]], text)
        case ("Fn::Select", [number, items]):
            return resolve(items, names, conditions)[int(number)]
        case ("Fn::Join", [between, items]):
            return between.join(resolve(items, names, conditions))
        case ("Fn::Split", [between, text]):
            return resolve(text, names, conditions).split(between)
        case ("Fn::If", [condition, yes, no]):
            return resolve(yes if conditions[condition] else no, names, conditions)
    return {key: resolve(item, names, conditions) for key, item in value.items()}


def names_of(template: dict[str, Any], **changes: str) -> dict[str, str]:
    """Return the names of parameters, with their defaults, and resources."""
    defaults = {name: str(p.get("Default", "")) for name, p in template["Parameters"].items()}
    return defaults | REFERENCES | changes


@dataclass(frozen=True)
class Permission:
    """One action on one resource, and the statement that allows it."""

    sid: str
    action: str
    resource: str

    def allows(self, action: str, resource: str) -> bool:
        return self.action == action and fnmatch.fnmatchcase(resource, self.resource)


def permissions(
    template: dict[str, Any],
    role: str,
    named: Mapping[str, str] = NAMED,
    **conditions: bool,
) -> Iterator[Permission]:
    """Yield the permissions of a role."""
    usual = {name: True for name in template["Conditions"] if name.startswith("Makes")}
    every = dict.fromkeys(template["Conditions"], False) | usual | conditions
    names = names_of(template, **named)
    policies = template["Resources"][role]["Properties"]["Policies"]
    for policy in resolve(policies, names, every):
        for statement in policy["PolicyDocument"]["Statement"]:
            actions, resources = statement["Action"], statement["Resource"]
            for action in actions if isinstance(actions, list) else [actions]:
                for resource in resources if isinstance(resources, list) else [resources]:
                    yield Permission(statement["Sid"], action, resource)
