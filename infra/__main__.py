"""The operator's program: ``python -m infra COMMAND``; each has ``--help``.

backfill  process exposures that are in S3 already
cost      what exposures cost, and how long they take
look      pages that show flags and masks
mirror    the CRDS mirror: sync, use, verify, contexts, diff, prune
queues    exposures that failed or wait: show, redrive, discard
reprocess find and reprocess products that a new context affects
status    a stack at a glance; enable events of an existing bucket
"""

import logging
import sys
import traceback
from importlib import import_module
from typing import NoReturn

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from core import SOFTWARE, __version__
from core.errors import ReferenceUnavailable, TransientFailure
from infra.packages import how_to_install
from infra.terminal import Mistake, printable, safe_output

COMMANDS = {
    "backfill": "backfill",
    "cost": "cost",
    "look": "look",
    "mirror": "mirror",
    "queues": "queues",
    "reprocess": "reprocessing",
    "status": "status",
}
"""Commands, and the packages that they are in."""

_EXPECTED = (Mistake, ReferenceUnavailable, TransientFailure, OSError, ClientError, BotoCoreError)
"""What a person can fix: names, addresses, credentials, files. Everything else is a bug."""

_SETTINGS = "AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the AWS profile"


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
    try:
        import_module(f"infra.{COMMANDS[command]}.__main__").main(words)
    except KeyboardInterrupt:
        sys.exit("interrupted; run the same command again to resume")
    except ModuleNotFoundError as exc:
        _fail(command, how_to_install(exc))
    except EOFError:
        # botocore reads MFA codes from the terminal, and has no error of its own for this.
        _fail(command, "AWS asks for an MFA code: run it at a terminal, or with a session token")
    except ValueError as exc:
        if not _is_raised_by_botocore(exc):
            raise
        _fail(command, f"AWS configuration: {exc}; check {_SETTINGS}")
    except _EXPECTED as exc:
        _fail(command, _described(exc))
    except SystemExit as exc:
        if isinstance(exc.code, str):
            raise SystemExit(printable(exc.code, keep="\n")) from exc
        raise
    finally:
        step.setLevel(before)


def _fail(command: str, text: str) -> NoReturn:
    sys.exit(f"{command}: {printable(' '.join(text.split()))}")


def _described(exc: BaseException) -> str:
    """Add what AWS leaves out of its messages."""
    if isinstance(exc, NoRegionError):
        return "no AWS region: set AWS_DEFAULT_REGION, or region in the AWS profile"
    if isinstance(exc, NoCredentialsError):
        return "no AWS credentials: set AWS_PROFILE, or run `aws configure`"
    if isinstance(exc, ClientError):
        error: dict[str, str] = {**exc.response.get("Error", {})}  # type: ignore[dict-item]
        if error.get("Code") == "NoSuchBucket" and "BucketName" in error:
            return f"s3://{error['BucketName']}: no such bucket"
    return str(exc)


def _is_raised_by_botocore(exc: ValueError) -> bool:
    """Say whether botocore refused a setting of the environment or the profile."""
    frames = (frame for frame, _ in traceback.walk_tb(exc.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("botocore.") for frame in frames)


if __name__ == "__main__":
    main(sys.argv[1:])
