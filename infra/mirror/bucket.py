"""The mirror bucket: its files and its configuration."""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from core.errors import ReferenceUnavailable, TransientFailure
from handler.crds.mirror import (
    CONFIG,
    MAPPINGS,
    REFERENCES,
    STATE,
    FileDigest,
    MirrorConfig,
    mapping_key,
)
from handler.crds.rules import BUILD, LARGEST_MAPPING, LATEST, read_text
from handler.s3.errors import code_of, is_conflict, is_missing
from handler.s3.objects import S3Location
from handler.s3.write import unchanged
from infra.aws import listed
from infra.cli import UserError
from infra.mirror.contexts import Context, read_context

__all__ = ["Mirror", "check_contexts"]

_ATTEMPTS = 20


def _entries(text: str | None, name: str) -> Mapping[str, Any]:
    """Return the entries of ``server_config`` that the mirror does not set."""
    try:
        return MirrorConfig.parse(text or "{}", name).other
    except ReferenceUnavailable:  # replaced as a whole
        return {"observatory": "jwst"}


@dataclass(frozen=True)
class Mirror:
    """A mirror bucket.

    Attributes
    ----------
    client : boto3 S3 client
        How to reach it.
    location : `~handler.s3.objects.S3Location`
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
            try:
                for item in listed(self.client, self.location.bucket, f"{start}{folder}"):
                    yield item["Key"].removeprefix(start)
            except ClientError as exc:
                raise self._explained(exc) from exc

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
        keys = (key for key in self.list_keys() if key.endswith(".pmap"))
        return sorted(key.removeprefix(MAPPINGS) for key in keys)

    def config(self) -> MirrorConfig | None:
        """Read the configuration; None before the first sync.

        Raises
        ------
        ReferenceUnavailable
            If it is damaged.
        """
        return self._state()[0]

    def operational(self) -> MirrorConfig:
        """Read the configuration, which must exist.

        Raises
        ------
        ReferenceUnavailable
            If it does not, or is damaged.
        """
        config = self.config()
        if config is None:
            raise ReferenceUnavailable(
                f"{self.location.below(CONFIG)}: does not exist; run mirror sync first"
            )
        return config

    def written(self) -> str:
        """Return when ``server_config`` was written last (ISO 8601, UTC)."""
        answer = self.client.head_object(**self._address(CONFIG))
        return str(answer["LastModified"].strftime("%Y-%m-%dT%H:%M:%SZ"))

    def update(
        self,
        change: Callable[[MirrorConfig | None], MirrorConfig],
        other: Mapping[str, Any] | None = None,
    ) -> MirrorConfig:
        """Change the configuration; readers see the new one from then on.

        Each file is written on condition that it is still the one that was read. If another
        writer was faster, the configuration is read again and the change applied to it.

        Parameters
        ----------
        change : callable
            Returns the new configuration for the current one, which is None before the first sync.
        other : mapping or None
            Further entries of ``server_config``; None keeps them.

        Raises
        ------
        TransientFailure
            If other writers were faster every time.
        """
        for _ in range(_ATTEMPTS):
            before, etag = self._state()
            after = replace(change(before), serial=before.serial + 1 if before else 1)
            if self._put_if_unchanged(STATE, after.to_state(), etag):
                self._write_server_config(other)
                return after
        raise TransientFailure(f"{self.location.below(STATE)}: replaced meanwhile; try again")

    def _write_server_config(self, other: Mapping[str, Any] | None) -> None:
        """Derive ``server_config`` from ``mirror.json``.

        ``server_config`` is read first: a writer whose ``mirror.json`` is outdated by then also
        has an outdated ETag.
        """
        for _ in range(_ATTEMPTS):
            text, etag = self._content(CONFIG)
            state, _ = self._state()
            if state is None:
                raise ReferenceUnavailable(f"{self.location.below(STATE)}: was deleted meanwhile")
            kept = _entries(text, str(self.location)) if other is None else other
            if self._put_if_unchanged(CONFIG, replace(state, other=kept).to_text(), etag):
                return
        raise TransientFailure(f"{self.location.below(CONFIG)}: replaced meanwhile; try again")

    def _state(self) -> tuple[MirrorConfig | None, str | None]:
        """Read ``mirror.json`` and its ETag; else describe a plain copy of a CRDS cache."""
        text, etag = self._content(STATE)
        if text is not None:
            return MirrorConfig.parse_state(text, str(self.location.below(STATE))), etag
        text, _ = self._content(CONFIG)
        if text is None:
            return None, None
        config = MirrorConfig.parse(text, str(self.location.below(CONFIG)))
        # A server's catalogue lists every file that it ever had.
        names = {key.rpartition("/")[2] for key in self.list_keys()}
        files = {name: digest for name, digest in config.catalogue.items() if name in names}
        return replace(config, catalogue=files), None

    def _content(self, key: str) -> tuple[str | None, str | None]:
        location = self.location.below(key)
        try:
            answer = self.client.get_object(**location.as_kwargs)
        except ClientError as exc:
            if is_missing(exc) and code_of(exc) != "NoSuchBucket":
                return None, None
            raise self._explained(exc) from exc
        try:
            return answer["Body"].read().decode(), answer["ETag"]
        except UnicodeDecodeError as exc:
            raise ReferenceUnavailable(f"{location}: is not UTF-8 text: {exc}") from exc

    def _put_if_unchanged(self, key: str, text: str, etag: str | None) -> bool:
        """Write a file if it still has this ETag, or does not exist if that is None."""
        try:
            self.client.put_object(**self._address(key), Body=text.encode(), **unchanged(etag))
        except ClientError as exc:
            if is_conflict(exc):
                return False
            raise
        return True

    def _explained(self, exc: ClientError) -> Exception:
        """Name the bucket if it does not exist, which S3's message does not do."""
        if code_of(exc) == "NoSuchBucket":
            return ReferenceUnavailable(f"s3://{self.location.bucket}: no such bucket")
        return exc

    def read(self, name: str) -> str:
        """Return a mapping, as `handler.crds.rules.Mappings` asks for it."""
        return read_text(self.location.below(mapping_key(name)), self.client, LARGEST_MAPPING)

    def _address(self, key: str) -> dict[str, str]:
        return self.location.below(key).as_kwargs


def check_contexts(mirror: Mirror, *names: str) -> None:
    """Refuse names that are neither ``latest``, ``build`` nor contexts of a mirror.

    Raises
    ------
    UserError
        If the mirror does not hold one of them.
    """
    there = mirror.contexts()
    for name in names:
        # CRDS also knows jwst-latest, jwst-operational and jwst-build.
        if name not in {LATEST, BUILD, *there} and not name.startswith("jwst-"):
            held = ", ".join(there[-3:]) or "no context; run mirror sync"
            raise UserError(f"{name}: not in {mirror.location}, which holds {held}")


def _base64(digest: FileDigest) -> str:
    """A SHA-1 as S3 gives it."""
    return base64.b64encode(bytes.fromhex(digest.sha1)).decode()
