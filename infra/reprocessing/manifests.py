"""The requests of a selection: as a file, and as a campaign."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from handler.s3.locations import S3Location
from infra.campaign.prefixes import kept_in
from infra.terminal import Mistake

__all__ = ["campaign_place", "write_manifest"]

_COLUMNS = ("bucket", "key", "context")


def campaign_place(bucket: str, context: str, *, relabel: bool = False) -> S3Location:
    """Return where the campaign is kept that makes products anew for a context."""
    name = f"reprocess-{context.replace('.pmap', '')}{'-relabel' * relabel}"
    return kept_in(bucket, name)


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
            rows = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
            rows.writeheader()
            rows.writerows(found)
        else:
            file.writelines(f"{json.dumps(request)}\n" for request in found)
    return len(found)
