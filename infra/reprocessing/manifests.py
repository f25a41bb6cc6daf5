"""The requests of a selection as a file."""

import json
from collections.abc import Iterable
from pathlib import Path

__all__ = ["write_manifest"]


def write_manifest(path: Path, requests: Iterable[dict[str, str]]) -> int:
    """Write direct requests into a file, and return how many.

    Parameters
    ----------
    path : `pathlib.Path`
        ``.json`` is what the state machine Backfill reads; anything else gets a request per line.
    requests : iterable of dict
        The requests.
    """
    found = list(requests)
    with path.open("w", encoding="utf-8") as file:
        if path.suffix == ".json":
            json.dump(found, file)
        else:
            file.writelines(f"{json.dumps(request)}\n" for request in found)
    return len(found)
