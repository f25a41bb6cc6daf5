"""Print what SAM makes of a template, as JSON.

Run by the interpreter that `sam` is installed with: ``python tests/lint/transform.py TEMPLATE``.
The linters look at this, too: what SAM adds is deployed as well.
"""

import json
import sys
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


def main() -> None:
    """Transform the template that is named."""
    template = yaml_parse(Path(sys.argv[1]).read_text())
    for resource in template["Resources"].values():
        for name in PACKAGED.keys() & resource["Properties"].keys():
            resource["Properties"][name] = PACKAGED[name]
    parameters = {name: value.get("Default", "x") for name, value in template["Parameters"].items()}
    json.dump(transform(template, parameters, NoManagedPolicies()), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
