"""A CRDS context, reduced to its rules for MASK: mappings, rules, and the masks they select."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import ReferenceUnavailable
from handler.crds.mirror import check_reference, key_of
from handler.crds.rules import Mappings, RuleFiles, is_applicable


@dataclass(frozen=True)
class Rule:
    """A rule for MASK: parameters of an exposure, a date, and the mask that they select."""

    instrument: str  # lower case
    parameters: tuple[tuple[str, str], ...]  # data model path; value as in the rule, such as A|B
    after: str  # USEAFTER: date and time of observation from which the rule holds
    mask: str  # a file name; N/A or OMIT: no mask applies

    def value(self, parameter: str) -> str:
        """Return the value of the first path that ends in `parameter`; empty if none does."""
        return next((v for name, v in self.parameters if name.endswith(parameter)), "")


@dataclass(frozen=True)
class Context:
    """A context: its mappings and rules for MASK, of all or of some instruments."""

    name: str
    mappings: tuple[str, ...]  # the pipeline mapping itself, then up to two for each instrument
    rules: tuple[Rule, ...]

    @property
    def masks(self) -> dict[str, str]:
        """The instrument (lower case) of each mask that the rules can select, by file name."""
        return {rule.mask: rule.instrument for rule in self.rules if is_applicable(rule.mask)}

    @property
    def keys(self) -> dict[str, str]:
        """The key, below the mirror's prefix, of each mapping and mask, by file name."""
        names = dict.fromkeys(self.mappings, "") | self.masks
        return {name: key_of(name, instrument) for name, instrument in names.items()}


def read_context(name: str, files: RuleFiles, instruments: frozenset[str] = frozenset()) -> Context:
    """Read a context with the MASK rules of some instruments (upper case; empty: of all)."""
    mappings, names = Mappings(files), [name]
    rules: list[Rule] = []
    for instrument in mappings.instruments(name):
        if instruments and instrument not in instruments:
            continue
        chain = list(mappings.chain(name, instrument))  # SYSTEM has no rules for MASK
        names += chain[1:]
        if chain[-1].endswith(".rmap"):
            rules += _rules(chain[-1], instrument.lower(), mappings.load(chain[-1]).todict())
    return Context(name, tuple(names), tuple(rules))


def _rules(name: str, instrument: str, flat: Mapping[str, Any]) -> Iterator[Rule]:
    names = flat["parameters"][:-2]  # the last two are USEAFTER and REFERENCE
    for *values, after, mask in flat["selections"]:
        if len(values) != len(names):
            raise ReferenceUnavailable(
                f"{name}: a rule has {len(values)} values, expected {len(names)}: "
                f"{', '.join(names)}; use another context"
            )
        if not isinstance(mask, str) or is_applicable(mask):
            check_reference(mask)
        yield Rule(instrument, tuple(zip(names, map(str, values), strict=True)), str(after), mask)
