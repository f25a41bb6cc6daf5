"""A process with the CPU share that Lambda gives for a memory size.

Lambda gives one vCPU for 1,769 MB and a proportional share of the time below ("Configure Lambda
function memory", AWS Lambda Developer Guide), in periods of 20 ms (pwrdrvr/lambda-dispatch 246): what
has used its share rests until the period ends. Linux does the same to a control group.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.infra.template import load, resolve

__all__ = ["ONE_CPU", "as_lambda", "deployed_memory"]

ONE_CPU = 1769
"""MB of memory for which Lambda gives one CPU."""

_PERIOD = 20_000
"""Microseconds."""
_GROUPS = Path("/sys/fs/cgroup")


def deployed_memory(product: str) -> int:
    """Return the MB of memory that the template gives a function for products of this kind."""
    memory = load()["Resources"]["Function"]["Properties"]["MemorySize"]
    return int(resolve(memory, {}, {"IsVirtual": product == "virtual"}))


@contextmanager
def as_lambda(memory: int) -> Iterator[Path]:
    """Create a cgroup whose processes share the CPU time of a function of `memory` MB.

    Yields the file that a process's number is written to, which makes it one of them.
    """
    second_version = (_GROUPS / "cgroup.controllers").exists()
    group = (_GROUPS if second_version else _GROUPS / "cpu") / f"dq-init-{uuid4().hex[:8]}"
    quota = int(_PERIOD * memory / ONE_CPU)
    try:
        group.mkdir()
        if second_version:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
    except OSError as exc:
        raise SystemExit(
            f"the CPU cannot be limited here (it takes root, on Linux): {exc}"
        ) from exc
    try:
        yield group / "cgroup.procs"
    finally:
        group.rmdir()
