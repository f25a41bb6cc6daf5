"""The program ``dq-init``: escaped output, and errors in one line."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from rich.table import Table
from rich.text import Text

from infra.__main__ import COMMANDS, main
from infra.cli import UserError, confirm, printable, safe_output
from infra.console import Console
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws
from infra.local.inputs import s3_client
from infra.operate.status import QUEUES
from tests.conftest import PROJECT, imported_names
from tests.infra.program import run_program
from tests.infra.stacks import stack_of_outputs

HOSTILE = "a\x1b[2J\x9b1m\x07\r\u202e\ud800\u2028[/b][red]x"
NAMED = "named"
ESCAPED = "a\\x1b[2J\\x9b1m\\x07\\r\\u202e\\ud800\\u2028[/b][red]x"


@contextmanager
def output_to(encoding: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.BytesIO]:
    """Standard output and error of a terminal of some encoding."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with safe_output():
        yield raw


def test_hostile_text_is_escaped_character_by_character() -> None:
    assert printable(HOSTILE) == ESCAPED
    assert printable("日本 é\n") == "日本 é\\n"
    assert printable("1\n2\t", keep="\n\t") == "1\n2\t"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_all_output_is_escaped_in_any_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE, overflow="fold")
    table.add_row(HOSTILE)
    monkeypatch.setenv("COLUMNS", "200")
    with output_to(encoding, monkeypatch) as raw:
        print(HOSTILE, "日本")
        print(HOSTILE, file=sys.stderr)
        for thing in (HOSTILE, Text(HOSTILE), table):
            Console().print(thing)
            Console(stderr=True).print(thing)
    said = raw.getvalue().decode(encoding)
    assert not {"\x1b", "\x9b", "\x07", "\u202e", "\u2028"} & set(said)
    assert said.count("[/b][red]x") == 12
    assert ("日本" in said) == (encoding == "utf-8")


def test_rich_keeps_colours_of_its_own_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with output_to("utf-8", monkeypatch) as raw:
        Console().print("x\x1b[2J", style="bold")
    assert raw.getvalue() == b"\x1b[1mx\\x1b[2J\x1b[0m\n"


def test_commands_use_no_other_console() -> None:
    """A console of rich itself would not escape text."""
    for path in (PROJECT / "infra").rglob("*.py"):
        name = path.relative_to(PROJECT / "infra").as_posix()
        if name == "console.py" or name.startswith("bundle/"):
            continue  # bundle prints only its own text
        found = imported_names(path)
        assert not found & {"rich", "rich.console", "rich.console.Console", "rich.print"}, name


NO_CONFIGURATION = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def infra(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the program in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "infra", *words],
        cwd=PROJECT,
        env=clean | NO_CONFIGURATION | environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (KEYS | {"AWS_ENDPOINT_URL": "localhost:4566"}, "AWS_ENDPOINT_URL"),
        (KEYS | {"AWS_ENDPOINT_URL": "http://localhost:port"}, "AWS_ENDPOINT_URL"),
        (KEYS | {"AWS_ENDPOINT_URL_CLOUDFORMATION": "http://[::1"}, "AWS_ENDPOINT_URL"),
        (KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}, "127.0.0.1:1"),
        (KEYS | {"AWS_DEFAULT_REGION": "us_east_1"}, "us_east_1"),
        (KEYS | {"AWS_DEFAULT_REGION": ""}, "AWS_DEFAULT_REGION"),
        (KEYS | {"AWS_ACCESS_KEY_ID": ""}, "AWS_PROFILE"),
        (KEYS | {"AWS_PROFILE": "missing-profile"}, "missing-profile"),
    ],
    ids=str,
)
def test_wrong_environment_is_one_line(
    environment: dict[str, str], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    done = run_program("status", "--stack", "dq-init", **NO_CONFIGURATION, **environment)
    assert done.exit_code == 1
    (line,) = done.err.splitlines()
    assert part in line


@pytest.mark.slow
def test_mfa_profile_without_a_terminal_is_explained(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile mfa]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = base\n"
        "mfa_serial = arn:aws:iam::123456789012:mfa/x\nregion = us-east-1\n"
        "[profile base]\naws_access_key_id = x\naws_secret_access_key = s\n"
    )
    done = infra("status", "--stack", "x", AWS_CONFIG_FILE=str(config), AWS_PROFILE="mfa")
    (line,) = done.stderr.splitlines()
    assert "MFA" in line


