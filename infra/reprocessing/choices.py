"""Which mask a context chooses, for the settings of a whole archive.

What a rule matches on apart from the date has few values, and between two dates that its rules
name nothing changes: so some thousand evaluations by `crds` decide for a million exposures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from astropy.io import fits

from core.errors import InputRejected, ReferenceUnavailable
from core.keywords import Keywords
from handler.references.parameters import FITS_KEYWORDS
from handler.references.rules import Rules
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context

__all__ = ["Choice", "Choices"]

_DATED = frozenset({"META.OBSERVATION.DATE", "META.OBSERVATION.TIME"})


@dataclass(frozen=True)
class Choice:
    """What a context says of an exposure.

    Attributes
    ----------
    mask, sha1 : str
        The mask's file name and SHA-1; ``N/A`` and empty where none applies.
    problem : str
        Why none can be chosen; empty where one can.
    """

    mask: str = ""
    sha1: str = ""
    problem: str = ""


@dataclass
class Choices:
    """What one context chooses; remembers what it was asked.

    Attributes
    ----------
    rules : `~handler.references.rules.Rules`
        The mirror's rules, as the function reads them.
    mirror : `~infra.mirror.bucket.Mirror`
        The mirror, as the operator's tool reads it.
    context : str
        The context's name.
    evaluated : int
        How often `crds` was asked.
    """

    rules: Rules
    mirror: Mirror
    context: str
    evaluated: int = 0
    _known: dict[tuple[Any, ...], Choice] = field(default_factory=dict, repr=False)
    _required: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def _read(self) -> Context:
        return self.mirror.context(self.context)

    def dates(self) -> set[tuple[str, str]]:
        """Return instruments, in upper case, and the dates from which a rule of theirs holds."""
        return {(rule.instrument.upper(), rule.after) for rule in self._read.rules}

    def choose(self, parameters: Mapping[str, Any], observed: str, interval: str) -> Choice:
        """Choose for one setting and any date of an interval between two of `dates`.

        Parameters
        ----------
        parameters : mapping
            What a rule may match on, without the date.
        observed : str
            A date and time within the interval.
        interval : str
            The date with which the interval begins.
        """
        instrument = str(parameters.get("META.INSTRUMENT.NAME", ""))
        required = self._parameters_of(instrument)
        # 1, 1.0 and True are equal to Python, and three values to CRDS, which compares text.
        asked = (instrument, interval, *(repr(parameters.get(name)) for name in required))
        if asked not in self._known:
            self._known[asked] = self._evaluate(parameters, required, observed)
        return self._known[asked]

    def _parameters_of(self, instrument: str) -> tuple[str, ...]:
        """What the rules for an instrument match on, apart from the date."""
        if instrument not in self._required:
            try:
                *_, last = self.rules.mappings.chain(self.context, instrument)
                names = self.rules.mappings.load(last).get_required_parkeys()
            except ReferenceUnavailable:  # the same is told of every exposure, when it is asked
                names = ()
            found = (name.upper() for name in names)
            self._required[instrument] = tuple(
                n for n in found if n in FITS_KEYWORDS and n not in _DATED
            )
        return self._required[instrument]

    def _evaluate(
        self, parameters: Mapping[str, Any], required: tuple[str, ...], observed: str
    ) -> Choice:
        self.evaluated += 1
        names = ("META.INSTRUMENT.NAME", *required)
        header = {FITS_KEYWORDS[n]: parameters[n] for n in names if n in parameters}
        date, _, time = observed.partition(" ")
        dated = {"DATE-OBS": date, "TIME-OBS": time}
        header |= {name: value for name, value in dated.items() if value}
        try:
            best = self.rules.best_reference(
                Keywords(fits.Header(header), "exposure"), self.context
            )
        except (ReferenceUnavailable, InputRejected, ValueError) as exc:
            return Choice(problem=str(exc))
        return Choice(best.mask or "N/A", best.digest.sha1 if best.digest else "")
