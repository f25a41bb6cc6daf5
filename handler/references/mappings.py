"""Resolve a context to its MASK rules: pmap, imap, rmap.

CRDS keeps its rules in three levels of files: a pipeline mapping (the context), an instrument
mapping and a mapping per reference type. Asked in the ordinary way, `crds` loads every file of the
instrument; the three that lead to the mask are enough. They are handed to `crds` as text: it looks
for no file and contacts no server.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.errors import ReferenceUnavailable
from handler.references.keys import check_context, check_instrument, check_mapping
from handler.references.lean_crds import rmap

__all__ = ["LARGEST_MAPPING", "Mappings", "NoRules", "RuleFiles", "is_applicable"]

LARGEST_MAPPING = 250_000
"""Bytes of a mapping; the largest of CRDS have 25,000. `crds` takes 3 s for so many rules."""
_MOST_ALTERNATIVES = 2_000
"""Values separated by | in a mapping; the time that `crds` takes grows with their square."""
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
            check_mapping(name)
            text = self.files.read(name)
            if len(text) > LARGEST_MAPPING:
                raise ReferenceUnavailable(
                    f"{name}: {len(text):,} characters, expected at most {LARGEST_MAPPING:,}"
                )
            if text.count("|") > _MOST_ALTERNATIVES:
                raise ReferenceUnavailable(
                    f"{name}: {text.count('|'):,} alternatives (|), expected at most "
                    f"{_MOST_ALTERNATIVES:,}"
                )
            try:
                self._loaded[name] = _parsed(text, name)
            except Exception as exc:  # crds raises almost anything for a damaged file
                raise ReferenceUnavailable(
                    f"{name}: is not a CRDS mapping: {str(exc)[:200] or type(exc).__name__}"
                ) from exc
        return self._loaded[name]

    def instruments(self, context: str) -> list[str]:
        """Return the instruments that a context has rules for, in upper case."""
        selector = self.load(check_context(context)).selector
        return sorted(
            check_instrument(name) for name, mapping in selector.items() if is_applicable(mapping)
        )

    def named_by(self, name: str) -> list[str]:
        """Return the rule files that a context or an instrument's mapping names."""
        return [found for found in self.load(name).selector.values() if is_applicable(found)]

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
        name = check_context(context)
        for key in (instrument, "MASK"):
            yield name
            following = self.load(name).selector.get(key)
            if following is None:
                raise NoRules(f"{name}: has no rules for {key}")
            if not is_applicable(following):
                return
            if not following.endswith(".rmap" if key == "MASK" else ".imap"):
                raise ReferenceUnavailable(f"{name}: names {following} for {key}")
            name = following
        yield name


def _parsed(text: str, name: str) -> Any:
    """Parse a mapping; the upper levels name mappings, the lowest has the rules."""
    mapping = _CLASSES[name[-5:]].from_string(text, name)
    if name.endswith(".rmap"):
        mapping.get_required_parkeys()
        mapping.todict()
        return mapping
    for found in mapping.selector.values():
        if not isinstance(found, str) or is_applicable(found):
            check_mapping(found)
    return mapping


def is_applicable(name: str) -> bool:
    """Say whether a rule names a file; ``N/A`` and ``OMIT`` say that none applies."""
    return name.upper() not in {"N/A", "OMIT"}
