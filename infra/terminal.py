"""What a person at a terminal is told and asked, by whatever command."""

import argparse
import sys

__all__ = ["Mistake", "is_agreed", "parser_of", "span"]


class Mistake(Exception):
    """What the person at the terminal can mend: it is told in one line."""


def parser_of(command: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of one of the commands, whose description keeps its lines."""
    return argparse.ArgumentParser(
        prog=f"python -m infra {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def is_agreed(question: str) -> bool:
    """Ask a person; no terminal, no agreement."""
    answer = input(f"{question} [y/N] ") if sys.stdin.isatty() else ""
    return answer.lower() in {"y", "yes"}


def span(seconds: float) -> str:
    """Say how long something takes, in the unit that a person would choose."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
