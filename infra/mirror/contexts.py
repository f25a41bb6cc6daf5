"""What a context needs: the rule files that lead to a mask, and every mask that they can choose."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import ReferenceUnavailable
from handler.crds.mirror import check_reference, key_of
from handler.crds.rules import Mappings, NoRules, RuleFiles, is_applicable

__all__ = ["Context", "Rule", "read_context"]


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
        return {rule.mask: rule.instrument for rule in self.rules if is_applicable(rule.mask)}

    @property
    def keys(self) -> dict[str, str]:
        """Names of all files, and their keys below the mirror's prefix."""
        names = dict.fromkeys(self.mappings, "") | self.masks
        return {name: key_of(name, instrument) for name, instrument in names.items()}


def read_context(name: str, files: RuleFiles, instruments: frozenset[str] = frozenset()) -> Context:
    """Follow a context to all its rules for MASK.

    Parameters
    ----------
    name : str
        Of the context.
    files : `~handler.crds.rules.RuleFiles`
        Where rule files come from.
    instruments : frozenset of str
        Those to follow it for, in upper case; all by default.

    Raises
    ------
    ReferenceUnavailable
        If a rule file cannot be had, or cannot be read.
    """
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
    names = flat["parameters"][:-2]  # then come USEAFTER and REFERENCE
    for *values, after, mask in flat["selections"]:
        if len(values) != len(names):
            raise ReferenceUnavailable(
                f"rules of {instrument}: match on {len(values)} values, expected {len(names)}"
            )
        if not isinstance(mask, str) or is_applicable(mask):
            check_reference(mask)
        yield Rule(instrument, tuple(zip(names, map(str, values), strict=True)), str(after), mask)
