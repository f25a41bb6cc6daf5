"""The walk from a context to the rules for MASK, by whomever it is taken.

CRDS keeps its rules in three levels of files: a pipeline mapping (the context), an instrument
mapping and a mapping per reference type. Asked in the ordinary way, `crds` loads every file of the
instrument; the three that lead to the mask are enough. They are handed to `crds` as text: it looks
for no file and contacts no server.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.errors import ReferenceUnavailable
from handler.references.lean_crds import CrdsError, rmap

__all__ = ["FILE_NAME", "Mappings", "NoRules", "RuleFiles", "is_applicable"]

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""What the name of a rule or reference may be; names come from files and become keys and paths."""
_CLASSES = {
    ".pmap": rmap.PipelineContext,
    ".imap": rmap.InstrumentContext,
    ".rmap": rmap.ReferenceMapping,
}


class NoRules(ReferenceUnavailable):
    """A context says nothing of an instrument, or an instrument nothing of MASK."""


class RuleFiles(Protocol):
    """Where the text of rule files comes from."""

    def read(self, name: str) -> str:
        """Return a rule file.

        Raises
        ------
        ReferenceUnavailable
            If it cannot be had.
        """

    def discard(self, name: str) -> None:
        """Forget a rule file that turned out to be damaged."""


@dataclass
class Mappings:
    """Rule files, as `crds` reads them. Contexts and rules never change: each is read once.

    Attributes
    ----------
    files : `RuleFiles`
        Where their text comes from.
    """

    files: RuleFiles
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False)

    def load(self, name: str) -> Any:
        """Load one rule file.

        Raises
        ------
        ReferenceUnavailable
            If it cannot be had, or is damaged.
        """
        if name not in self._loaded:
            mapping = _CLASSES.get(name[-5:])
            if mapping is None or not FILE_NAME.fullmatch(name):
                raise ReferenceUnavailable(f"{name!r} is no name of a rule file")
            text = self.files.read(name)
            try:
                self._loaded[name] = mapping.from_string(text, name)
            except (CrdsError, SyntaxError, ValueError) as exc:
                self.files.discard(name)
                raise ReferenceUnavailable(f"{name}: is no rule file: {exc}") from exc
        return self._loaded[name]

    def instruments(self, context: str) -> list[str]:
        """Return the instruments that a context has rules for, in upper case."""
        selector = self.load(context).selector
        return sorted(name for name, mapping in selector.items() if is_applicable(str(mapping)))

    def named_by(self, name: str) -> list[str]:
        """Return the rule files that a context or an instrument's mapping names."""
        return [
            str(found) for found in self.load(name).selector.values() if is_applicable(str(found))
        ]

    def chain(self, context: str, instrument: str) -> Iterable[str]:
        """Walk from a context to an instrument's rules for MASK.

        Parameters
        ----------
        context : str
            Name of a context.
        instrument : str
            In upper case.

        Yields
        ------
        str
            Names of the rule files, the context first; the rules for MASK come last, unless the
            context says that none apply to the instrument.

        Raises
        ------
        ReferenceUnavailable
            If a rule file cannot be had, or does not say what comes next (`NoRules`).
        """
        name = context
        for key in (instrument, "MASK"):
            yield name
            following = self.load(name).selector.get(key)
            if following is None:
                raise NoRules(f"{name}: has no rules for {key}")
            if not is_applicable(str(following)):
                return
            name = str(following)
        yield name


def is_applicable(name: str) -> bool:
    """Say whether a rule names a file; ``N/A`` and ``OMIT`` say that none applies."""
    return name.upper() not in {"N/A", "OMIT"}
