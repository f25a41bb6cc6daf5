"""Selection of the products that a CRDS context affects: by mask name, by content, by pixels.

Rows of the catalogue that every rule treats alike form a group: equal parameters, mask and planes,
and observed in one interval, between two dates at which rules change. A million products are a few
thousand groups; each group is decided once, and decides its rows.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
from astropy.io import fits

from core.errors import InputRejected, ReferenceUnavailable
from core.fits.hdus import Keywords
from core.product import NO_MASK, Form
from handler.crds.masks import MaskCache
from handler.crds.parameters import FITS_KEYWORDS
from handler.crds.rules import Rules
from handler.events import default_key
from handler.s3.objects import ObjectStore
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Rule
from infra.reprocess.catalogue import Catalogue, quoted
from infra.reprocess.compare import ChosenMask, Difference, MaskComparison, Readout

_EARLIEST, _LATEST = "0", "~"
"""Texts that sort before and after every date; a row without a date is in no interval."""
_TEXT_KEYS = ("mask", "mask_sha1", "planes_sha256", "requested_fields", "kind")
_KEYS = ", ".join((*_TEXT_KEYS, "parameters", "rows", "columns", "interval"))


@dataclass
class ContextMasks:
    """The masks that one context selects; crds runs once per parameters and interval."""

    rules: Rules
    mirror: Mirror
    context: str
    evaluated: int = 0  # number of calls of crds
    _known: dict[tuple[str, ...], ChosenMask] = field(default_factory=dict, repr=False)
    _matched: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def mask_rules(self) -> tuple[Rule, ...]:
        """The MASK rules of the context, of all instruments that the mirror holds."""
        return self.mirror.context(self.context).rules

    def choose(self, parameters: Mapping[str, Any], observed: str, interval: str) -> ChosenMask:
        """Return the mask that the context selects for parameters and a date, or the problem."""
        instrument = str(parameters.get("META.INSTRUMENT.NAME", ""))
        matched = self._matched_parameters(instrument)
        # Python takes 1, 1.0 and True as equal keys; CRDS compares their text.
        key = (instrument, interval, *(repr(parameters.get(name)) for name in matched))
        if key not in self._known:
            names = ("META.INSTRUMENT.NAME", *matched)
            header = {FITS_KEYWORDS[name]: parameters[name] for name in names if name in parameters}
            self._known[key] = self._evaluate(header, observed)
        return self._known[key]

    def _matched_parameters(self, instrument: str) -> tuple[str, ...]:
        """Return the parameters, except date and time, that an instrument's rules match on."""
        if instrument not in self._matched:
            names: tuple[str, ...] = ()
            with suppress(ReferenceUnavailable):  # best_reference reports it for every exposure
                *_, last = self.rules.mappings.chain(self.context, instrument)
                if last.endswith(".rmap"):
                    names = self.rules.mappings.load(last).get_required_parkeys()
            undated = FITS_KEYWORDS.keys() - {"META.OBSERVATION.DATE", "META.OBSERVATION.TIME"}
            self._matched[instrument] = tuple(n.upper() for n in names if n.upper() in undated)
        return self._matched[instrument]

    def _evaluate(self, header: dict[str, Any], observed: str) -> ChosenMask:
        """Return the mask that crds selects for FITS keywords and a date, or the problem."""
        self.evaluated += 1
        date, _, time = observed.partition(" ")
        header |= {k: v for k, v in (("DATE-OBS", date), ("TIME-OBS", time)) if v}
        try:
            keywords = Keywords(fits.Header(header), "exposure")
            best = self.rules.best_reference(keywords, self.context)
        except (ReferenceUnavailable, InputRejected, ValueError) as exc:
            return ChosenMask(problem=str(exc))
        return ChosenMask(best.mask or NO_MASK, best.digest.sha1 if best.digest else "")


class Effect(StrEnum):
    """The largest change to a product if it were rebuilt with the mask of a context."""

    NONE = "none"
    REQUESTED = "requested"  # none, because the request named the mask, user DQ or version
    UNDECIDED = "cannot be decided"
    NAME = "name"  # a mask of another name and equal content
    # A mask of other content; flags in the readout stay equal, or were not compared.
    CONTENT = "content"
    # A mask with other flags in the readout, or flags that cannot be compared with the earlier
    # ones.
    PIXELS = "pixels"


@dataclass(frozen=True)
class ProductGroup:
    """Products of equal parameters, mask, planes and kind, observed in one interval."""

    number: int  # identifies the group
    # Date with which it begins; ``0``: before all rules; empty: date or instrument unknown.
    interval: str
    observed: str  # the earliest date of the products; empty if unknown
    mask: str  # that built the products: file name, N/A, or S3 URI; empty if unknown
    mask_sha1: str
    planes_sha256: str
    requested_fields: str
    kind: str
    exposures: int  # number of products
    size: int  # bytes of all inputs
    shape: tuple[int, int, int, int]  # of SCI: integrations, groups, rows, columns
    parameters: Mapping[str, Any]  # that rules match on, without the date


