"""The products of an archive that a context would make otherwise: catalogue and mirror together."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from handler.crds.masks import MaskCache
from handler.crds.rules import Rules
from handler.s3.objects import ObjectStore
from infra.mirror.bucket import Mirror
from infra.reprocess.catalogue import Catalogue, database
from infra.reprocess.compare import Differences, Readout
from infra.reprocess.select import Change, Choices, Decision, Group, Selection, Tally

__all__ = ["Affected", "Question", "affected"]

Window = tuple[str, str, str]
"""Instrument, detector, and what was read out in words."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes
    ----------
    to : str
        The context that products are held against: its name, ``latest`` or ``build``.
    compared : str or None
        Another context, in place of the masks that the products were made with.
    by_pixels : bool
        Whether pixels are compared, or only names and contents.
    """

    to: str
    compared: str | None = None
    by_pixels: bool = True

    def wanted(self, *, relabel: bool) -> set[Change]:
        """Return the changes for which a product is made anew."""
        usual = {Change.PIXELS} if self.by_pixels else {Change.CONTENT}
        return usual | ({Change.NAME, Change.CONTENT} if relabel else set())


@dataclass(frozen=True)
class Affected:
    """The answer.

    Attributes
    ----------
    to : str
        Name of the context.
    decisions : list of `~infra.reprocess.select.Decision`
        What is decided of every group of products.
    selection : `~infra.reprocess.select.Selection`
        What they were decided by.
    connection : `duckdb.DuckDBPyConnection`
        What the products are picked from.
    """

    to: str
    decisions: list[Decision]
    selection: Selection
    connection: duckdb.DuckDBPyConnection

    def requests(self, wanted: set[Change], context: str | None = None) -> Iterator[dict[str, str]]:
        """Yield the direct requests that rebuild products.

        They name a context only if the operator did: the function uses the one that is operational
        when it processes them.
        """
        numbers = [d.group.number for d in self.decisions if d.change in wanted]
        for bucket, key, output_key in self.selection.pick(self.connection, numbers):
            fields = {"bucket": bucket, "key": key, "context": context, "outputKey": output_key}
            yield {name: value for name, value in fields.items() if value}

    def tallies(self) -> dict[Window, Tally]:
        """Count by instrument, detector and window."""
        found: dict[Window, Tally] = {}
        for decision in self.decisions:
            group = decision.group
            named = (group.parameters.get(f"META.INSTRUMENT.{n}", "?") for n in _NAMED)
            instrument, detector = map(str, named)
            window = Readout.of(group.parameters, group.kind, group.shape).window
            found.setdefault((instrument, detector, window), Tally()).add(decision)
        return dict(sorted(found.items()))

    def problems(self) -> dict[str, int]:
        """Why products cannot be decided of, and how many."""
        found: dict[str, int] = {}
        for decision in self.decisions:
            if decision.problem:
                number = decision.group.exposures
                found[decision.problem] = found.get(decision.problem, 0) + number
        return dict(sorted(found.items()))


_NAMED = ("NAME", "DETECTOR")


@contextmanager
def affected(
    catalogue: Catalogue,
    mirror: Mirror,
    question: Question,
    watched: Callable[[list[Group]], Iterable[Group]] = iter,
) -> Iterator[Affected]:
    """Find out what a context affects.

    Parameters
    ----------
    catalogue : `~infra.reprocess.catalogue.Catalogue`
        The archive's products.
    mirror : `~infra.mirror.bucket.Mirror`
        The CRDS mirror.
    question : `Question`
        What is asked.
    watched : callable
        Lets somebody watch the groups being decided.
    """
    with tempfile.TemporaryDirectory() as name, database(Path(name)) as connection:
        folder, s3 = Path(name), mirror.client
        rules = Rules.of(mirror.location, folder / "mappings", s3)
        to = rules.context_name(question.to)
        other = question.compared and rules.context_name(question.compared)
        selection = Selection(
            catalogue.path,
            Choices(rules, mirror, to),
            Choices(rules, mirror, other) if other else None,
            _differences(mirror, folder, s3) if question.by_pixels else None,
        )
        groups = selection.groups(connection)
        yield Affected(to, list(selection.decide(groups, watched)), selection, connection)


def _differences(mirror: Mirror, folder: Path, s3: Any) -> Differences:
    masks = MaskCache(mirror.location, folder / "references")
    return Differences(masks, mirror.operational(), ObjectStore(s3))
