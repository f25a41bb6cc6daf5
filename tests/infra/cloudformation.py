"""Evaluate a template as CloudFormation does, after SAM has transformed it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.conftest import PROJECT
from tests.lint.transform import transformed

ACCOUNT = "123456789012"
_NO_VALUE = object()


@dataclass
class Deployment:
    """One stack of a template, with every intrinsic function evaluated.

    `resources` holds type and properties of what the conditions create, by logical id.
    """

    template: str
    parameters: Mapping[str, str]
    partition: str = "aws"
    region: str = "us-east-1"
    stack: str = "one"
    resources: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._source = transform_once(self.template, json.dumps(dict(self.parameters)))
        declared = self._source["Parameters"]
        self._values = {
            name: str(self.parameters.get(name, parameter.get("Default")))
            for name, parameter in declared.items()
        }
        self._conditions = {
            name: bool(self._evaluate(condition))
            for name, condition in self._source["Conditions"].items()
        }
        self.resources = {
            logical: {
                "Type": resource["Type"],
                "Properties": self._evaluate(resource.get("Properties", {})),
            }
            for logical, resource in self._source["Resources"].items()
            if self._conditions.get(resource.get("Condition"), True)
        }

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the properties of the resources of a type, by logical id."""
        return {
            logical: resource["Properties"]
            for logical, resource in self.resources.items()
            if resource["Type"] == f"AWS::{kind}"
        }

    def arn(self, logical: str) -> str:
        """Return the ARN of a resource."""
        return self._attribute(logical, "Arn")

    def statements(self, role: str) -> list[dict[str, Any]]:
        """Return the statements of a role's inline policies."""
        return [
            statement
            for policy in self.of_type("IAM::Role")[role]["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
        ]

    def _evaluate(self, value: Any) -> Any:
        if isinstance(value, list):
            found = (self._evaluate(item) for item in value)
            return [item for item in found if item is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name in {"Ref", "Condition"} or name.startswith("Fn::"):
                return self._call(name, argument)
        found = {key: self._evaluate(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item is not _NO_VALUE}

    def _call(self, name: str, argument: Any) -> Any:  # noqa: PLR0911  # one for each function
        match name, argument:
            case "Ref", _:
                return self._reference(argument)
            case "Condition", str():
                return self._conditions[argument]
            case "Condition", _:  # of an IAM statement
                return {"Condition": self._evaluate(argument)}
            case "Fn::If", [condition, yes, no]:
                known = self._conditions[condition]
                return self._evaluate(yes if known else no)
            case "Fn::Equals", [one, other]:
                return self._evaluate(one) == self._evaluate(other)
            case "Fn::Not", [condition]:
                return not self._evaluate(condition)
            case "Fn::GetAtt", _:
                parts = argument.split(".", 1) if isinstance(argument, str) else argument
                return self._attribute(*parts)
            case "Fn::Select", [index, items]:
                return self._evaluate(items)[int(index)]
            case "Fn::Split", [between, text]:
                return self._evaluate(text).split(between)
            case "Fn::Join", [between, items]:
                assert isinstance(between, str), "CloudFormation takes no function here"
                return between.join(self._evaluate(items))
            case "Fn::Sub", [text, names]:
                return self._substitute(text, {k: self._evaluate(v) for k, v in names.items()})
            case "Fn::Sub", str():
                return self._substitute(argument, {})
        raise NotImplementedError(name)

    def _substitute(self, text: str, names: Mapping[str, str]) -> str:
        def known(found: re.Match[str]) -> str:
            name = found[1]
            if name in names:
                return names[name]
            if "." in name:
                return self._attribute(*name.split(".", 1))
            return str(self._reference(name))

        return re.sub(r"\$\{([^!}]+)\}", known, text)

    def _reference(self, name: str) -> Any:  # noqa: PLR0911  # one for each type
        pseudo = {
            "AWS::NoValue": _NO_VALUE,
            "AWS::Partition": self.partition,
            "AWS::Region": self.region,
            "AWS::AccountId": ACCOUNT,
            "AWS::StackName": self.stack,
        }
        if name in pseudo:
            return pseudo[name]
        if name in self._values:
            return self._values[name]
        resource = self._created(name)
        physical = f"{self.stack}-{name}-1ABCDEFGHIJKL"
        match resource["Type"]:
            case "AWS::S3::Bucket":
                return physical.lower()
            case "AWS::SQS::Queue":
                return f"https://sqs.{self.region}.amazonaws.com/{ACCOUNT}/{physical}"
            case "AWS::Logs::LogGroup":
                return self._evaluate(resource["Properties"]["LogGroupName"])
            case "AWS::StepFunctions::StateMachine":
                return (
                    f"arn:{self.partition}:states:{self.region}:{ACCOUNT}:stateMachine:{physical}"
                )
            case "AWS::Events::Rule":  # not a part of the ARN, if the bus has a name
                bus = self._evaluate(resource["Properties"].get("EventBusName", "default"))
                return physical if bus == "default" else f"{bus}|{physical}"
        return physical

    def _attribute(self, logical: str, attribute: str) -> str:  # noqa: PLR0911  # one for each type
        resource = self._created(logical)
        physical = f"{self.stack}-{logical}-1ABCDEFGHIJKL"
        local = f"{self.region}:{ACCOUNT}"
        match resource["Type"], attribute:
            case "AWS::S3::Bucket", "Arn":
                return f"arn:{self.partition}:s3:::{physical.lower()}"
            case "AWS::SQS::Queue", "Arn":
                return f"arn:{self.partition}:sqs:{local}:{physical}"
            case "AWS::SQS::Queue", "QueueName":
                return physical
            case "AWS::Events::Rule", "Arn":
                bus = self._evaluate(resource["Properties"].get("EventBusName", "default"))
                rule = physical if bus == "default" else f"{bus}/{physical}"
                return f"arn:{self.partition}:events:{local}:rule/{rule}"
            case "AWS::IAM::Role", "Arn":
                return f"arn:{self.partition}:iam::{ACCOUNT}:role/{physical}"
            case "AWS::Lambda::Function", "Arn":
                return f"arn:{self.partition}:lambda:{local}:function:{physical}"
            case "AWS::Logs::LogGroup", "Arn":
                name = self._reference(logical)
                return f"arn:{self.partition}:logs:{local}:log-group:{name}:*"
            case "AWS::StepFunctions::StateMachine", "Name":
                return physical
        raise NotImplementedError(f"{logical}.{attribute}")

    def _created(self, logical: str) -> dict[str, Any]:
        resource: dict[str, Any] = self._source["Resources"][logical]
        condition = resource.get("Condition")
        assert self._conditions.get(condition, True), f"{logical} is used, but not created"
        return resource


@cache
def transform_once(template: str, parameters: str) -> dict[str, Any]:
    """Transform a template, which takes SAM a second."""
    return transformed(PROJECT / template, json.loads(parameters))


def is_accepted(parameter: Mapping[str, Any], value: str) -> bool:
    """Return whether CloudFormation accepts a value of a parameter: a pattern must match all of it."""
    if "AllowedValues" in parameter:
        return value in map(str, parameter["AllowedValues"])
    if parameter["Type"] == "Number":
        low, high = parameter.get("MinValue", "-inf"), parameter.get("MaxValue", "inf")
        return float(low) <= float(value) <= float(high)
    pattern = parameter.get("AllowedPattern", ".*")
    fits = len(value) <= parameter.get("MaxLength", 4096)
    return fits and re.fullmatch(pattern, value, re.DOTALL) is not None
