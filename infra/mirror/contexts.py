"""A context: the mappings that lead to the rules for MASK, and every mask that these choose."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import ReferenceUnavailable
from handler.crds.mirror import check_reference, key_of
from handler.crds.rules import Mappings, NoRules, RuleFiles, is_applicable


@dataclass(frozen=True)
class Rule:
    """One line of the rules for MASK."""

    instrument: str  # lower case
    parameters: tuple[tuple[str, str], ...]  # data model keyword and the value that it must have
    after: str  # USEAFTER: date and time of observation from which the rule holds
    mask: str  # a file name, or N/A

    def value(self, parameter: str) -> str:
        """Return the value of the parameter whose name ends so: DETECTOR, SUBARRAY.NAME, ..."""
        return next((v for name, v in self.parameters if name.endswith(parameter)), "")


@dataclass(frozen=True)
class Context:
    """A context, reduced to what MASK needs."""

    name: str
    mappings: tuple[str, ...]  # the pipeline mapping itself, then up to two for each instrument
    rules: tuple[Rule, ...]

    @property
    def masks(self) -> dict[str, str]:
        """Instruments, by the file names of the masks that the rules can choose."""
        return {rule.mask: rule.instrument for rule in self.rules if is_applicable(rule.mask)}

    @property
    def keys(self) -> dict[str, str]:
        """Keys below the mirror's prefix, by the names of all files."""
        names = dict.fromkeys(self.mappings, "") | self.masks
        return {name: key_of(name, instrument) for name, instrument in names.items()}


def read_context(name: str, files: RuleFiles, instruments: frozenset[str] = frozenset()) -> Context:
    """Read a context with its rules for MASK, for some instruments (upper case) or all."""
    mappings, names = Mappings(files), [name]
    rules: list[Rule] = []
    for instrument in mappings.instruments(name):
        if instruments and instrument not in instruments:
            continue
        chain = []
        try:
            for mapping in mappings.chain(name, instrument):
                chain.append(mapping)  # noqa: PERF402  # kept if the next one is missing
        except NoRules:  # SYSTEM has none; its mapping was read and belongs to the context
            pass
        names += chain[1:]
        if chain[-1].endswith(".rmap"):
            rules += _rules(instrument.lower(), mappings.load(chain[-1]).todict())
    return Context(name, tuple(names), tuple(rules))


def _rules(instrument: str, flat: Mapping[str, Any]) -> Iterator[Rule]:
    names = flat["parameters"][:-2]  # the last two are USEAFTER and REFERENCE
    for *values, after, mask in flat["selections"]:
        if len(values) != len(names):
            raise ReferenceUnavailable(
                f"rules of {instrument}: match on {len(values)} values, expected {len(names)}"
            )
        if not isinstance(mask, str) or is_applicable(mask):
            check_reference(mask)
        yield Rule(instrument, tuple(zip(names, map(str, values), strict=True)), str(after), mask)
