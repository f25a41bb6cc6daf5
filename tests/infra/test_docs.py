"""The documentation: commands, code blocks and links do what they say."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import click
import duckdb
import jsonschema
import pytest
from botocore import xform_name

from core.errors import InputRejected
from handler.events import _FIELDS, ExposureRequest
from infra.__main__ import main, program
from infra.cost.estimate import MONTHLY
from infra.cost.prices import measured
from infra.reprocess.catalogue import COLUMNS
from tests.conftest import PROJECT, Harness
from tests.infra.template import load

DIRECT = json.loads(
    (PROJECT / "infra" / "contracts" / "direct-request-1.0.schema.json").read_text()
)
TEMPLATE, MIRROR_TEMPLATE = load(), load("infra/mirror.yaml")
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.M | re.S)
MAKEFILE = (PROJECT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.M))
SHELL = {"source", "python", "export", "for", "git"}
RUN_BLOCKS = {
    "docs/continue-with-jwst.md": 3,  # conformance/test_continue.py
    "docs/how-to/events.md": 1,  # scenarios/test_using.py
    "docs/how-to/library.md": 1,  # core/test_in_memory.py
    "docs/how-to/use-products.md": 2,  # scenarios/test_using.py
    "docs/how-to/virtual.md": 1,  # infra/test_expand.py
    "docs/laptop.md": 4,  # infra/test_local_docs.py
    "docs/tutorial.md": 2,  # below
}
"""Python blocks of each page, and the file below tests/ that runs every one of them."""
OWN_OF_AWS_CLI = {("s3", "cp"), ("s3", "ls"), ("s3", "mb"), ("cloudformation", "deploy")}
RENAMED_BY_AWS_CLI = {"--notification-endpoint": "--endpoint", "--no-enabled": "--enabled"}


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}: {self.text.strip()[:60]}"


def blocks(language: str = "") -> list[Block]:
    found = [
        Block(page, *match)
        for page in PAGES
        for match in FENCE.findall(page.read_text(encoding="utf-8"))
    ]
    return [block for block in found if not language or block.language == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands() -> Iterator[tuple[str, list[str]]]:
    """Split the commands of every shell block into words; in a console block, output follows."""
    for block in (*blocks("bash"), *blocks("console")):
        for line in block.text.replace("\\\n", " ").splitlines():
            is_command = line.strip() if block.language == "bash" else line.startswith("$ ")
            if is_command:
                words = shlex.split(re.sub(r"^(\$ )?([A-Z0-9_]+=\S+ )*", "", line))
                yield str(block.page.relative_to(PROJECT)), words


def spans() -> Iterator[tuple[str, list[str]]]:
    """Split the commands in the text of every page into words."""
    for page in PAGES:
        for text in re.findall(r"`((?:dq-init|make) [^`]+)`", prose(page)):
            yield str(page.relative_to(PROJECT)), shlex.split(text)


def ours(words: list[str]) -> list[str] | None:
    """Return the arguments of a command of this program; None for another program."""
    if words[:3] == ["python", "-m", "infra"]:
        return words[3:]
    return words[1:] if Path(words[0]).name == "dq-init" else None


def named(found: Any) -> str:
    return f"{found[0]}: {' '.join(found[1])}" if isinstance(found, tuple) else str(found)


# Blocks


def test_each_block_names_its_language() -> None:
    known = {"bash", "console", "json", "mermaid", "python", "sql", "text", "toml", "yaml"}
    for block in blocks():
        assert block.language in known or block.language.startswith("{"), str(block)


def test_no_block_is_only_indented() -> None:
    for page in PAGES:
        assert not re.search(r"\n\n    \S", prose(page)), page.name


def test_each_query_runs_on_a_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as catalogue:
        catalogue.execute(f"CREATE TABLE exposures ({columns})")
        catalogue.execute("COPY exposures TO 'exposures.parquet'")
        for block in blocks("sql"):
            assert catalogue.execute(block.text).fetchall() == [], str(block)


def test_each_diagram_has_an_alternative_text() -> None:
    diagrams = blocks("mermaid")
    assert len(diagrams) >= 6
    for block in diagrams:
        assert "  accTitle: " in block.text, str(block)


def test_each_python_block_is_run_by_a_test() -> None:
    found = blocks("python")
    assert Counter(str(block.page.relative_to(PROJECT)) for block in found) == RUN_BLOCKS
    for block in found:
        compile(block.text, str(block.page), "exec")


def test_each_json_block_is_a_direct_request() -> None:
    requests = [json.loads(block.text) for block in blocks("json")]
    typed = [words[words.index("--input") + 1] for _, words in commands() if "--input" in words]
    requests += [request for text in typed if "bucket" in (request := json.loads(text))]
    assert len(requests) >= 2
    for request in requests:
        jsonschema.validate(request, DIRECT)
        assert ExposureRequest.from_direct(request)


# Commands


class Parsed(BaseException):
    """The arguments were accepted."""


@pytest.mark.parametrize("found", [f for f in commands() if ours(f[1]) is not None], ids=named)
def test_documented_command_is_accepted(
    found: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke = click.Command.invoke

    def parsed(command: click.Command, context: click.Context) -> Any:
        if isinstance(command, click.Group):
            return invoke(command, context)
        raise Parsed

    monkeypatch.setattr(click.Command, "invoke", parsed)
    with pytest.raises(Parsed):
        main(ours(found[1]))


def test_commands_in_the_text_exist() -> None:
    seen = 0
    for page, words in spans():
        arguments, command = ours(words), program
        for word in arguments or []:
            where = f"{page}: {' '.join(words)}"
            if word.startswith("--"):
                options = {name for parameter in command.params for name in parameter.opts}
                assert word in options | {"--help"}, where
            elif isinstance(command, click.Group) and word not in {"COMMAND", "X"}:
                command = command.get_command(click.Context(command), word)
                assert command is not None, where
                seen += 1
    assert seen > 5


def test_documented_targets_of_make_exist() -> None:
    found = [found for found in (*commands(), *spans()) if found[1][0] == "make"]
    assert len(found) > 15
    for page, (_, *words) in found:
        for word in words:
            variable, sets, _ = word.partition("=")
            if sets:
                assert re.search(rf"\b{variable}\b", MAKEFILE), f"{page}: {word}"
            else:
                assert word in TARGETS, f"{page}: make {word}"


def test_documented_commands_of_aws_exist() -> None:
    session = botocore.session.Session()
    found = [found for found in commands() if found[1][0] == "aws"]
    assert len(found) > 8
    for page, (_, service, operation, *words) in found:
        if (service, operation) in OWN_OF_AWS_CLI:
            continue
        model = session.get_service_model({"s3api": "s3"}.get(service, service))
        operations = {xform_name(name, "-"): name for name in model.operation_names}
        assert operation in operations, f"{page}: aws {service} {operation}"
        shape = model.operation_model(operations[operation]).input_shape
        members = {f"--{xform_name(name, '-')}" for name in shape.members}
        options = {RENAMED_BY_AWS_CLI.get(word, word) for word in words if word.startswith("--")}
        assert options <= members | {"--query", "--output"}, f"{page}: {options - members}"
        assert set(shape.required_members) <= {
            name for name in shape.members if f"--{xform_name(name, '-')}" in options
        }, f"{page}: aws {service} {operation}"


def test_documented_parameters_exist() -> None:
    found = [found for found in commands() if Path(found[1][0]).name == "sam"]
    assert len(found) >= 3
    parameters = TEMPLATE["Parameters"] | MIRROR_TEMPLATE["Parameters"]
    for page, words in found:
        if "--parameter-overrides" in words:
            for word in words[words.index("--parameter-overrides") + 1 :]:
                if word.startswith("--"):
                    break
                assert word.partition("=")[0] in parameters, f"{page}: {word}"


def test_other_programs_are_those_of_a_shell() -> None:
    checked = {"make", "aws", "sam", "dq-init", "pip"}
    for page, words in commands():
        assert Path(words[0]).name in checked | SHELL, f"{page}: {words[0]}"
        if words[:2] == ["pip", "install"]:
            extras = re.findall(r"\.\[(\w+)\]", " ".join(words))
            assert set(extras) <= {"operator", "reprocess", "demo"}, page


def test_each_alarm_is_explained() -> None:
    page = (PROJECT / "docs" / "how-to" / "watch.md").read_text()
    alarms = {
        name
        for name, resource in TEMPLATE["Resources"].items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }
    assert alarms == set(re.findall(r"\b\w+Alarm\b", page))


def test_words_in_capitals_are_outputs() -> None:
    outputs = {name.upper() for name in TEMPLATE["Outputs"]}
    for page in PAGES:
        text = page.read_text()
        for word in re.findall(r"\b[A-Z]+(?:BUCKET|QUEUE|EXPOSURE|FILL|LOG)\b(?!\.md)", text):
            assert word in outputs, f"{page.name}: {word}"


# The schema of direct requests


def test_schema_of_direct_requests_has_their_fields() -> None:
    jsonschema.Draft202012Validator.check_schema(DIRECT)
    assert tuple(DIRECT["properties"]) == _FIELDS
    assert all("description" in field for field in DIRECT["properties"].values())


@pytest.mark.parametrize(
    "fields",
    [
        {"key": None},
        {"other": "x"},
        {"context": "jwst_1.imap"},
        {"mask": "mask.fits"},
        {"userSuppliedDq": "dq.fits"},
        {"onExisting": "keep"},
        {"outputKey": ""},
        {"retried": "true"},
        {"reportOnly": 1},
    ],
)
def test_wrong_request_is_refused_by_schema_and_code(fields: dict[str, Any]) -> None:
    request = {"bucket": "raw", "key": "x_uncal.fits"} | fields
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(request, DIRECT)
    with pytest.raises(InputRejected):
        ExposureRequest.from_direct(request)


@pytest.mark.parametrize(
    "fields",
    [
        {"versionId": "1", "context": "latest", "onExisting": "replace"},
        {"mask": "N/A", "outputKey": "dq_init/x.fits", "cause": "1"},
        {"mask": "s3://b/m.fits", "userSuppliedDq": "s3://b/u.fits", "retried": True},
        {"context": "jwst_1321.pmap", "reportOnly": False},
    ],
)
def test_right_request_is_accepted_by_schema_and_code(fields: dict[str, Any]) -> None:
    request = {"bucket": "raw", "key": "x_uncal.fits"} | fields
    jsonschema.validate(request, DIRECT)
    assert ExposureRequest.from_direct(request)


# Links


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        text = prose(page)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            yield page, target
        for target in re.findall(r"\{download\}`[^<`]*<([^>]+)>`", text):
            yield page, target


def test_internal_links_lead_to_a_file_and_a_heading() -> None:
    found = [(page, target) for page, target in links() if "//" not in target]
    assert len(found) > 80
    for page, target in found:
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        where = f"{page.relative_to(PROJECT)}: {target}"
        assert path.is_file(), where
        assert path.is_relative_to(PROJECT), where
        if anchor:
            assert anchor in slugs(path), where


def test_external_links_are_well_formed() -> None:
    for page, target in links():
        if "//" in target:
            url = urlsplit(target)
            assert url.scheme == "https", f"{page.name}: {target}"
            assert "." in url.netloc, f"{page.name}: {target}"


def test_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 120


def test_readme_has_the_measured_numbers() -> None:
    readme = (PROJECT / "README.md").read_text()
    results = (PROJECT / "tests" / "benchmark" / "RESULTS.md").read_text()
    small, large = (
        re.search(
            rf"time, {size}, warm, native, .*?\| ([\d.]+) s \|.*putting back: ([\d.]+) s", results
        )
        for size in ("92 MB", "839 MB")
    )
    assert small
    assert large
    assert (
        f"{float(small[1]):.1f} s for an exposure of 92 MB, {float(large[1]):.1f} s for 839 MB; `jwst` "
        f"with a download and an upload: {float(small[2]):.1f} s and {float(large[2]):.0f} s"
    ) in readme
    usd = 1e6 * measured().one("92 MB").usd()
    month = sum(MONTHLY.parts().values())
    assert f"{usd:.0f} USD per million exposures of 92 MB, {month:.0f} USD a month" in readme


def test_readme_and_index_show_the_same_diagram() -> None:
    first, second = (
        [block.text for block in blocks("mermaid") if block.page == PROJECT / name]
        for name in ("README.md", "docs/index.md")
    )
    assert first == second


# The tutorial


def test_tutorial_prints_what_it_says(
    function: Harness,
    exposure: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The blocks of tutorial.md run on the output of the demo, made here for one exposure."""
    key = "2023/03/jw09999001001_02101_00001_nrcb1-nircam-sub64p_uncal.fits"
    function.upload(exposure, key)
    detail = function.run(key)
    products = tmp_path / "demo-output" / "products"
    products.mkdir(parents=True)
    (products / Path(detail["output"]["key"]).name).write_bytes(function.product(detail))
    (products.parent / "events.json").write_text(json.dumps([detail]))
    monkeypatch.chdir(tmp_path)
    page = PROJECT / "docs" / "tutorial.md"
    found = [block for block in blocks() if block.page == page]
    for block, output in pairwise(found):
        if block.language == "python":
            capsys.readouterr()
            exec(block.text, {})  # noqa: S102
            assert output.language == "text"
            assert capsys.readouterr().out.endswith(output.text), str(block)
