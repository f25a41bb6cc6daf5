"""Which products a context would make otherwise: by another name, another content, other pixels.

The rows are put into groups of equal setting, interval of dates, mask and planes: some thousand of
them stand for an archive. Each group is decided once; then the rows are picked by their group.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
from astropy.io import fits

from core.errors import InputRejected, ReferenceUnavailable
from core.fits.hdus import Keywords
from handler.crds.parameters import FITS_KEYWORDS
from handler.crds.rules import Rules
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context
from infra.reprocess.catalogue import quoted
from infra.reprocess.compare import Differences, Readout

__all__ = [
    "Change",
    "Choice",
    "Choices",
    "Decision",
    "Group",
    "Selection",
    "Tally",
]

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
    rules : `~handler.crds.rules.Rules`
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


class Change(StrEnum):
    """How a product would differ; what is later in this list implies what comes before it."""

    NONE = "none"
    EXPRESSLY = "named expressly"
    PROBLEM = "cannot be decided"
    NAME = "name"
    CONTENT = "content"
    PIXELS = "pixels"


@dataclass(frozen=True)
class Group:
    """Products that differ in nothing that matters.

    Attributes
    ----------
    number : int
        Its own.
    parameters : mapping
        What a rule may match on, without the date.
    interval, observed : str
        The date with which the interval of unchanging rules begins, and a date within it.
    mask, mask_sha1, planes_sha256, expressly, kind : str
        As in the catalogue.
    shape : tuple of int
        Of SCI.
    exposures, size : int
        How many, and how many bytes of input.
    """

    number: int
    parameters: Mapping[str, Any]
    interval: str
    observed: str
    mask: str
    mask_sha1: str
    planes_sha256: str
    expressly: str
    kind: str
    shape: tuple[int, int, int, int]
    exposures: int
    size: int


@dataclass(frozen=True)
class Decision:
    """What is decided of a group.

    Attributes
    ----------
    group : `Group`
        The group.
    change : `Change`
        How its products would differ.
    before, after : str
        Masks.
    gained, lost : mapping of str to int
        Pixels of one exposure that gain or lose a flag, by mnemonic.
    problem : str
        Why it cannot be decided.
    """

    group: Group
    change: Change
    before: str = ""
    after: str = ""
    gained: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


@dataclass
class Tally:
    """What is told of an instrument's detector and window."""

    exposures: int = 0
    size: int = 0
    by_change: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    gained: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    lost: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, decision: Decision) -> None:
        """Count a group in; flags are counted over all its exposures."""
        number = decision.group.exposures
        self.exposures += number
        self.size += decision.group.size
        self.by_change[decision.change.value] += number
        for mine, theirs in ((self.gained, decision.gained), (self.lost, decision.lost)):
            for name, pixels in theirs.items():
                mine[name] += pixels * number

    def to_plain(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "exposures": self.exposures,
            "bytes": self.size,
            "by_change": dict(self.by_change),
            "gained": dict(self.gained),
            "lost": dict(self.lost),
        }

    def merge(self, other: "Tally") -> None:
        """Count in what another has counted."""
        self.exposures += other.exposures
        self.size += other.size
        for mine, theirs in (
            (self.by_change, other.by_change),
            (self.gained, other.gained),
            (self.lost, other.lost),
        ):
            for name, number in theirs.items():
                mine[name] += number


