"""The operator's program: ``python -m infra COMMAND``; each has ``--help``.

backfill  process exposures that are there already, wherever they lie
cost      what exposures cost, and how long they take
listen    have a bucket of yours tell of uploads
look      pages of flags and masks, to look at
mirror    the CRDS mirror: sync, use, verify, contexts, diff, prune
queues    what waits in the queues: show, redrive, discard
reprocess which products a new context would make otherwise
status    a stack at a glance
"""

import logging
import sys
from importlib import import_module

from botocore.exceptions import BotoCoreError, ClientError

from core.errors import ReferenceUnavailable, TransientFailure
from infra.packages import how_to_install
from infra.terminal import Mistake

COMMANDS = {
    "backfill": "backfill",
    "cost": "cost",
    "listen": "listen",
    "look": "look",
    "mirror": "mirror",
    "queues": "queues",
    "reprocess": "reprocessing",
    "status": "status",
}
"""Commands, and the rooms that they lie in."""

_EXPECTED = (Mistake, ReferenceUnavailable, TransientFailure, OSError, ClientError, BotoCoreError)
"""What a person can mend: names, addresses, credentials, files. All else is a bug."""


def main(words: list[str]) -> None:
    """Run one of the commands; what a person can mend is one line.

    Parameters
    ----------
    words : list of str
        The command and its arguments.
    """
    if not words or words[0] not in COMMANDS:
        wants_help = words[:1] in (["-h"], ["--help"])
        print(__doc__, file=sys.stdout if wants_help else sys.stderr)
        sys.exit(0 if wants_help else 2)
    # What the step warns of, command by command, is told by the command itself.
    step = logging.getLogger("core")
    before = step.level
    step.setLevel(logging.ERROR)
    try:
        import_module(f"infra.{COMMANDS[words[0]]}.__main__").main(words[1:])
    except KeyboardInterrupt:
        sys.exit("stopped; what was done stays done, and the same command goes on")
    except ModuleNotFoundError as exc:
        sys.exit(f"{words[0]}: {how_to_install(exc)}")
    except _EXPECTED as exc:
        sys.exit(f"{words[0]}: {' '.join(str(exc).split())}")
    finally:
        step.setLevel(before)


if __name__ == "__main__":
    main(sys.argv[1:])
