"""The mirror bucket: its files, and its configuration in ``mirror.json`` and ``server_config``."""

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
from handler.crds.rules import BUILD, LARGEST_MAPPING, RuleFiles, Rules, read_text
from handler.s3.errors import is_missing, translate_errors
from handler.s3.objects import ObjectStore, S3Location
from infra.aws import listed, put_if_unchanged, read_object
from infra.cli import UserError
from infra.mirror.contexts import Context, read_context

_ATTEMPTS = 20


@dataclass(frozen=True)
class Mirror:
    """A CRDS mirror in S3: a client, and the bucket and key prefix."""

    client: Any
    location: S3Location

    def state(self, key: str, expected: FileDigest) -> str:
        """Return ``there``, ``missing`` or ``wrong`` (other size or checksum) for a key.

        The key is relative to the mirror's prefix. The checksum is the SHA-1 that S3 stores; an
        object without one is wrong.
        """
        with translate_errors(f"{self.location.below(key)}: looking it up"):
            try:
                answer = self.client.head_object(**self._kwargs(key), ChecksumMode="ENABLED")
            except ClientError as exc:
                if is_missing(exc):
                    return "missing"
                raise
        same = answer["ContentLength"] == expected.size
        return "there" if same and answer.get("ChecksumSHA1") == _base64(expected) else "wrong"

    def put(self, path: Path, key: str, digest: FileDigest) -> None:
        """Upload a local file to a key, relative to the mirror's prefix."""
        task = f"{self.location.below(key)}: writing it"
        with path.open("rb") as file, translate_errors(task):
            # S3 rejects the upload if what it receives has another SHA-1.
            self.client.put_object(
                **self._kwargs(key),
                Body=file,
                ChecksumAlgorithm="SHA1",
                ChecksumSHA1=_base64(digest),
            )

    def get(self, key: str) -> bytes:
        """Return the content of the file at a key, relative to the mirror's prefix."""
        location = self.location.below(key)
        found = read_object(self.client, location)
        if found is None:
            raise ReferenceUnavailable(
                f"{location}: no such object; run dq-init mirror sync {self.location}"
            )
        return found[0]

    def read(self, name: str) -> str:
        """Return the text of a mapping (a method of `handler.crds.rules.RuleFiles`)."""
        return read_text(self.location.below(mapping_key(name)), self.client, LARGEST_MAPPING)

    def delete(self, key: str) -> None:
        """Delete the file at a key, relative to the mirror's prefix, if it exists."""
        with translate_errors(f"{self.location.below(key)}: deleting it"):
            self.client.delete_object(**self._kwargs(key))

    def list_keys(self) -> Iterator[str]:
        """Yield the keys of all mappings and reference files, relative to the mirror's prefix."""
        start = f"{self.location.key}/" if self.location.key else ""
        for folder in (MAPPINGS, REFERENCES):
            for item in listed(self.client, self.location.bucket, f"{start}{folder}"):
                yield item["Key"].removeprefix(start)

    def context(self, name: str, files: RuleFiles | None = None) -> Context:
        """Read a context by file name, reduced to the instruments of a restricted mirror."""
        config = self.config()
        try:
            return read_context(name, files or self, config.instruments if config else frozenset())
        except ReferenceUnavailable as exc:
            # The function's own messages name neither the mirror nor the context.
            found, advice, _ = str(exc).partition("; run dq-init mirror sync")
            arguments = f" {self.location} --context {name}" if advice else ""
            raise ReferenceUnavailable(f"context {name}: {found}{advice}{arguments}") from exc

    def contexts(self) -> list[str]:
        """Return the names of the contexts in the mirror's configuration, oldest first."""
        config = self.config()
        return contexts_of(config) if config else []

    def config(self) -> MirrorConfig | None:
        """Read the configuration; None if neither mirror.json nor server_config exists."""
        return self._read_config()[0]

    def operational(self) -> MirrorConfig:
        """Read the mirror's configuration, or raise `ReferenceUnavailable` if it has none."""
        return self._existing(self.config())

    def _existing(self, config: MirrorConfig | None) -> MirrorConfig:
        if config is None:
            raise ReferenceUnavailable(
                f"{self.location.below(STATE)}: no such object, expected a mirror; run dq-init "
                f"mirror sync {self.location}"
            )
        return config

    def written(self) -> str:
        """Return when mirror.json, else server_config, was last written; empty without both."""
        store = ObjectStore(self.client)
        found = (store.find(self.location.below(key)) for key in (STATE, CONFIG))
        return next((item.last_modified or "" for item in found if item), "")

    def update(
        self,
        change: Callable[[MirrorConfig], MirrorConfig],
        first: MirrorConfig | None = None,
        other: Mapping[str, Any] | None = None,
    ) -> tuple[MirrorConfig, MirrorConfig]:
        """Change mirror.json, then write server_config; repeat if another writer was faster.

        `change` gets the current configuration; if there is none, `first`. `other` has the entries
        of ``server_config`` that the mirror does not set; None keeps those in S3. Returns the
        configuration before and after, or raises `TransientFailure` after 20 attempts.
        """
        for _ in range(_ATTEMPTS):
            found, etag = self._read_config()
            before = self._existing(found or first)
            after = replace(change(before), serial=before.serial + 1)
            if self._put(STATE, after.to_state(), etag):
                self._write_server_config(other)
                return before, after
        raise self._busy(STATE)

    def _write_server_config(self, other: Mapping[str, Any] | None) -> None:
        for _ in range(_ATTEMPTS):
            # Read before mirror.json: if that is outdated when it is written, so is this ETag.
            content, etag = self._content(CONFIG)
            config = self.operational()
            kept = _other_entries(content, str(self.location)) if other is None else other
            if self._put(CONFIG, replace(config, other=kept).to_config(), etag):
                return
        raise self._busy(CONFIG)

    def _busy(self, key: str) -> TransientFailure:
        return TransientFailure(
            f"{self.location.below(key)}: other programs replaced it {_ATTEMPTS} times meanwhile; "
            "run the command again"
        )

    def _read_config(self) -> tuple[MirrorConfig | None, str | None]:
        """Return mirror.json and its ETag, else server_config and None, else None and None."""
        content, etag = self._content(STATE)
        if content is not None:
            return MirrorConfig.parse_state(content, str(self.location.below(STATE))), etag
        content, _ = self._content(CONFIG)
        if content is None:
            return None, None
        config = MirrorConfig.parse(content, str(self.location.below(CONFIG)))
        # A plain copy of a CRDS cache: a server's catalogue lists every file that it ever had.
        names = {key.rpartition("/")[2] for key in self.list_keys()}
        files = {name: digest for name, digest in config.catalogue.items() if name in names}
        return replace(config, catalogue=files), None

    def _content(self, key: str) -> tuple[bytes, str] | tuple[None, None]:
        return read_object(self.client, self.location.below(key)) or (None, None)

    def _put(self, key: str, content: bytes, etag: str | None) -> bool:
        return put_if_unchanged(self.client, self.location.below(key), content, etag) is not None

    def _kwargs(self, key: str) -> dict[str, str]:
        return self.location.below(key).as_kwargs


