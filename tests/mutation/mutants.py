"""A random sample of mutants, made by the operators of cosmic-ray."""

import ast
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

__all__ = ["Mutant", "sample"]

_LEFT_OUT = ("VariableReplacer", "VariableInserter")
"""Operators that need a variable's name."""


@dataclass(frozen=True, order=True)
class Mutant:
    """One small change of one file.

    Attributes
    ----------
    path : str
        The file, relative to the project.
    line : int
        The line that is changed.
    operator : str
        The operator of cosmic-ray.
    occurrence : int
        The place among those of the file that the operator may change.
    """

    path: str
    line: int
    operator: str
    occurrence: int

    def code(self, source: str) -> str:
        """Return the file's code after the change."""
        mutated: str | None = mutate_code(source, get_operator(self.operator)(), self.occurrence)
        if mutated is None:
            raise ValueError(f"{self}: the operator changes nothing, expected a change")
        return mutated


def sample(root: Path, packages: tuple[str, ...], number: int, seed: int) -> list[Mutant]:
    """Return a random sample of the mutants of some packages.

    The place is chosen first, and then one of the operators that may change it: a comparison has
    ten operators and a number one, and each is as likely to be wrong.

    Parameters
    ----------
    root : `pathlib.Path`
        The project.
    packages : tuple of str
        The packages to mutate.
    number : int
        The size of the sample.
    seed : int
        The seed of the sample.

    Returns
    -------
    list of Mutant
        The sample, in random order.
    """
    places: dict[tuple[str, int, int], list[Mutant]] = defaultdict(list)
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            for column, mutant in _mutants(path, path.relative_to(root).as_posix()):
                places[mutant.path, mutant.line, column].append(mutant)
    chance = random.Random(seed)
    chosen = chance.sample(sorted(places), min(number, len(places)))
    return [chance.choice(places[place]) for place in chosen]


def _mutants(path: Path, name: str) -> Iterator[tuple[int, Mutant]]:
    """Yield every mutant of a file with its column."""
    source = path.read_text()
    nodes = list(ast_nodes(get_ast(source)))
    hints = _without_behaviour(source)
    for operator in operator_names():
        if operator.endswith(_LEFT_OUT):
            continue
        positions = (p for node in nodes for p in get_operator(operator)().mutation_positions(node))
        for occurrence, ((line, column), _) in enumerate(positions):
            if not any(start <= (line, column) < end for start, end in hints):
                yield column, Mutant(name, line, operator, occurrence)


def _without_behaviour(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the ranges of type hints, which mypy checks, and of ``@dataclass(frozen=True)``."""
    ranges = []
    for node in ast.walk(ast.parse(source)):
        found = [getattr(node, name, None) for name in ("annotation", "returns")]
        found += [one for one in getattr(node, "decorator_list", []) if isinstance(one, ast.Call)]
        for one in found:
            if isinstance(one, ast.expr):
                end = one.end_lineno or one.lineno, one.end_col_offset or one.col_offset
                ranges.append(((one.lineno, one.col_offset), end))
    return ranges