WITH_STACK = {
    "backfill": ["s3://raw-exposures/"],
    "cost": [],
    "view": ["x.fits", "--out", "build/nowhere"],
    "queues": ["show"],
    "reprocess": ["select"],
    "status": [],
}
"""Arguments of the commands that have the option --stack."""
WITHOUT_STACK = {
    "expand": ["s3://no-such-bucket-x/"],
    "mirror": ["contexts", "s3://no-such-bucket-x"],
    "run": ["s3://no-such-bucket-x/", "--skip"],
}


def failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Return the exit code and the only line of standard error."""
    s3_client.cache_clear()  # of `dq-init run`, with the endpoint of an earlier test
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(words)
    (line,) = capsys.readouterr().err.splitlines()
    return ended.value.code, line


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_option_is_one_line_and_exit_code_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = WITHOUT_STACK.get(command) or [*WITH_STACK[command], "--stack", "x"]
    code, line = failure([command, *needed, "--nonsense\nb"], capsys)
    assert code == 2
    assert "--nonsense\\nb" in line
    assert "--help" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_mistyped_name_is_one_line_and_exit_code_2(
    command: str, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    if command in WITHOUT_STACK:
        code, line = failure([command, *WITHOUT_STACK[command]], capsys)
        assert "s3://no-such-bucket-x: no such bucket" in line
    else:
        code, line = failure([command, *WITH_STACK[command], "--stack", "nope"], capsys)
        assert "stack nope: not found in" in line
    assert code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_unreachable_aws_is_one_line_and_exit_code_1(
    command: str,
    aws: LocalAws,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    needed = WITHOUT_STACK.get(command) or [*WITH_STACK[command], "--stack", "x"]
    code, line = failure([command, *needed], capsys)
    assert code == (4 if command == "run" else 1)
    assert "127.0.0.1:1" in line


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["backfill", "missing.txt", "--stack", NAMED], "missing.txt: no such file"),
        (["backfill", "s3://raw-exposures/none/", "--stack", NAMED], "none/: no exposure found"),
        (["backfill", "s3://My_Bucket!/x_uncal.fits", "--stack", NAMED], "My_Bucket!"),
        (["cost", "--exposures", "0"], "'--exposures': 0 is not in the range 1<=x<=100000000"),
        (["cost", "--size", "nan"], "'nan' is not a number"),
        (["cost", "--exposures", "many"], "'many'"),
        (
            ["backfill", "x", "--stack", NAMED, "--pause", "inf"],
            "'--pause': inf is not in the range",
        ),
        (["view", "missing.fits", "--out", "build/nowhere"], "missing.fits: does not exist"),
        (["view", "s3://raw-exposures/x.fits", "--out", "build/nowhere"], "raw-exposures/x.fits"),
        (["view", "crds-mirror", "--detector", "NRCA1", "--out", "build/nowhere"], "s3://bucket"),
        (
            ["mirror", "sync", "s3://crds-mirror", "--from", "nowhere"],
            "nowhere: has no config/jwst/server_config and",
        ),
        (["mirror", "sync", "s3://x", "--build", "3.0=jwst_1.pmap"], "--context build and --from"),
        (["mirror", "sync", "s3://x", "--from", "x", "--server", "x"], "exclude one another"),
        (
            ["mirror", "sync", "s3://x", "--instrument", "ALL", "--instrument", "FGS"],
            "ALL excludes",
        ),
        (["mirror", "use", "s3://crds-mirror", "jwst_9999.pmap"], "jwst_9999.pmap"),
        (["mirror", "prune", "s3://crds-mirror", "--keep", "1321"], "1321"),
        (["mirror", "diff", "s3://crds-mirror", "jwst_1.pmap", "jwst_9999.pmap"], "jwst_1.pmap"),
        (["queues", "show", "--queue", "Failed", "--stack", NAMED], "FailedQueue"),
        (["queues", "show"], "--stack NAME"),
        (["queues", "redrive", "--stack", NAMED, "--older-than", "-1"], "'--older-than': -1"),
        (["queues", "discard", "--stack", NAMED, "--key", ""], "'--key': is empty"),
        (["reprocess", "select"], "Missing option '--stack'"),
        (["reprocess", "select", "--stack", NAMED, "--to", "1321"], "1321"),
        (["status", "--stack", NAMED, "--entries", "-1"], "'--entries': -1"),
        (["view", "x.fits", "--mirror", "my-mirror"], "'my-mirror': expected s3://bucket"),
    ],
    ids=" ".join,
)
def test_wrong_argument_is_one_line_and_exit_code_2(
    words: list[str],
    part: str,
    aws: LocalAws,
    mirrors: set[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with stack_of_outputs(aws, NAMED, QUEUES):
        code, line = failure(words, capsys)
    assert part in line
    assert code == 2


def test_interrupt_is_one_line_and_exit_code_1() -> None:
    """Send SIGINT while AWS does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen(
            [sys.executable, "-m", "infra", "queues", "show", "--queue", f"{endpoint}/1/q"],
            cwd=PROJECT,
            env=os.environ | KEYS | {"AWS_ENDPOINT_URL": endpoint},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=30)
            connection.close()
    assert (process.returncode, out) == (1, "")
    assert said.splitlines() == ["queues: interrupted; run the same command again to resume"]


