"""The operator's program, run in the process of the tests: a process of its own takes 2 s of CPU."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from infra.__main__ import main


@dataclass(frozen=True)
class Done:
    """The end of a command: its exit code and its output."""

    exit_code: int
    out: str
    err: str


def run_program(*words: str, **environment: str) -> Done:
    """Run a command without a terminal."""
    raw, exit_code = (io.BytesIO(), io.BytesIO()), 0
    out, err = (io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in raw)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "stdin", io.StringIO())
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            main(words)
        except SystemExit as ended:
            exit_code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            if isinstance(ended.code, str):
                print(ended.code, file=sys.stderr)  # as the interpreter does
    return Done(exit_code, *(stream.getvalue().decode() for stream in raw))
