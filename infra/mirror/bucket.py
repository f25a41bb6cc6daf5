"""The mirror bucket: what lies in it, and how a file gets there."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from core.errors import ReferenceUnavailable
from handler.references.keys import CONFIG, MAPPINGS, REFERENCES, mapping_key
from handler.references.rules import read_text
from handler.references.server import FileDigest, ServerConfig
from handler.s3.errors import is_missing
from handler.s3.locations import S3Location
from infra.listing import listed
from infra.mirror.contexts import Context, read_context

__all__ = ["Mirror"]

_ANNOUNCED = "config/jwst/announced_context"


@dataclass(frozen=True)
class Mirror:
    """A mirror bucket.

    Attributes
    ----------
    client : boto3 S3 client
        How to reach it.
    location : `~handler.s3.locations.S3Location`
        Bucket and prefix.
    """

    client: Any
    location: S3Location

    def state(self, key: str, expected: FileDigest) -> str:
        """Say whether a file is ``there``, ``missing`` or ``wrong``, by S3's own SHA-1 of it."""
        try:
            answer = self.client.head_object(**self._address(key), ChecksumMode="ENABLED")
        except ClientError as exc:
            if is_missing(exc):
                return "missing"
            raise
        same = answer["ContentLength"] == expected.size
        return "there" if same and answer.get("ChecksumSHA1") == _base64(expected) else "wrong"

    def put(self, path: Path, key: str, digest: FileDigest) -> None:
        """Upload a file; S3 refuses it if it arrives with another SHA-1."""
        with path.open("rb") as file:
            self.client.put_object(
                **self._address(key),
                Body=file,
                ChecksumAlgorithm="SHA1",
                ChecksumSHA1=_base64(digest),
            )

    def get(self, key: str) -> bytes:
        """Read a file.

        Raises
        ------
        ReferenceUnavailable
            If it is not there.
        """
        try:
            content: bytes = self.client.get_object(**self._address(key))["Body"].read()
        except ClientError as exc:
            if is_missing(exc):
                raise ReferenceUnavailable(f"{self.location.below(key)}: is not there") from exc
            raise
        return content

    def delete(self, key: str) -> None:
        """Delete a file; what is not there is deleted already."""
        self.client.delete_object(**self._address(key))

    def list_keys(self) -> Iterator[str]:
        """Keys of all rules and references, below the prefix."""
        start = f"{self.location.key}/" if self.location.key else ""
        for folder in (MAPPINGS, REFERENCES):
            for item in listed(self.client, self.location.bucket, f"{start}{folder}"):
                yield item["Key"].removeprefix(start)

    def context(self, name: str) -> Context:
        """Follow a context of the mirror, for the instruments that it holds.

        Raises
        ------
        ReferenceUnavailable
            If a rule file is not there, or cannot be read.
        """
        config = self.config()
        return read_context(name, self, config.instruments if config else frozenset())

    def contexts(self) -> list[str]:
        """Names of the contexts whose pipeline mapping lies here, oldest first."""
        names = (key.rpartition("/")[2] for key in self.list_keys())
        return sorted(name for name in names if name.endswith(".pmap"))

    def config(self) -> ServerConfig | None:
        """Read ``server_config``; None before the first sync.

        Raises
        ------
        ReferenceUnavailable
            If it cannot be read.
        """
        try:
            answer = self.client.get_object(**self._address(CONFIG))
        except ClientError as exc:
            if is_missing(exc):
                return None
            raise
        return ServerConfig.parse(answer["Body"].read().decode(), str(self.location.below(CONFIG)))

    def operational(self) -> ServerConfig:
        """Read ``server_config``, which must be there.

        Raises
        ------
        ReferenceUnavailable
            If it is not, or cannot be read.
        """
        config = self.config()
        if config is None:
            raise ReferenceUnavailable(f"{self.location.below(CONFIG)}: is not there; sync first")
        return config

    def written(self) -> str:
        """Return when ``server_config`` was written last (ISO 8601, UTC)."""
        answer = self.client.head_object(**self._address(CONFIG))
        return str(answer["LastModified"].strftime("%Y-%m-%dT%H:%M:%SZ"))

    def write_config(self, config: ServerConfig) -> None:
        """Write ``server_config``: from then on readers see what it names."""
        self.client.put_object(**self._address(CONFIG), Body=config.to_text().encode())

    def announced(self) -> str | None:
        """Return the context that was announced last; None where none was."""
        try:
            return self.get(_ANNOUNCED).decode()
        except ReferenceUnavailable:
            return None

    def note_announced(self, context: str) -> None:
        """Write down which context was announced last."""
        self.client.put_object(**self._address(_ANNOUNCED), Body=context.encode())

    def read(self, name: str) -> str:
        """Return a rule file, as `handler.references.mappings.Mappings` asks for it."""
        return read_text(self.location.below(mapping_key(name)), self.client)

    def discard(self, name: str) -> None:
        """Leave a damaged file where it is, for `verify` to tell of it."""

    def _address(self, key: str) -> dict[str, str]:
        return self.location.below(key).address


def _base64(digest: FileDigest) -> str:
    """A SHA-1 as S3 gives it."""
    return base64.b64encode(bytes.fromhex(digest.sha1)).decode()