def test_interrupted_import_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    done = infra("--version", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["dq-init: interrupted; run the same command again"]


def test_unknown_command_is_one_line_and_exit_code_2() -> None:
    done = infra("nonsense\x1b[2J")
    assert done.returncode == 2
    assert done.stderr == "dq-init: No such command 'nonsense\\x1b[2J'; see dq-init --help\n"


@pytest.mark.parametrize("words", [[], ["queues"]], ids=["program", "group"])
def test_missing_command_prints_the_help(words: list[str]) -> None:
    done = run_program(*words)
    assert done.exit_code == 2
    assert "redrive" in done.err


def test_version_names_the_libraries_and_the_jwst_release() -> None:
    said = infra("--version").stdout
    assert re.match(r"jwst-dq-init-lambda \S+ \(crds \S+, astropy \S+; .* jwst 3\.0\.0\)$", said)


def test_console_script_reads_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["dq-init"].partition(":")
    monkeypatch.setattr(sys, "argv", ["dq-init", "cost", "--help"])
    getattr(import_module(module), name)()
    assert capsys.readouterr().out.startswith("Usage: dq-init cost")


def test_help_lists_all_commands_and_documents_each(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    said = capsys.readouterr().out
    for name, (_, summary) in COMMANDS.items():
        assert f"{name} " in said
        assert summary in said
        main([name, "--help"])
        assert f"Usage: dq-init {name}" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "completion"), [("st", "status"), ("status --sta", "--stack")])
def test_shell_completes_commands_and_options(words: str, completion: str) -> None:
    count = str(len(words.split()))
    done = run_program(_DQ_INIT_COMPLETE="bash_complete", COMP_WORDS=f"x {words}", COMP_CWORD=count)
    assert done.out == f"plain,{completion}\n"


def test_end_of_input_at_a_prompt_means_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})()
    )
    assert not confirm("Delete?")


def test_question_is_asked_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = type("Terminal", (io.StringIO,), {"isatty": lambda _: True})
    monkeypatch.setattr(sys, "stdin", terminal("y\n"))
    assert confirm("Delete?")
    assert tuple(capsys.readouterr()) == ("", "Delete? [y/N] ")


@pytest.mark.slow
@pytest.mark.parametrize("words", ["cost", "cost --json", "--version"])
def test_reader_that_closes_its_pipe_ends_the_program(words: str) -> None:
    command = f"{sys.executable} -m infra {words} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.slow
def test_closed_streams_give_no_traceback() -> None:
    for words, code in (("cost --json >&-", 0), ("cost >&-", 0), ("nonsense >&- 2>&-", 2)):
        command = ["bash", "-c", f"{sys.executable} -m infra {words}"]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_question_without_standard_input_asks_for_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="a terminal or --yes is needed"):
        confirm("Delete?")


@pytest.mark.parametrize(("code", "exit_code"), [("Throttling", 1), ("ValidationError", 2)])
def test_stack_that_cannot_be_read_is_one_line(
    code: str, exit_code: int, aws: LocalAws, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refuse(*_: Any) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "refused"}}, "DescribeStacks")

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)
    found, line = failure(["status", "--stack", "x"], capsys)
    assert found == exit_code
    assert "stack x: " in line
    assert "refused" in line


def test_question_without_a_terminal_asks_for_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UserError, match="a terminal or --yes is needed"):
        confirm("Delete?")


def test_missing_stack_is_named_with_its_region(aws: LocalAws) -> None:
    with pytest.raises(SystemExit, match=r"stack nope: not found in us-east-1"):
        main(["status", "--stack", "nope"])


def test_stack_without_outputs_is_one_line(aws: LocalAws) -> None:
    template: dict[str, Any] = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName="bare", TemplateBody=json.dumps(template))
    try:
        for command in (["status"], ["queues", "show"], ["view", "x", "--out", "/nowhere"]):
            with pytest.raises(SystemExit, match="stack bare"):
                main([*command, "--stack", "bare"])
    finally:
        stacks.delete_stack(StackName="bare")


