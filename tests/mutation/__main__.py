"""Mutation run: ``make mutation``; how many small changes of core/ and handler/ does no test notice?

The tests run once with coverage, which records the tests that run each line. Then every mutant of a
random sample runs the tests of its line, the fastest first, until one fails. Nothing is asserted:
survivors are printed and written to build/mutation/survivors.md, to be looked at one by one.
"""

import argparse
import ast
import difflib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pytest
from coverage import CoverageData

from tests.conftest import PROJECT
from tests.mutation.mutants import Mutant, sample

PACKAGES = ("core", "handler")
BUILD = PROJECT / "build" / "mutation"
_HANGS = 60
"""Seconds beyond its budget after which a mutant that does not end is killed."""
_PYTEST = [sys.executable, "-m", "pytest", "-p", "tests.mutation.plugin", "-p", "no:cacheprovider"]
_NO_OPTIONS = ["-o", "addopts=", "-q", "-x", "--no-header", "--tb=no"]


@dataclass(frozen=True)
class Result:
    """The outcome of one mutant: killed, timeout, survived or not covered."""

    mutant: Mutant
    outcome: str
    seconds: float
    tests: int
    diff: str


class Selection:
    """The tests that run each line, the fastest first."""

    def __init__(self, coverage: Path, durations: Path, root: Path) -> None:
        self._seconds: dict[str, float] = json.loads(durations.read_text())
        self._data = CoverageData(str(coverage))
        self._data.read()
        self._root = root

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests to run for a mutant.

        A line that runs at import is tested first by the tests of the lines that use what it
        defines, then by those of its whole file.
        """
        found = self._data.contexts_by_lineno(str(self._root / mutant.path))
        contexts = _tests(found.get(mutant.line, []))
        if contexts and "" not in found[mutant.line]:
            return self._fastest_first(contexts)
        lines = uses((self._root / mutant.path).read_text(), mutant.line)
        using = _tests(name for line in lines for name in found.get(line, []))
        others = _tests(name for names in found.values() for name in names)
        return self._fastest_first(using) + self._fastest_first(others - using)

    def _fastest_first(self, tests: Iterable[str]) -> list[str]:
        return sorted(tests, key=lambda name: (self._seconds.get(name, 0.0), name))


def uses(source: str, line: int) -> set[int]:
    """Return the lines that use what a line defines: a constant, a class, a decorated function."""
    tree = ast.parse(source)
    names, lines = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= line <= (node.end_lineno or line):
                lines |= set(range(first, (node.end_lineno or line) + 1))
                names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and (
            node.lineno <= line <= (node.end_lineno or line)
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if (isinstance(node, ast.Name) and node.id in names) or (
            isinstance(node, ast.Attribute) and node.attr in names
        ):
            lines.add(node.lineno)
    return lines


def _tests(contexts: Iterable[str]) -> set[str]:
    """Return the tests of contexts such as ``tests/x.py::test_y|run``."""
    return {context.rpartition("|")[0] for context in contexts if context}


def main() -> None:
    """Run it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=200, help="size of the sample (200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (0)")
    parser.add_argument("--minutes", type=float, default=25, help="bound of the mutants' time (25)")
    parser.add_argument("--budget", type=float, default=60, help="seconds of one mutant (60)")
    parser.add_argument("--tests", nargs="*", default=[], help="pytest's arguments for the record")
    parser.add_argument("--keep", action="store_true", help="use the last record of coverage")
    arguments = parser.parse_args()
    if not arguments.keep:
        record(arguments.tests)
    selection = Selection(BUILD / "coverage", BUILD / "durations.json", BUILD / "recorded")
    mutants = sample(BUILD / "recorded", PACKAGES, arguments.mutants, arguments.seed)
    results = run(mutants, selection, arguments.minutes * 60, arguments.budget)
    text = page(results, arguments.seed, len(mutants))
    (BUILD / "survivors.md").write_text(text)
    print(text)


