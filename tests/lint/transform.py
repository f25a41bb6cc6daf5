"""Print what SAM makes of a template, as JSON: ``python tests/lint/transform.py TEMPLATE``.

The linters and the tests look at this, too, because what SAM adds is deployed as well.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

PACKAGED: dict[str, Any] = {
    "CodeUri": "s3://bucket/code",
    "DefinitionUri": {"Bucket": "bucket", "Key": "definition"},
}


class NoManagedPolicies:
    """The template uses none of AWS's policies, so none is looked up."""

    def load(self) -> dict[str, str]:
        """Return names and ARNs."""
        return {}


def transformed(path: Path, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what SAM makes of a template; parameters that are not given have their defaults."""
    template = yaml_parse(path.read_text())
    for resource in template["Resources"].values():
        for name in PACKAGED.keys() & resource["Properties"].keys():
            resource["Properties"][name] = PACKAGED[name]
    values = {name: value.get("Default", "x") for name, value in template["Parameters"].items()}
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")  # SAM wants a region, and uses none
    found: dict[str, Any] = transform(
        template, {**values, **(parameters or {})}, NoManagedPolicies()
    )
    return found


if __name__ == "__main__":
    json.dump(transformed(Path(sys.argv[1])), sys.stdout, indent=1)
