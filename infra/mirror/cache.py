"""Filling a bucket of the embedded AWS from a CRDS cache, as it is: for the demo and the tests."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["upload_cache"]

_FOLDERS = ("mappings/jwst", "config/jwst")


def upload_cache(
    cache: Path, client: Any, bucket: str, prefix: str = "", instruments: Iterable[str] = ("*",)
) -> Iterator[str]:
    """Copy what a mask is chosen by, and the masks, from a local CRDS cache into a bucket.

    Parameters
    ----------
    cache : `pathlib.Path`
        The cache's directory, as CRDS_PATH names it.
    client : boto3 S3 client
        How to reach the bucket.
    bucket, prefix : str
        Where to.
    instruments : iterable of str
        Instruments (in lower case) whose masks are copied; all by default.

    Yields
    ------
    str
        Each key that was written. ``server_config`` comes last: a reader never sees a
        configuration whose files are not there yet.
    """
    files = [path for path in _rules(cache) if path.name != "server_config"]
    files += sorted(_masks(cache, instruments))
    files.append(cache / "config" / "jwst" / "server_config")
    for path in files:
        key = f"{prefix}{path.relative_to(cache).as_posix()}"
        client.upload_file(str(path), bucket, key)
        yield key


def _rules(cache: Path) -> Iterator[Path]:
    """Pipeline and instrument mappings, and the mappings for MASK."""
    for folder in _FOLDERS:
        for path in sorted((cache / folder).iterdir()):
            if path.suffix in {".pmap", ".imap"} or "_mask_" in path.name:
                yield path


def _masks(cache: Path, instruments: Iterable[str]) -> Iterator[Path]:
    """The masks, in the sub-folders of their instruments or flat."""
    references = cache / "references" / "jwst"
    for instrument in instruments:
        yield from references.glob(f"**/jwst_{instrument}_mask_*.fits")
