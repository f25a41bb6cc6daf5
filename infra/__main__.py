"""The operator's program: ``python -m infra COMMAND``.

mirror    the CRDS mirror: sync, verify, contexts, diff, prune
probe     whether an S3 keeps the promises that the function relies on
queues    what waits in the queues: show, redrive
"""

import sys
from importlib import import_module

COMMANDS = ("mirror", "probe", "queues")


def main(words: list[str]) -> None:
    """Run one of the commands.

    Parameters
    ----------
    words : list of str
        The command and its arguments.
    """
    if not words or words[0] not in COMMANDS:
        wants_help = words[:1] in (["-h"], ["--help"])
        print(__doc__, file=sys.stdout if wants_help else sys.stderr)
        sys.exit(0 if wants_help else 2)
    import_module(f"infra.{words[0]}.__main__").main(words[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
