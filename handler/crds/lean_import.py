"""`crds`, without the tools that evaluating rules never needs.

``import crds`` imports its command-line tools, too: certifying, refactoring and comparing of
references, and with them asdf, astropy.table and parsers of text tables. That is a quarter of a
cold start. Here empty modules stand for the tools while the package is imported, and are gone
afterwards: whoever imports a tool then gets the real one. Nor does it open a URL as it is imported
(an empty one, against a fault of macOS): that would load every certificate of the machine. Whatever
the house needs of `crds` it takes from here.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from urllib import request

__all__ = [
    "CRDS_NAME_RE_STR",
    "CRDS_VERSION",
    "CrdsError",
    "InvalidDatetimeError",
    "proxy",
    "rmap",
    "timestamp",
    "utils",
    "without_tools",
]

_TOOLS = {
    "bestrefs": (),
    "refactoring": ("checksum", "newcontext", "refactor", "refactor2"),
    "misc": ("datalvl", "query_affected", "uniqname", "check_archive", "sql"),
}


@contextmanager
def without_tools() -> Iterator[None]:
    """Import `crds` lean, unless it was imported before."""
    if "crds" in sys.modules:
        yield
        return
    stubs, urlopen = dict(_stubs()), request.urlopen
    sys.modules.update(stubs)
    request.urlopen = _open_nothing  # type: ignore[assignment]
    try:
        importlib.import_module("crds")
        yield
    finally:
        request.urlopen = urlopen
        _remove({id(stub) for stub in stubs.values()})


def _open_nothing(url: str) -> None:
    raise OSError(f"{url!r} is not opened while crds is imported")


def _stubs() -> Iterator[tuple[str, ModuleType]]:
    for package, modules in _TOOLS.items():
        stub = ModuleType(f"crds.{package}")
        stub.assign_bestrefs = None  # type: ignore[attr-defined]  # what crds exports of bestrefs
        yield stub.__name__, stub
        for module in modules:
            name = f"crds.{package}.{module}"
            yield name, ModuleType(name)


def _remove(stubs: set[int]) -> None:
    """Forget the stubs, and the second names that `crds` gives its modules."""
    for name in [name for name, module in sys.modules.items() if id(module) in stubs]:
        del sys.modules[name]
    crds = sys.modules["crds"]
    for name in [name for name, value in vars(crds).items() if id(value) in stubs]:
        delattr(crds, name)


with without_tools():
    import crds
    import crds.jwst  # which crds itself imports when it meets the first rule
    from crds.client import proxy
    from crds.core import rmap, timestamp, utils
    from crds.core.config import CRDS_NAME_RE_STR
    from crds.core.exceptions import CrdsError, InvalidDatetimeError

CRDS_VERSION = str(crds.__version__)
"""Of the package that evaluates the rules; CRDS_VER of the product."""