@dataclass(frozen=True)
class Selection:
    """Selects from a catalogue.

    Attributes
    ----------
    path : `pathlib.Path`
        The catalogue's Parquet file.
    to : `~infra.reprocess.select.Choices`
        The context that products are to be held against.
    compared : `~infra.reprocess.select.Choices` or None
        Another context, in place of the masks that the products were made with.
    differences : `~infra.reprocess.compare.Differences` or None
        Compares pixels; None to leave it at names and contents.
    """

    path: Path
    to: Choices
    compared: Choices | None = None
    differences: Differences | None = None

    def groups(self, connection: duckdb.DuckDBPyConnection) -> list[Group]:
        """Put the catalogue's products into groups."""
        connection.execute(
            "CREATE TEMP TABLE intervals (instrument VARCHAR, start VARCHAR, stop VARCHAR)"
        )
        connection.executemany("INSERT INTO intervals VALUES (?, ?, ?)", self._intervals())
        connection.execute(
            f"CREATE TEMP TABLE groups AS SELECT (row_number() OVER ())::INTEGER AS number, * FROM "
            f"(SELECT {_KEYS}, min(observed) AS observed, any_value(integrations) AS integrations, "
            "any_value(groups) AS groups, count(*) AS exposures, sum(input_bytes) AS size "
            f"FROM {self._rows('integrations', 'groups', 'input_bytes')} GROUP BY ALL)"
        )
        rows = connection.execute(
            "SELECT number, parameters, interval, observed, mask, mask_sha1, planes_sha256, "
            "expressly, kind, [integrations, groups, rows, columns] AS shape, exposures, "
            "coalesce(size, 0) AS size FROM groups"
        )
        names = [name for name, *_ in rows.description]
        found = (dict(zip(names, row, strict=True)) for row in rows.fetchall())
        return [
            Group(
                **{
                    **row,
                    "parameters": json.loads(row["parameters"]),
                    "shape": tuple(row["shape"]),
                }
            )
            for row in found
        ]

    def decide(
        self, groups: list[Group], watched: Callable[[list[Group]], Iterable[Group]] = iter
    ) -> Iterator[Decision]:
        """Decide of every group, masks that are compared with each other one after another."""
        pairs = {group.number: self._masks(group) for group in groups}

        def masks(group: Group) -> tuple[str, str, int]:
            before, after = pairs[group.number]
            return before.sha1, after.sha1, group.number

        for group in watched(sorted(groups, key=masks)):
            yield self._decided(group, *pairs[group.number])

    def pick(
        self, connection: duckdb.DuckDBPyConnection, numbers: list[int]
    ) -> Iterator[tuple[str, str, str | None]]:
        """Yield bucket and key of the inputs of some groups, and the key that was asked for."""
        connection.execute("CREATE OR REPLACE TEMP TABLE picked (number INTEGER)")
        for start in range(0, len(numbers), 1000):
            some = ", ".join(f"({number})" for number in numbers[start : start + 1000])
            connection.execute(f"INSERT INTO picked VALUES {some}")
        catalogue = self._rows("input_bucket", "input_key", "output_key")
        found = connection.execute(
            f"SELECT input_bucket, input_key, output_key FROM {catalogue} AS r "
            f"JOIN (SELECT {_KEYS} FROM groups JOIN picked USING (number)) AS g USING ({_KEYS})"
        )
        while rows := found.fetchmany(10_000):
            yield from rows

    def _intervals(self) -> list[tuple[str, str, str]]:
        """Instruments, and intervals of dates within which no rule of theirs begins."""
        dates = self.to.dates() | (self.compared.dates() if self.compared else set())
        found = [("", _FIRST, _LAST)]
        for instrument in sorted({name for name, _ in dates}):
            starts = sorted({date for name, date in dates if name == instrument} | {_FIRST})
            stops = [*starts[1:], _LAST]
            found += [(instrument, *both) for both in zip(starts, stops, strict=True)]
        return found

    def _rows(self, *more: str) -> str:
        """The products, each with the beginning of its interval.

        The join streams through the archive, with the few intervals at hand: no row is kept.
        """
        columns = ", ".join(
            f"coalesce({name}, '') AS {name}" if name in _TEXTS else name
            for name in (*_OF_ROW, "observed", "instrument", *more)
        )
        return (
            f"(SELECT r.*, coalesce(i.start, '') AS interval FROM (SELECT {columns} "
            f"FROM read_parquet({quoted(self.path)}) WHERE parameters IS NOT NULL) AS r "
            "LEFT JOIN intervals AS i ON r.instrument = i.instrument "
            "AND r.observed >= i.start AND r.observed < i.stop)"
        )

    def _masks(self, group: Group) -> tuple[Choice, Choice]:
        asked = (group.parameters, group.observed, group.interval)
        after = self.to.choose(*asked)
        if self.compared is not None:
            return self.compared.choose(*asked), after
        return Choice(group.mask, group.mask_sha1), after

    def _decided(self, group: Group, before: Choice, after: Choice) -> Decision:
        if group.expressly:
            return Decision(group, Change.EXPRESSLY, before.mask, before.mask)
        problem = after.problem or before.problem
        if problem:
            return Decision(group, Change.PROBLEM, before.mask, after.mask, problem=problem)
        if before == after:
            return Decision(group, Change.NONE, before.mask, after.mask)
        usual = Change.NAME if before.sha1 == after.sha1 else Change.CONTENT
        if self.differences is None or usual is Change.NAME:
            return Decision(group, usual, before.mask, after.mask)
        return self._compared(group, before, after)

    def _compared(self, group: Group, before: Choice, after: Choice) -> Decision:
        assert self.differences is not None
        try:
            return self._by_pixels(group, before, after, self.differences)
        except (ValueError, TypeError, OverflowError, KeyError) as exc:
            problem = f"{group.kind} {group.shape}: {exc}"
            return Decision(group, Change.PROBLEM, before.mask, after.mask, problem=problem)

    def _by_pixels(
        self, group: Group, before: Choice, after: Choice, differences: Differences
    ) -> Decision:
        readout = Readout.of(group.parameters, group.kind, group.shape)
        named = str(group.parameters.get("META.INSTRUMENT.NAME", ""))
        found = differences.between(
            (before.mask, before.sha1), (after.mask, after.sha1), named, readout
        )
        masks = (before.mask, after.mask)
        if found.problem:
            return Decision(group, Change.PROBLEM, *masks, problem=found.problem)
        planes = "" if self.compared is not None else group.planes_sha256
        if not found.is_told_by(planes):
            return Decision(group, Change.CONTENT, *masks)
        return Decision(group, Change.PIXELS, *masks, found.gained, found.lost)


_FIRST, _LAST = "0", "~"
"""Before and after every date, as texts are compared; a row without a date is in no interval."""
_OF_ROW = (
    "parameters", "mask", "mask_sha1", "planes_sha256", "expressly", "kind", "rows", "columns",
)  # fmt: skip
_TEXTS = frozenset(
    {"mask", "mask_sha1", "planes_sha256", "expressly", "observed", "instrument", "kind"}
)
_KEYS = ", ".join((*_OF_ROW, "interval"))
