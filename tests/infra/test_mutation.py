"""The mutation run: its sample, the choice of tests, and its table."""

import ast
import json
from pathlib import Path

import pytest
from coverage import CoverageData

from tests.conftest import PROJECT
from tests.mutation.__main__ import Result, Selection, page, try_mutant, uses
from tests.mutation.mutants import Mutant, sample

SOURCE = """\
LIMIT: "int | None" = 3


def is_small(number: int | None = None) -> bool | None:
    if number is None:
        return None
    return number < LIMIT
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "small.py").write_text(SOURCE)
    (tmp_path / "tmp").mkdir()
    return folder


def write_test(project: Path, condition: str) -> list[str]:
    code = f"from code_.small import is_small\n\ndef test_it():\n    assert {condition}\n"
    (project / "code").rename(project / "code_")
    (project / "test_small.py").write_text(code)
    for name in ("tests", "tests/mutation"):
        (project / name).mkdir()
        (project / name / "__init__.py").touch()
    plugin = (PROJECT / "tests" / "mutation" / "plugin.py").read_text()
    (project / "tests" / "mutation" / "plugin.py").write_text(plugin)
    return ["test_small.py::test_it"]


def less(path: str) -> Mutant:
    return Mutant(path, 7, "core/ReplaceComparisonOperator_Lt_LtE", 0)


def test_sample_of_a_seed_is_the_same_again(project: Path) -> None:
    first, again, other = (sample(project, ("code",), 4, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_mutants_are_valid_and_no_type_hint_is_changed(project: Path) -> None:
    found = sample(project, ("code",), 100, 0)
    assert {mutant.line for mutant in found} >= {1, 5, 7}
    for mutant in found:
        code = mutant.code(SOURCE)
        ast.parse(code)
        assert code != SOURCE
        assert "def is_small(number: int | None = None) -> bool | None:" in code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "outcome"),
    [("is_small(2) and not is_small(3)", "killed"), ("is_small(2)", "survived")],
)
def test_mutant_lives_if_no_test_notices(condition: str, outcome: str, project: Path) -> None:
    tests = write_test(project, condition)
    result = try_mutant(less("code_/small.py"), tests, project.parent, 30)
    assert (result.outcome, result.tests) == (outcome, 1)
    assert (project / "code_" / "small.py").read_text() == SOURCE, "the change is undone"


def test_mutant_that_no_test_runs_is_not_covered(project: Path) -> None:
    assert try_mutant(less("code/small.py"), [], project.parent, 30).outcome == "not covered"


def test_tests_that_use_a_line_run_fastest_first(tmp_path: Path) -> None:
    (tmp_path / "durations.json").write_text(json.dumps({"slow": 2.0, "fast": 0.1, "other": 1.0}))
    data = CoverageData(str(tmp_path / "coverage"))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "small.py").write_text(SOURCE)
    path = str(tmp_path / "code" / "small.py")
    for context, lines in (("", [1, 4]), ("slow|run", [7]), ("fast|run", [7]), ("other|run", [5])):
        data.set_context(context)
        data.add_lines({path: lines})
    data.write()
    selection = Selection(tmp_path / "coverage", tmp_path / "durations.json", tmp_path)
    assert selection.tests(less("code/small.py")) == ["fast", "slow"]
    at_import = Mutant("code/small.py", 1, "core/NumberReplacer", 0)
    assert selection.tests(at_import) == ["fast", "slow", "other"], "line 7 uses LIMIT"


def test_table_counts_survivors_and_shows_them() -> None:
    diff = "--- \n+++ \n@@ -7 +7 @@\n-    return number < LIMIT\n+    return number <= LIMIT\n"
    results = [
        Result(less("a.py"), "survived", 1.0, 3, diff),
        Result(less("b.py"), "killed", 1.0, 3, diff),
    ]
    text = page(results, 0, 5)
    assert "2 of 5 mutants tried, 1 killed, 1 survived; 50.0% unnoticed" in text
    assert "| a.py:7 | survived | 3 | `return number < LIMIT` | `return number <= LIMIT` |" in text
    assert "b.py" not in text


def test_uses_of_a_constant_and_a_class_are_found() -> None:
    source = "LIMIT = 3\n\nclass A:\n    x: int = 1\n\n\ndef f():\n    return LIMIT, A().x\n"
    assert uses(source, 1) == {1, 8}
    assert uses(source, 4) == {3, 4, 8}