def test_missing_bucket_is_named(aws: LocalAws) -> None:
    with pytest.raises(SystemExit, match="s3://no-such-bucket-x: no such bucket"):
        main(["mirror", "contexts", "s3://no-such-bucket-x"])


def test_wrong_queue_lists_the_queues_of_the_stack(aws: LocalAws) -> None:
    names = ("FailedQueue", "UploadedQueue")
    with stack_of_outputs(aws, "twoqueues", names), pytest.raises(SystemExit) as ended:
        main(["queues", "show", "--stack", "twoqueues", "--queue", "Failed"])
    assert "'Failed'" in str(ended.value)
    assert "expected FailedQueue or UploadedQueue" in str(ended.value)
    assert "RawBucket" not in str(ended.value)


@pytest.mark.slow
def test_line_ends_in_keys_break_no_output(
    aws: LocalAws, mirrors: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key must not look like a line of output."""
    s3, odd, stored = aws.client("s3"), "x\nFAKE\r\x1b[2J\u2028", "x-LF-FAKE-ESC-[2J\u2028"

    def with_line_ends(parsed: dict[str, Any], **_: Any) -> None:
        """Restore the characters that moto's server rejects and S3 accepts in keys."""
        for item in parsed.get("Contents", []):
            item["Key"] = item["Key"].replace("-LF-", "\n").replace("-ESC-", "\x1b")

    boto3.setup_default_session()
    events = boto3.DEFAULT_SESSION.events  # type: ignore[union-attr]
    events.register("after-call.s3.ListObjectsV2", with_line_ends)
    keys = {
        RAW: [f"odd/{stored}/{n}_uncal.fits" for n in range(2)],
        PRODUCTS: [f"dq_ledger/dq_init/{stored}_dq_init.fits.json"],
        MIRROR: [f"references/jwst/nircam/{stored}.fits"],
    }
    listed = tmp_path / "list.txt"
    listed.write_text("s3://raw-exposures/none\r\x1b_uncal.fits\n", newline="")
    asked = {"bucket": f"b{odd}", "key": odd}
    detail = {"input": asked, "request": asked, "error": odd, "reason": odd}
    body = json.dumps({"source": "jwst.dq_init", "detail": detail})
    try:
        with stack_of_outputs(aws, NAMED, QUEUES) as queues:
            aws.client("sqs").send_message(QueueUrl=queues["FailedQueue"], MessageBody=body)
            for bucket, some in keys.items():
                for key in some:
                    s3.put_object(Bucket=bucket, Key=key, Body=b"{")
            for words in (
                ["queues", "show", "--stack", NAMED],
                ["queues", "redrive", "--stack", NAMED, "--error", odd + "x"],
                ["queues", "discard", "--stack", NAMED, "--key", odd],
                ["status", "--stack", NAMED],
                ["backfill", "s3://raw-exposures/odd/", "--stack", NAMED, "--dry-run"],
                ["backfill", str(listed), "--stack", NAMED, "--dry-run"],
                ["backfill", f"s3://raw-exposures/{odd}", "--stack", NAMED, "--dry-run"],
                ["mirror", "verify", "s3://crds-mirror"],
                ["mirror", "prune", "s3://crds-mirror", "--dry-run"],
                ["mirror", "use", "s3://crds-mirror", odd],
                ["view", f"s3://raw-exposures/{keys[RAW][0]}", "--out", str(tmp_path / "pages")],
                ["view", "s3://crds-mirror", "--detector", odd, "--out", str(tmp_path / "pages")],
                ["view", odd, "--out", str(tmp_path / "pages")],
                ["cost", "--exposures", odd],
                ["reprocess", "select", "--stack", NAMED, "--to", odd],
                ["status", "--stack", odd],
                [odd],
            ):
                capsys.readouterr()
                with suppress(SystemExit):
                    main(words)
                output = "".join(capsys.readouterr())
                assert output, words
                assert not [x for x in output.splitlines() if x.startswith("FAKE")], words
                assert not {"\x1b", "\r", "\u2028"} & set(output), words
    finally:
        boto3.setup_default_session()
        for bucket, some in keys.items():
            for key in some:
                s3.delete_object(Bucket=bucket, Key=key)


def test_folder_is_expanded_as_by_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NIGHT", "1")
    for folder in ("~/out/$NIGHT", "~of-no-user/out"):
        with pytest.raises(SystemExit):
            main(["expand", "missing.fits", "--output-dir", folder])
    assert (tmp_path / "out" / "1").is_dir()
    assert (tmp_path / "~of-no-user" / "out").is_dir()