def contexts_of(config: MirrorConfig) -> list[str]:
    """Return the names of the contexts in a mirror's configuration, oldest first."""
    return sorted((name for name in config.catalogue if name.endswith(".pmap")), key=age)


def age(context: str) -> tuple[int, str]:
    """Return a sort key of context names: jwst_9999.pmap comes before jwst_10000.pmap."""
    return len(context), context


def check_contexts(mirror: Mirror, *names: str) -> list[str]:
    """Return the file names of contexts; raise `UserError` for one that is not in the mirror.

    A context is named by its file name, by ``latest`` (the mirror's operational context),
    ``build``, or a synonym of CRDS for these.
    """
    held, rules, found = mirror.contexts(), Rules(mirror.location, Path(), mirror.client), []
    for name in names:
        try:
            context = rules.context_name(name)
        except ReferenceUnavailable as exc:
            if name.endswith(BUILD):  # not recorded
                raise UserError(str(exc)) from exc
            context = name
        if context not in held:
            such = f"such as {', '.join(held[-3:])}" if held else "but it has none"
            raise UserError(
                f"{context}: not in {mirror.location}, expected one of its contexts, {such}; to "
                f"copy another one, run dq-init mirror sync {mirror.location} --context NAME"
            )
        found.append(context)
    return found


def _other_entries(content: bytes | None, name: str) -> Mapping[str, Any]:
    """Return the entries of server_config, given its content and its name for messages."""
    try:
        return MirrorConfig.parse(content or b"{}", name).other
    except ReferenceUnavailable:  # absent or damaged: replaced as a whole
        return {"observatory": "jwst"}


def _base64(digest: FileDigest) -> str:
    return base64.b64encode(bytes.fromhex(digest.sha1)).decode()
