"""jwst's own environment: what the function is compared with, never a dependency of it."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.samples.mirror import CONTEXT

CONTINUE = Path(__file__).with_name("conformance") / "continue_with_jwst.py"
"""The script that runs code of the docs."""


@dataclass(frozen=True)
class Jwst:
    """A script that jwst's own interpreter runs, with a CRDS cache of its own."""

    interpreter: Path
    script: Path
    cache: Path
    server: str = "https://crds-serverless-mode.invalid"

    def answer(self, *arguments: Any) -> Any:
        """Run a command of the script; returns what its last line says, in JSON."""
        return json.loads(self.run(*arguments).splitlines()[-1])

    def run(self, *arguments: Any, code: str | None = None) -> str:
        """Run a command of the script, with code as its standard input; return what it prints."""
        environment = {
            **os.environ,
            "CRDS_PATH": str(self.cache),
            "CRDS_SERVER_URL": self.server,
            "CRDS_CONTEXT": CONTEXT,
            "CRDS_MODE": "local",
        }
        for name in list(environment):
            if name.startswith("CRDS_S3") or name.endswith("_URI"):
                del environment[name]
        command = [str(self.interpreter), str(self.script), *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, input=code, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-3000:]}")
        return done.stdout