@dataclass(frozen=True)
class Decision:
    """The effect of a context on a group of products."""

    group: ProductGroup
    effect: Effect
    before: str  # the earlier mask: file name, N/A or S3 URI; empty if unknown
    after: str  # the mask that the context selects; `before` for Effect.REQUESTED; empty if unknown
    # Computed only if content differs and pixels are compared; or a problem.
    difference: Difference = field(default_factory=Difference)


@dataclass
class WindowTotals:
    """Totals of the products of one detector and window; `reprocess select --json` prints them."""

    exposures: int = 0
    bytes: int = 0  # of the inputs
    by_change: Counter[str] = field(default_factory=Counter)  # exposures by value of `Effect`
    # Pixels that gain a flag, by mnemonic, in all products with Effect.PIXELS.
    gained: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)  # pixels that lose a flag, likewise


@dataclass
class Selection:
    """A catalogue's products in groups, and the effects of a context, which `decide` finds.

    It is valid while the catalogue is open. A catalogue can have one selection.
    """

    connection: duckdb.DuckDBPyConnection
    path: Path  # of the local copy of the catalogue
    after: ContextMasks  # the masks of the context for which products are selected
    before: ContextMasks | None = None  # None: compare with the masks that built the products
    comparison: MaskComparison | None = None  # None: do not compare pixels
    groups: list[ProductGroup] = field(init=False, default_factory=list)
    decisions: list[Decision] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.connection.execute(
            "CREATE TEMP TABLE intervals (instrument VARCHAR, start VARCHAR, stop VARCHAR)"
        )
        self.connection.executemany("INSERT INTO intervals VALUES (?, ?, ?)", self._intervals())
        self.connection.execute(
            "CREATE TEMP TABLE product_groups AS SELECT (row_number() OVER ())::INTEGER AS number, "
            f"* FROM (SELECT {_KEYS}, min(observed) AS observed, count(*) AS exposures, "
            "any_value(integrations) AS integrations, any_value(groups) AS groups, "
            "coalesce(sum(input_bytes), 0) AS size FROM "
            f"{self._rows('integrations', 'groups', 'input_bytes')} GROUP BY ALL)"
        )
        rows = self.connection.execute(
            "SELECT number, interval, observed, mask, mask_sha1, planes_sha256, requested_fields, "
            "kind, exposures, size, [integrations, groups, rows, columns], parameters "
            "FROM product_groups"
        )
        for *values, shape, parameters in rows.fetchall():
            values += [tuple(shape), json.loads(parameters)]
            self.groups.append(ProductGroup(*values))

    def decide(self) -> Iterator[Decision]:
        """Yield the decision on each group, ordered by mask, so that few masks are read twice.

        `inputs`, `requests`, `totals` and `problems` use the decisions yielded so far.
        """
        masks = {}
        for group in self.groups:
            setting = (group.parameters, group.observed, group.interval)
            after = self.after.choose(*setting)
            before = ChosenMask(group.mask, group.mask_sha1)
            if self.before is not None:
                before = self.before.choose(*setting)
            masks[group.number] = (before, after)
        # The cache keeps two masks in memory.
        for group in sorted(self.groups, key=lambda g: [m.sha1 for m in masks[g.number]]):
            self.decisions.append(self._decide(group, *masks[group.number]))
            yield self.decisions[-1]

    def inputs(self, effects: set[Effect]) -> Iterator[tuple[str, str, str, str | None]]:
        """Yield exposure bucket and key, product key and output key of affected products."""
        numbers = [d.group.number for d in self.decisions if d.effect in effects]
        names = ("input_bucket", "input_key", "product_key", "output_key")
        found = self.connection.execute(
            f"SELECT {', '.join(names)} FROM {self._rows(*names)} AS r JOIN "
            f"(SELECT {_KEYS} FROM product_groups WHERE number IN (SELECT unnest(?::INTEGER[]))) "
            f"AS g USING ({_KEYS})",
            [numbers],
        )
        while rows := found.fetchmany(10_000):
            yield from rows

    def count(self, *, relabel: bool) -> int:
        """Return the number of affected products, also of those with other prefixes."""
        effects = self._effects(relabel=relabel)
        return sum(d.group.exposures for d in self.decisions if d.effect in effects)

    def _effects(self, *, relabel: bool) -> set[Effect]:
        effects = {Effect.CONTENT if self.comparison is None else Effect.PIXELS}
        return effects | {Effect.NAME, Effect.CONTENT} if relabel else effects

    def requests(
        self, prefix: str, context: str | None = None, *, relabel: bool
    ) -> Iterator[dict[str, str]]:
        """Yield direct requests that rebuild the products below `prefix` with `Effect.PIXELS`.

        If pixels are not compared, those with `Effect.CONTENT`. `relabel` adds `Effect.NAME` and
        `CONTENT`. Without `context`, requests name none, and the function uses its CrdsContext.
        `prefix` is the OutputPrefix of the stack that processes them.
        """
        for bucket, key, product_key, output_key in self.inputs(self._effects(relabel=relabel)):
            if not product_key.startswith(prefix):
                continue
            form = Form.of_key(product_key)
            # An earlier OutputPrefix, such as dq_init/v1/, may lie below this one.
            is_default = product_key == default_key(key, prefix, form)
            fields = {
                "bucket": bucket, "key": key, "context": context,
                "outputKey": output_key if is_default else product_key, "form": form.value,
            }  # fmt: skip
            yield {name: value for name, value in fields.items() if value}

    def totals(self) -> dict[tuple[str, str, str], WindowTotals]:
        """Add up the decisions by instrument, detector and window."""
        found: dict[tuple[str, str, str], WindowTotals] = {}
        for decision in self.decisions:
            group = decision.group
            instrument = str(group.parameters.get("META.INSTRUMENT.NAME", "?"))
            detector = str(group.parameters.get("META.INSTRUMENT.DETECTOR", "?"))
            window = Readout.of(group.parameters, group.kind, group.shape).window
            total = found.setdefault((instrument, detector, window), WindowTotals())
            total.exposures += group.exposures
            total.bytes += group.size
            total.by_change[decision.effect.value] += group.exposures
            if decision.effect is Effect.PIXELS:
                for name, pixels in decision.difference.gained.items():
                    total.gained[name] += pixels * group.exposures
                for name, pixels in decision.difference.lost.items():
                    total.lost[name] += pixels * group.exposures
        return dict(sorted(found.items()))

    def problems(self) -> dict[str, int]:
        """Return the reasons why products cannot be decided, with the numbers of products."""
        found: Counter[str] = Counter()
        for decision in self.decisions:
            if decision.effect is Effect.UNDECIDED:
                found[decision.difference.problem] += decision.group.exposures
        return dict(sorted(found.items()))

    def _intervals(self) -> list[tuple[str, str, str]]:
        """Return the intervals between dates of rules: instrument, start, end (exclusive)."""
        contexts = [self.after, *([self.before] if self.before else [])]
        rules = [rule for context in contexts for rule in context.mask_rules]
        found = [("", _EARLIEST, _LATEST)]
        for instrument in sorted({rule.instrument for rule in rules}):
            dates = {rule.after for rule in rules if rule.instrument == instrument}
            starts = sorted(dates | {_EARLIEST})
            ends = zip(starts, [*starts[1:], _LATEST], strict=True)
            found += [(instrument.upper(), start, stop) for start, stop in ends]
        return found

    def _rows(self, *more: str) -> str:
        """Return an SQL subquery of the products: columns of `_KEYS`, and those in `more`."""
        # No row is kept: the catalogue streams through the join with the few intervals.
        texts = ", ".join(
            f"coalesce({name}, '') AS {name}" for name in (*_TEXT_KEYS, "observed", "instrument")
        )
        return (
            "(SELECT r.*, coalesce(i.start, '') AS interval FROM "
            f"(SELECT {texts}, parameters, rows, columns, {', '.join(more)} "
            f"FROM read_parquet({quoted(self.path)}) WHERE parameters IS NOT NULL) AS r "
            "LEFT JOIN intervals AS i ON r.instrument = i.instrument "
            "AND r.observed >= i.start AND r.observed < i.stop)"
        )

    def _decide(self, group: ProductGroup, before: ChosenMask, after: ChosenMask) -> Decision:
        """Return the decision on a group, given its earlier mask and that of the context."""
        if group.requested_fields:
            return Decision(group, Effect.REQUESTED, before.name, before.name)
        found, effect = Difference(problem=after.problem or before.problem), Effect.CONTENT
        if not found.problem and before.sha1 == after.sha1:
            effect = Effect.NONE if before == after else Effect.NAME
        elif not found.problem and self.comparison is not None:
            instrument = str(group.parameters.get("META.INSTRUMENT.NAME", ""))
            readout = Readout.of(group.parameters, group.kind, group.shape)
            found = self.comparison.compare(before, after, instrument, readout)
            # A product may have the new planes although another mask built it.
            has_planes = self.before is None and group.planes_sha256 == found.planes_sha256
            if found.changed and not has_planes:
                effect = Effect.PIXELS
        if found.problem:
            effect = Effect.UNDECIDED
        return Decision(group, effect, before.name, after.name, found)


def select(
    catalogue: Catalogue, mirror: Mirror, to: str, before: str | None = None, *, by_pixels: bool
) -> Selection:
    """Return the selection of a catalogue's products for context `to`; it is not decided yet.

    Effects are relative to context `before`; None: to the masks that built the products. Without
    `by_pixels`, masks are compared by name and SHA-1 only.
    """
    folder = catalogue.path.parent
    rules = Rules(mirror.location, folder / "mappings", mirror.client)
    comparison = None
    if by_pixels:
        cache = MaskCache(mirror.location, folder / "references")
        comparison = MaskComparison(cache, mirror.operational(), ObjectStore(mirror.client))
    return Selection(
        catalogue.connection,
        catalogue.path,
        ContextMasks(rules, mirror, rules.context_name(to)),
        ContextMasks(rules, mirror, rules.context_name(before)) if before else None,
        comparison,
    )
