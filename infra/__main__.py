"""The operator's program: ``dq-init COMMAND``, or ``python -m infra COMMAND``."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from getpass import GetPassWarning
from importlib import import_module, metadata
from typing import Any

from infra.cli import UserError, how_to_install, printable, safe_output

try:
    import click
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        NoRegionError,
        ParamValidationError,
    )
    from botocore.parsers import ResponseParserError
    from click.shell_completion import CompletionItem, shell_complete

    from core import EQUALS_JWST, SOFTWARE, __version__
    from core.errors import ReferenceUnavailable, TransientFailure
    from handler.s3.errors import NO_BUCKET, error_code
except KeyboardInterrupt:
    sys.exit("dq-init: interrupted; run the same command again")
except ModuleNotFoundError as exc:
    sys.exit(f"dq-init: {how_to_install(exc)}")

COMMANDS = {
    "backfill": ("infra.jobs.__main__", "Process exposures that are in S3 already."),
    "cost": ("infra.cost.__main__", "Estimate the cost and the duration of exposures."),
    "expand": ("infra.local.expand", "Write virtual products as complete files."),
    "mirror": ("infra.mirror.__main__", "Fill, check and prune the CRDS mirror."),
    "queues": ("infra.operate.queues", "Show, redrive or discard failed exposures."),
    "reprocess": ("infra.reprocess.__main__", "Rebuild products that a new context affects."),
    "run": ("infra.local.__main__", "Run dq_init on files of this machine."),
    "status": ("infra.operate.status", "Show the state of a stack."),
    "view": ("infra.view.__main__", "Write pages that show flags and masks."),
}
"""Module and summary of each command, by its name."""

_MFA = "AWS requests an MFA code; run the command at a terminal, or with a session token"
_MESSAGES: dict[type[BaseException], str] = {
    KeyboardInterrupt: "interrupted; run the same command again to resume",
    EOFError: _MFA,
    GetPassWarning: _MFA,
    NoRegionError: "no AWS region; set AWS_DEFAULT_REGION, or region in the AWS profile",
    NoCredentialsError: "no AWS credentials; set AWS_PROFILE, or run `aws configure`",
}
_FIXABLE = (
    ReferenceUnavailable,
    TransientFailure,
    OSError,
    ClientError,
    BotoCoreError,
    ResponseParserError,  # a proxy, or a server other than AWS, answered
)
"""Errors that an operator can fix; the program prints their messages without a traceback."""


class _Program(click.Group):
    """The click group of all commands; only the module of the named command is imported."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> Any:
        return import_module(COMMANDS[name][0]).command if name in COMMANDS else None

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.command(cls=_Program, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(
    __version__,
    prog_name=SOFTWARE,
    message=f"%(prog)s %(version)s (crds {metadata.version('crds')}, "
    f"astropy {metadata.version('astropy')}; products equal those of jwst {EQUALS_JWST})",
)
def program() -> None:
    """Run the JWST pipeline step dq_init on files, or operate it on AWS.

    Credentials, region and endpoint of AWS are those of boto3: AWS_PROFILE, AWS_DEFAULT_REGION,
    AWS_ENDPOINT_URL.

    For completion in bash: eval "$(_DQ_INIT_COMPLETE=bash_source dq-init)". In other shells, use
    zsh_source or fish_source.
    """


def main(words: Sequence[str] | None = None) -> None:
    """Run the command in `words`, by default the arguments of the program in sys.argv.

    After an interrupt or an error that the operator can fix, it prints one line and exits with 1 or
    2. Any other error is raised.
    """
    if instruction := os.environ.get("_DQ_INIT_COMPLETE"):
        sys.exit(shell_complete(program, {}, "dq-init", "_DQ_INIT_COMPLETE", instruction))
    words = list(sys.argv[1:] if words is None else words)
    # The commands print the step's warnings themselves.
    step = logging.getLogger("core")
    level = step.level
    step.setLevel(logging.ERROR)
    # botocore reads MFA codes with getpass, which prints three lines without a terminal.
    warnings.filterwarnings("error", category=GetPassWarning)
    with safe_output():
        try:
            # Not `program.main`: it prints an empty line before it reports an interrupt.
            with program.make_context("dq-init", words) as context:
                program.invoke(context)
        except click.exceptions.Exit:
            pass  # --help and --version
        except click.exceptions.NoArgsIsHelpError as exc:
            print(exc.format_message(), file=sys.stderr)
            sys.exit(2)
        except SystemExit as exc:
            if isinstance(exc.code, str):
                raise SystemExit(printable(exc.code)) from exc
            raise
        except (Exception, KeyboardInterrupt) as exc:
            subject = words[0] if words and words[0] in COMMANDS else "dq-init"
            if isinstance(exc, click.UsageError) and exc.ctx:
                subject = exc.ctx.command_path
            text, code = _describe(exc, subject)
            line = f"{subject}: {printable(text)}"
            print(line, file=sys.stderr)
            end = SystemExit(line)
            end.code = code
            raise end from exc
        finally:
            step.setLevel(level)


def _describe(exc: BaseException, subject: str) -> tuple[str, int]:
    """Return message and exit code of an error that an operator can fix, or of an interrupt."""
    text, code = " ".join(str(exc).splitlines()), 1
    if isinstance(exc, click.UsageError):
        text, code = f"{exc.format_message().rstrip('.')}; see {subject} --help", 2
    elif isinstance(exc, UserError):
        text, code = str(exc), 2
    elif isinstance(exc, ModuleNotFoundError):
        text = how_to_install(exc)
    elif isinstance(exc, FileNotFoundError) and exc.filename is not None:
        text, code = f"{exc.filename}: no such file; check the path", 2
    elif isinstance(exc, ValueError) and _is_raised_by_botocore(exc):
        settings = "AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the AWS profile"
        text = f"AWS configuration: {text}; check {settings}"
    elif isinstance(exc, ParamValidationError):  # an invalid name of a bucket, or a long key
        code = 2
    elif type(exc) in _MESSAGES:
        text = _MESSAGES[type(exc)]
    elif not isinstance(exc, _FIXABLE):
        raise exc
    for error in (exc, exc.__cause__):
        if isinstance(error, ClientError) and error_code(error) == NO_BUCKET:
            bucket = error.response["Error"].get("BucketName")
            text, code = f"s3://{bucket}: no such bucket; check its name" if bucket else text, 2
    return text, code


def _is_raised_by_botocore(exc: ValueError) -> bool:
    frames = (frame for frame, _ in traceback.walk_tb(exc.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("botocore.") for frame in frames)


if __name__ == "__main__":
    main()
