"""What a person at a terminal is told and asked, by whatever command."""

import sys

__all__ = ["Mistake", "is_agreed"]


class Mistake(Exception):
    """What the person at the terminal can mend: it is told in one line."""


def is_agreed(question: str) -> bool:
    """Ask a person; no terminal, no agreement."""
    answer = input(f"{question} [y/N] ") if sys.stdin.isatty() else ""
    return answer.lower() in {"y", "yes"}
