"""What is locked for the bundle."""

import re
import tomllib

from packaging.requirements import Requirement

from infra.bundle.build import LOCK
from tests.conftest import PROJECT


def test_the_lock_file_holds_what_the_function_depends_on() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK.read_text(), re.M))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(locked[requirement.name]), requirement
