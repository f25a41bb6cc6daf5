"""The lock file of the bundle."""

import re
import tomllib

from packaging.requirements import Requirement

from infra.bundle.build import LOCK
from tests.conftest import PROJECT


def test_lock_file_satisfies_the_dependencies() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK.read_text(), re.M))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(locked[requirement.name]), requirement
