"""The names of `crds` that this project uses, imported without the command-line tools of `crds`.

``import crds`` also imports tools that certify, refactor and compare references, and with them asdf
and astropy.table: a quarter of a cold start. Empty modules replace the tools during the import and
are removed afterwards, so that a later import of a tool gets the real one.
"""

import importlib
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from urllib import request

__all__ = [
    "CRDS_NAME_RE_STR", "CRDS_VERSION", "CrdsError", "InvalidDatetimeError", "api", "proxy", "rmap",
    "timestamp", "utils",
]  # fmt: skip

_TOOLS = (
    "bestrefs", "misc", "misc.check_archive", "misc.datalvl", "misc.query_affected", "misc.sql",
    "misc.uniqname", "refactoring", "refactoring.checksum", "refactoring.newcontext",
    "refactoring.refactor", "refactoring.refactor2",
)  # fmt: skip


@contextmanager
def _without_tools() -> Iterator[None]:
    """Import `crds` with empty modules for its command-line tools; remove them at exit."""
    if "crds" in sys.modules:
        yield
        return
    stubs = {f"crds.{name}": ModuleType(f"crds.{name}") for name in _TOOLS}
    stubs["crds.bestrefs"].assign_bestrefs = None  # type: ignore[attr-defined]  # crds exports it
    sys.modules.update(stubs)
    urlopen, lock = request.urlopen, multiprocessing.Lock
    # crds opens an empty URL during its import (a workaround for macOS), and so loads all
    # certificates of the machine.
    request.urlopen = _refuse_url  # type: ignore[assignment]
    # crds makes a lock for processes, which fails on Lambda, because that has no /dev/shm:
    # aws.amazon.com/blogs/compute/parallel-processing-in-python-with-aws-lambda
    multiprocessing.Lock = threading.Lock  # type: ignore[assignment]
    try:
        importlib.import_module("crds")
        yield
    finally:
        request.urlopen, multiprocessing.Lock = urlopen, lock
        _remove({id(stub) for stub in stubs.values()})


def _refuse_url(url: str) -> None:
    raise OSError(f"{url!r}: not opened during the import of crds")


def _remove(stubs: set[int]) -> None:
    # crds also keeps modules under other names and as attributes.
    for name in [name for name, module in sys.modules.items() if id(module) in stubs]:
        del sys.modules[name]
    crds = sys.modules.get("crds")  # None if its import failed
    for name in [name for name, value in vars(crds).items() if id(value) in stubs] if crds else ():
        delattr(crds, name)


with _without_tools():
    import crds
    import crds.jwst  # crds imports it for the first rule; the stubs are gone by then
    from crds.client import api, proxy
    from crds.core import rmap, timestamp, utils
    from crds.core.config import CRDS_NAME_RE_STR
    from crds.core.exceptions import CrdsError, InvalidDatetimeError

CRDS_VERSION = str(crds.__version__)  # CRDS_VER of the product