def record(tests: list[str]) -> None:
    """Copy the project, and run its tests there once, with coverage by test."""
    shutil.rmtree(BUILD, ignore_errors=True)
    copy_project(BUILD / "recorded")
    cov = [*(f"--cov={name}" for name in PACKAGES), "--cov-context=test", "--cov-report="]
    places = {
        "COVERAGE_FILE": str(BUILD / "coverage"),
        "MUTATION_DURATIONS": str(BUILD / "durations.json"),
    }
    done = subprocess.run(
        [*_PYTEST, "-n", "2", *cov, *tests],
        cwd=BUILD / "recorded",
        env=os.environ | places,
        check=False,
    )
    if done.returncode:
        sys.exit("mutation: a test fails without a mutant, expected none; fix it first")


def copy_project(folder: Path) -> None:
    """Copy the files that git knows or does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)


def run(mutants: list[Mutant], selection: Selection, seconds: float, budget: float) -> list[Result]:
    """Run the tests of every mutant until the time is over, two mutants at a time."""
    workers: SimpleQueue[Path] = SimpleQueue()
    for number in range(2):
        folder = BUILD / f"worker-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(BUILD / "recorded", folder / "project")
        (folder / "tmp").mkdir()
        workers.put(folder)
    end = time.monotonic() + seconds

    def one(mutant: Mutant) -> Result | None:
        if time.monotonic() > end:
            return None
        folder = workers.get()
        try:
            result = try_mutant(mutant, selection.tests(mutant), folder, budget)
        finally:
            workers.put(folder)
        print(
            f"{result.outcome:11} {result.seconds:5.0f} s  {mutant.path}:{mutant.line}", flush=True
        )
        return result

    with ThreadPoolExecutor(2) as pool:
        return [result for result in pool.map(one, mutants) if result is not None]


def try_mutant(mutant: Mutant, tests: list[str], folder: Path, budget: float) -> Result:
    """Change a file, run the tests of the line, and change the file back."""
    path = folder / "project" / mutant.path
    source = path.read_text()
    code = mutant.code(source)
    diff = "".join(difflib.unified_diff(source.splitlines(True), code.splitlines(True), n=0))
    started = time.monotonic()
    path.write_text(code)
    try:
        outcome = _outcome(tests, folder, budget) if tests else "not covered"
    finally:
        path.write_text(source)
        shutil.rmtree(folder / "tmp")
        (folder / "tmp").mkdir()
    return Result(mutant, outcome, time.monotonic() - started, len(tests), diff)


def _outcome(tests: list[str], folder: Path, budget: float) -> str:
    names = folder / "tests.txt"
    names.write_text("\n".join(tests))
    places = {"MUTATION_BUDGET": str(budget), "TMPDIR": str(folder / "tmp")}
    process = subprocess.Popen(
        [*_PYTEST, *_NO_OPTIONS, f"@{names}"],
        cwd=folder / "project",
        env=os.environ | places | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = process.wait(timeout=budget + _HANGS)
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        with suppress(ProcessLookupError):  # what the tests have started ends, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise RuntimeError(f"{names}: no test was run, expected {len(tests)}; record them again")
    return "killed" if code else "survived"


def page(results: list[Result], seed: int, sampled: int) -> str:
    """Return the counts, and a table of the mutants that no test noticed."""
    counts = Counter(result.outcome for result in results)
    alive = [result for result in results if result.outcome in ("survived", "not covered")]
    share = len(alive) / max(len(results), 1)
    lines = [
        "# Mutants that no test notices",
        "",
        f"Seed {seed}: {len(results)} of {sampled} mutants tried, "
        + ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
        + f"; {share:.1%} unnoticed.",
        "",
        "| mutant | outcome | tests | before | after |",
        "|---|---|---|---|---|",
    ]
    for result in sorted(alive, key=lambda result: result.mutant):
        changed = [line[:1] + _cell(line[1:]) for line in result.diff.splitlines()[3:]]
        before, after = (" ".join(c[1:] for c in changed if c[0] == sign) for sign in "-+")
        mutant = result.mutant
        cells = f"{mutant.path}:{mutant.line}", result.outcome, str(result.tests), before, after
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(code: str) -> str:
    """Return a line of code for a cell of a Markdown table."""
    return f"`{code.strip()}`".replace("|", "\\|")


if __name__ == "__main__":
    main()
