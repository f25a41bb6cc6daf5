"""Kill a command between any two of its calls to AWS."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.client import BaseClient


class Killed(BaseException):
    """The process has ended."""


class Kills:
    """Kills before one of the calls, counted from the first one to an object (the job's)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, start: str = "/job.jsonl.gz") -> None:
        self.left: int | None = None
        self.start, self.has_begun, self.is_away = start, False, False
        original = BaseClient._make_api_call  # type: ignore[attr-defined]

        def call(client: Any, operation: str, given: dict[str, Any]) -> Any:
            if self.left is not None and not self.is_away:
                self.has_begun = self.has_begun or str(given.get("Key", "")).endswith(self.start)
                if self.has_begun:
                    if self.left == 0:
                        raise Killed  # and so does every later call
                    self.left -= 1
            return original(client, operation, given)

        monkeypatch.setattr(BaseClient, "_make_api_call", call)

    @contextmanager
    def before(self, number: int) -> Iterator[None]:
        """Kill the block before its call of that number."""
        self.left, self.has_begun = number, False
        try:
            yield
        finally:
            self.left = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the calls of the block: another process makes them."""
        self.is_away = True
        try:
            yield
        finally:
            self.is_away = False
