"""The files of the project agree: workflows, hooks, changelog, citation, threat model."""

import re
import shlex
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from core import EQUALS_JWST, __version__
from tests.conftest import PROJECT

GITHUB = PROJECT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
MAKEFILE = (PROJECT / "Makefile").read_text()
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
CHANGELOG = (PROJECT / "CHANGELOG.md").read_text()
ADDRESS = PYPROJECT["project"]["urls"]["Repository"]


def read(path: Path) -> dict[str, Any]:
    # BaseLoader reads "on" as a word and builds only text, lists and dictionaries.
    return yaml.load(path.read_text(), yaml.BaseLoader)  # noqa: S506


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return read(path)["jobs"]


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job.get("steps", [])]


def commands(path: Path) -> str:
    """Return the shell commands of a workflow, and the targets that its matrices name."""
    named = [
        f"make {entry['targets']}"
        for job in jobs(path).values()
        for entry in job.get("strategy", {}).get("matrix", {}).get("include", [])
    ]
    return "\n".join([*named, *(step.get("run", "") for step in steps(path))])


def code(path: Path) -> str:
    """Return the commands of a file; of Markdown, what is between backticks."""
    if path in WORKFLOWS:
        return commands(path)
    text = path.read_text()
    return "\n".join(re.findall(r"`+([^`]+)`", text)) if path.suffix == ".md" else text


def made(text: str) -> set[str]:
    """Return the targets of the ``make`` commands in a text."""
    words = chain.from_iterable(line.split() for line in re.findall(r"\bmake ([^;|&#\n]+)", text))
    return {word for word in words if re.fullmatch(r"\.?[a-z][a-z0-9/-]*", word)}


def prerequisites(target: str) -> list[str]:
    (found,) = re.findall(rf"^{target}:(.*)$", MAKEFILE, re.MULTILINE)
    return found.split()


@pytest.mark.parametrize(
    "name",
    [
        *(path.relative_to(PROJECT) for path in WORKFLOWS),
        ".github/CONTRIBUTING.md",
        ".github/PULL_REQUEST_TEMPLATE.md",
        ".ci/run",
    ],
    ids=str,
)
def test_every_make_target_exists(name: str) -> None:
    targets = set(re.findall(r"^([\w./-]+):", MAKEFILE, re.MULTILINE))
    named = made(code(PROJECT / name))
    assert named
    assert named <= targets


def test_targets_of_ci_run_are_in_the_workflow() -> None:
    ci = (PROJECT / ".ci" / "run").read_text()
    # The tracer slows timed tests; the coverage is printed only.
    assert made(ci) - {"coverage"} <= made(commands(GITHUB / "workflows" / "ci.yml"))


def test_environment_of_ci_run_is_the_workflows() -> None:
    ci = (PROJECT / ".ci" / "run").read_text()
    exported = re.findall(r"^export (.*)$", ci, re.MULTILINE)
    expected = dict(word.split("=", 1) for line in exported for word in shlex.split(line))
    expected.pop("COLUMNS")
    assert read(GITHUB / "workflows" / "ci.yml")["env"] == expected


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert used
    for action, comment in used:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_have_a_timeout_and_least_permissions(path: Path) -> None:
    assert read(path)["permissions"] == {}
    for name, job in jobs(path).items():
        written = {key for key, value in job["permissions"].items() if value == "write"}
        assert not written or (path.name, name) in {
            ("release.yml", "pypi"),
            ("release.yml", "github"),
        }
        assert "uses" in job or int(job["timeout-minutes"]) <= 180


def test_jobs_that_write_run_no_code_of_the_project() -> None:
    for job in jobs(GITHUB / "workflows" / "release.yml").values():
        if "write" in job["permissions"].values():
            text = yaml.dump(job)
            assert "actions/checkout" not in text
            assert not made(text)


def test_tested_pythons_are_the_classifiers() -> None:
    tested = jobs(GITHUB / "workflows" / "ci.yml")["test"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    classified = [
        line.removeprefix(prefix)
        for line in PYPROJECT["project"]["classifiers"]
        if re.fullmatch(rf"{prefix}3\.\d+", line)
    ]
    assert classified == tested
    assert PYPROJECT["project"]["requires-python"] == f">={tested[0]}"


def test_hooks_run_what_make_lint_runs() -> None:
    (repo,) = read(PROJECT / ".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in repo["hooks"]] == [
        f"make {target}" for target in prerequisites("lint")
    ]


def test_uv_of_the_release_is_that_of_the_tools() -> None:
    (pinned,) = (p for p in PYPROJECT["dependency-groups"]["tools"] if p.startswith("uv=="))
    assert f"--spec {pinned} " in commands(GITHUB / "workflows" / "release.yml")


def test_changelog_and_citation_have_the_version() -> None:
    citation = read(PROJECT / "CITATION.cff")
    first, second = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)[:2]
    assert first == "[Unreleased]"
    assert second == f"[{__version__}] - {citation['date-released']}"
    assert citation["version"] == __version__
    assert [reference["version"] for reference in citation["references"]] == [EQUALS_JWST]


def test_changelog_has_only_headings_of_keep_a_changelog() -> None:
    allowed = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= allowed


def test_release_notes_are_the_section_of_the_tag(tmp_path: Path) -> None:
    (script,) = (
        step["run"] for step in steps(GITHUB / "workflows" / "release.yml")
        if step.get("name") == "Write the notes"
    )  # fmt: skip
    (tmp_path / "build").mkdir()
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    command = ["bash", "-e", "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env={"GITHUB_REF_NAME": f"v{__version__}"}, check=False
    )
    assert done.returncode == 0
    notes = (tmp_path / "build" / "notes.md").read_text()
    assert notes.strip()
    assert notes in CHANGELOG
    assert "\n## " not in notes
    other = subprocess.run(command, cwd=tmp_path, env={"GITHUB_REF_NAME": "v99.0.0"}, check=False)
    assert other.returncode, "a version without a section is not released"


def test_addresses_are_those_of_pyproject() -> None:
    files = [*GITHUB.rglob("*.md"), *GITHUB.rglob("*.yml"), PROJECT / "CITATION.cff", PROJECT / "CHANGELOG.md"]  # fmt: skip
    owner, name = ADDRESS.rsplit("/", 2)[1:]
    for path in files:
        for found in re.findall(rf"github\.com/([\w.-]+)/{name}\b", path.read_text()):
            assert found == owner, path


@pytest.mark.parametrize("path", sorted(GITHUB.glob("*.md")), ids=lambda path: path.name)
def test_links_of_the_project_files_exist(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_issue_forms_ask_for_event_headers_and_version() -> None:
    forms = sorted((GITHUB / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
    assert len(forms) == 2
    for form in forms:
        text = form.read_text()
        for asked in ("Event JSON", "fitsheader", "dq-init --version"):
            assert asked in text


def test_tests_of_the_threat_model_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (PROJECT / "docs" / "threat-model.md").read_text()))
    defined = {
        name
        for path in (PROJECT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 30
    assert named <= defined
