"""The mirror bucket: what lies in it, and how a file gets there."""

import ast
import base64
import pprint
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from crds.client import proxy

from core.errors import ReferenceUnavailable
from handler.s3.errors import code_of
from handler.s3.locations import S3Location
from infra.mirror.contexts import CONFIG
from infra.mirror.sources import Facts, catalogue

__all__ = ["Mirror"]

_MISSING = {"404", "NoSuchKey", "NotFound"}


@dataclass(frozen=True)
class Mirror:
    """A mirror bucket.

    Attributes
    ----------
    client : boto3 S3 client
        How to reach it.
    place : `~handler.s3.locations.S3Location`
        Bucket and prefix.
    """

    client: Any
    place: S3Location

    def state(self, key: str, expected: Facts) -> str:
        """Say whether a file is ``there``, ``missing`` or ``wrong``, by S3's own SHA-1 of it."""
        try:
            found = self.client.head_object(**self._address(key), ChecksumMode="ENABLED")
        except ClientError as exc:
            if code_of(exc) in _MISSING:
                return "missing"
            raise
        same = found["ContentLength"] == expected.size
        return "there" if same and found.get("ChecksumSHA1") == _base64(expected) else "wrong"

    def put(self, path: Path, key: str, facts: Facts) -> None:
        """Upload a file; S3 refuses it if it arrives with another SHA-1."""
        with path.open("rb") as file:
            self.client.put_object(
                **self._address(key),
                Body=file,
                ChecksumAlgorithm="SHA1",
                ChecksumSHA1=_base64(facts),
            )

    def get(self, key: str, path: Path) -> None:
        """Download a file.

        Raises
        ------
        ReferenceUnavailable
            If it is not there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        address = self._address(key)
        try:
            self.client.download_file(address["Bucket"], address["Key"], str(path))
        except ClientError as exc:
            if code_of(exc) in _MISSING:
                raise ReferenceUnavailable(f"{self.place.below(key)}: is not there") from exc
            raise

    def delete(self, key: str) -> None:
        """Delete a file; what is not there is deleted already."""
        self.client.delete_object(**self._address(key))

    def list_keys(self) -> Iterator[str]:
        """Keys of all rules and references, below the prefix."""
        start = f"{self.place.key}/" if self.place.key else ""
        pages = self.client.get_paginator("list_objects_v2")
        for folder in ("mappings/jwst/", "references/jwst/"):
            for page in pages.paginate(Bucket=self.place.bucket, Prefix=f"{start}{folder}"):
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(start)

    def contexts(self) -> list[str]:
        """Names of the contexts whose pipeline mapping lies here, oldest first."""
        names = (key.rpartition("/")[2] for key in self.list_keys())
        return sorted(name for name in names if name.endswith(".pmap"))

    def config(self) -> dict[str, Any]:
        """Read ``server_config``; empty before the first sync.

        Raises
        ------
        ReferenceUnavailable
            If it cannot be read.
        """
        try:
            answer = self.client.get_object(**self._address(CONFIG))
        except ClientError as exc:
            if code_of(exc) in _MISSING:
                return {}
            raise
        try:
            info = ast.literal_eval(answer["Body"].read().decode())
            catalogue(info)
        except (SyntaxError, ValueError, KeyError, TypeError) as exc:
            raise ReferenceUnavailable(
                f"{self.place.below(CONFIG)}: cannot be read: {exc}"
            ) from exc
        return dict(info)

    def write_config(
        self, info: dict[str, Any], files: dict[str, dict[str, str]], operational: str
    ) -> None:
        """Write ``server_config``: from then on readers see what it names.

        Parameters
        ----------
        info : dict
            A server's configuration; what it says beside the following is kept.
        files : dict
            Catalogue of the files that are here: the server's own has all that ever was.
        operational : str
            Name of the operational context.
        """
        small = {"context_history", "mappings", "latest_context"}
        kept = {name: value for name, value in info.items() if name not in small}
        kept |= {
            "download_metadata": proxy.crds_encode(files),
            "operational_context": operational,
            "mappings": sorted(name for name in files if name.endswith("map")),
        }
        text = pprint.pformat(kept)
        self.client.put_object(**self._address(CONFIG), Body=text.encode())

    def _address(self, key: str) -> dict[str, str]:
        location = self.place.below(key)
        return {"Bucket": location.bucket, "Key": location.key}


def _base64(facts: Facts) -> str:
    """A SHA-1 as S3 gives it."""
    return base64.b64encode(bytes.fromhex(facts.sha1)).decode()
