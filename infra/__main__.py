"""The operator's program: ``python -m infra COMMAND``; each has ``--help``.

backfill  process exposures that are in S3 already
cost      what exposures cost, and how long they take
mirror    the CRDS mirror: sync, use, verify, contexts, diff, prune
queues    exposures that failed or wait: show, redrive, discard
reprocess find and reprocess products that a new context affects
status    a stack at a glance; enable events of an existing bucket
view      pages that show flags and masks
"""

import logging
import sys
import traceback
import warnings
from getpass import GetPassWarning
from importlib import import_module
from typing import NoReturn

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from botocore.parsers import ResponseParserError

from core import SOFTWARE, __version__
from core.errors import ReferenceUnavailable, TransientFailure
from infra.cli import UserError, how_to_install, printable, safe_output

COMMANDS = {
    "backfill": "infra.jobs.__main__",
    "cost": "infra.cost.__main__",
    "mirror": "infra.mirror.__main__",
    "queues": "infra.operate.queues",
    "reprocess": "infra.reprocess.__main__",
    "status": "infra.operate.status",
    "view": "infra.view.__main__",
}
"""Commands, and the modules with their `main`."""

_EXPECTED = (
    UserError,
    ReferenceUnavailable,
    TransientFailure,
    OSError,
    ClientError,
    BotoCoreError,
    ResponseParserError,  # a proxy, or another server than AWS, answered
)
"""What a person can fix: names, addresses, credentials, files. Everything else is a bug."""

_SETTINGS = "AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the AWS profile"
_FAILED, _WRONG_INPUT = 1, 2
"""Exit codes; argparse, too, ends with 2."""


class _Ended(SystemExit):
    """The end of a command by an error; its text is on standard error already."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def main(words: list[str]) -> None:
    """Run one of the commands; describe what a person can fix in one line.

    Parameters
    ----------
    words : list of str
        The command and its arguments.
    """
    with safe_output():
        if words[:1] == ["--version"]:
            print(f"{SOFTWARE} {__version__}")
        elif words[:1] in (["-h"], ["--help"]):
            print(_help())
        elif not words or words[0] not in COMMANDS:
            wrong = f"no such command: {printable(words[0])}\n\n" if words else ""
            print(f"{wrong}{_help()}", file=sys.stderr)
            sys.exit(2)
        else:
            _run(words[0], words[1:])


def _help() -> str:
    return str(__doc__).replace("``", "")


def _run(command: str, words: list[str]) -> None:
    # The command itself reports what the step warns of.
    step = logging.getLogger("core")
    before = step.level
    step.setLevel(logging.ERROR)
    # botocore reads MFA codes by getpass; without a terminal that would print three lines first.
    warnings.filterwarnings("error", category=GetPassWarning)
    try:
        import_module(COMMANDS[command]).main(words)
    except KeyboardInterrupt:
        _end(command, "interrupted; run the same command again to resume", _FAILED)
    except ModuleNotFoundError as exc:
        _end(command, how_to_install(exc), _FAILED)
    except (EOFError, GetPassWarning):
        _end(
            command,
            "AWS asks for an MFA code: run it at a terminal, or with a session token",
            _FAILED,
        )
    except ValueError as exc:
        if not _is_raised_by_botocore(exc):
            raise
        _end(command, f"AWS configuration: {_joined(exc)}; check {_SETTINGS}", _FAILED)
    except _EXPECTED as exc:
        _end(command, *_described(exc))
    except SystemExit as exc:
        if isinstance(exc.code, str):
            raise SystemExit(printable(exc.code)) from exc
        raise
    finally:
        step.setLevel(before)


def _end(command: str, text: str, code: int) -> NoReturn:
    line = f"{command}: {printable(text)}"
    print(line, file=sys.stderr)
    raise _Ended(line, code)


def _described(exc: BaseException) -> tuple[str, int]:
    """Add what AWS leaves out of its messages; return the exit code, too."""
    if isinstance(exc, NoRegionError):
        return "no AWS region: set AWS_DEFAULT_REGION, or region in the AWS profile", _FAILED
    if isinstance(exc, NoCredentialsError):
        return "no AWS credentials: set AWS_PROFILE, or run `aws configure`", _FAILED
    if isinstance(exc, FileNotFoundError) and exc.filename is not None:
        return f"{exc.filename}: no such file", _WRONG_INPUT
    if isinstance(exc, UserError):
        return str(exc), _WRONG_INPUT
    if isinstance(exc, ClientError) and _is_missing_bucket(exc):
        bucket = exc.response["Error"].get("BucketName")
        return f"s3://{bucket}: no such bucket" if bucket else _joined(exc), _WRONG_INPUT
    return _joined(exc), _WRONG_INPUT if _is_missing_bucket(exc.__cause__) else _FAILED


def _is_missing_bucket(exc: BaseException | None) -> bool:
    return isinstance(exc, ClientError) and exc.response["Error"]["Code"] == "NoSuchBucket"


def _joined(exc: BaseException) -> str:
    """Join the lines of a library's message."""
    return " ".join(str(exc).splitlines())


def _is_raised_by_botocore(exc: ValueError) -> bool:
    """Say whether botocore refused a setting of the environment or the profile."""
    frames = (frame for frame, _ in traceback.walk_tb(exc.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("botocore.") for frame in frames)


if __name__ == "__main__":
    main(sys.argv[1:])
