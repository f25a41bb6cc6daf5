"""What a context needs: the rule files that lead to a mask, and every mask that they can choose."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crds.core import rmap
from crds.core.exceptions import CrdsError

from core.errors import ReferenceUnavailable

__all__ = ["CONFIG", "Context", "Rule", "key_of", "read_context", "replace_environment"]

CONFIG = "config/jwst/server_config"
_NONE = {"N/A", "OMIT"}


@dataclass(frozen=True)
class Rule:
    """One line of the rules for MASK.

    Attributes
    ----------
    instrument : str
        In lower case.
    parameters : tuple of (str, str)
        What it matches on: keyword of the data model, and value.
    after : str
        Date and time of observation from which it holds.
    mask : str
        File name of the mask; ``N/A`` where none applies.
    """

    instrument: str
    parameters: tuple[tuple[str, str], ...]
    after: str
    mask: str

    def value(self, parameter: str) -> str:
        """Return the value of a parameter that ends so: DETECTOR, SUBARRAY.NAME, ..."""
        return next((v for name, v in self.parameters if name.endswith(parameter)), "")


@dataclass(frozen=True)
class Context:
    """A context, as far as it leads to masks.

    Attributes
    ----------
    name : str
        Such as ``jwst_1321.pmap``.
    mappings : tuple of str
        Its rule files: the pipeline mapping itself, and two for each instrument.
    rules : tuple of `Rule`
        Every line of them.
    """

    name: str
    mappings: tuple[str, ...]
    rules: tuple[Rule, ...]

    @property
    def masks(self) -> dict[str, str]:
        """File names of the masks that it can choose, and their instruments."""
        return {rule.mask: rule.instrument for rule in self.rules if _is_file(rule.mask)}

    @property
    def keys(self) -> dict[str, str]:
        """Names of all files, and their keys below the mirror's prefix."""
        names = dict.fromkeys(self.mappings, "") | self.masks
        return {name: key_of(name, instrument) for name, instrument in names.items()}


def key_of(name: str, instrument: str) -> str:
    """Return the key of a file below the mirror's prefix; rule files have no instrument."""
    if name.endswith("map"):
        return f"mappings/jwst/{name}"
    return f"references/jwst/{instrument}/{name}"


def read_context(name: str, folder: Path, fetch: Callable[[str], object]) -> Context:
    """Follow a context to its rules for MASK.

    Parameters
    ----------
    name : str
        Of the context.
    folder : `pathlib.Path`
        A directory laid out as a CRDS cache.
    fetch : callable
        Makes sure that the rule file of a name is in `folder`.

    Raises
    ------
    ReferenceUnavailable
        If a rule file cannot be had, or cannot be read.
    """
    with _cache(folder):
        mappings, rules = [name], []
        for instrument, imap in sorted(_load(name, fetch).selector.items()):
            if str(imap).upper() in _NONE:
                continue
            mappings.append(imap)
            masks = _load(imap, fetch).selector.get("MASK", "N/A")
            if masks.upper() in _NONE:
                continue
            mappings.append(masks)
            rules += _rules(instrument.lower(), _load(masks, fetch).todict())
    return Context(name, tuple(mappings), tuple(rules))


def _load(name: str, fetch: Callable[[str], object]) -> Any:
    fetch(name)
    try:
        return rmap.load_mapping(name)
    except (CrdsError, OSError, SyntaxError, ValueError) as exc:
        raise ReferenceUnavailable(f"{name}: cannot be read as a rule file: {exc}") from exc


def _rules(instrument: str, flat: Mapping[str, Any]) -> Iterator[Rule]:
    names = flat["parameters"][:-2]  # then come USEAFTER and REFERENCE
    for *values, after, mask in flat["selections"]:
        yield Rule(instrument, tuple(zip(names, map(str, values), strict=True)), str(after), mask)


def _is_file(mask: str) -> bool:
    return mask.upper() not in _NONE


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Have `crds` look for rule files here, and nowhere else."""
    before = {name: value for name, value in os.environ.items() if name.startswith("CRDS_")}
    replace_environment({"CRDS_PATH": str(folder), "CRDS_OBSERVATORY": "jwst"})
    try:
        yield
    finally:
        replace_environment(before)


def replace_environment(wanted: Mapping[str, str]) -> None:
    """Tell `crds` this and nothing else: it takes its configuration from the environment."""
    for name in [name for name in os.environ if name.startswith("CRDS_")]:
        del os.environ[name]
    os.environ.update(wanted)
