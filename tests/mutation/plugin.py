"""A pytest plugin: records how long each test takes, and bounds the time and memory of a mutant."""

import json
import os
import resource
import time
from collections import defaultdict
from pathlib import Path

import pytest

_STARTED = time.monotonic()
_BUDGET = float(os.environ.get("MUTATION_BUDGET", "inf"))
_MEMORY = 6 * 1024**3
"""Bytes of address space that the tests of a mutant may take."""
if float("inf") > _BUDGET:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
_seconds: dict[str, float] = defaultdict(float)
_stopped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up set-up and call of a test."""
    if report.when != "teardown":
        _seconds[report.nodeid] += report.duration


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Stop before the next test once the budget is used up."""
    if time.monotonic() - _STARTED > _BUDGET:
        item.session.shouldstop = "the budget of this mutant is used up"
        _stopped.append(item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the seconds of each test; a run that was stopped with no failure succeeds."""
    if _stopped and not session.testsfailed:
        session.exitstatus = pytest.ExitCode.OK
    record = os.environ.get("MUTATION_DURATIONS")
    if record and not hasattr(session.config, "workerinput"):
        Path(record).write_text(json.dumps(_seconds))
