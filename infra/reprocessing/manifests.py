"""The requests of a selection as a file."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from infra.terminal import Mistake

__all__ = ["write_manifest"]


def write_manifest(path: Path, requests: Iterable[dict[str, str]]) -> int:
    """Write direct requests into a file, and return how many.

    Parameters
    ----------
    path : `pathlib.Path`
        ``.json`` and ``.csv`` are what the state machine Backfill reads; anything else gets a
        request in each line.
    requests : iterable of dict
        The requests.

    Raises
    ------
    Mistake
        If a product has a key of its own, for which a CSV has no room.
    """
    found = list(requests)
    with path.open("w", newline="") as file:
        if path.suffix == ".json":
            json.dump(found, file)
        elif path.suffix == ".csv":
            if any("outputKey" in request for request in found):
                raise Mistake(f"{path}: a CSV has no room for products' own keys; write a .json")
            names = ["bucket", "key", *(["context"] if any("context" in r for r in found) else [])]
            rows = csv.DictWriter(file, names)
            rows.writeheader()
            rows.writerows(found)
        else:
            file.writelines(f"{json.dumps(request)}\n" for request in found)
    return len(found)
