"""Sources of mappings and masks: a local CRDS cache, or a CRDS server."""

import logging
import os
import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from crds.client import api
from crds.core.exceptions import CrdsError

from core import EQUALS_JWST
from core.errors import ReferenceUnavailable
from handler.crds.mirror import (
    CONFIG,
    MAPPINGS,
    FileDigest,
    MirrorConfig,
    check_context,
    key_of,
    mapping_key,
    reference_keys,
)
from infra.cli import UserError

# Seconds without a byte from a server; crds itself has no timeout.
_TIMEOUT = float(os.environ.get("MIRROR_STALLED_SECONDS", "60"))
_URIS = ("CRDS_CONFIG_URI", "CRDS_MAPPING_URI", "CRDS_REFERENCE_URI", "CRDS_PICKLE_URI")


class Source(ABC):
    """A source of files, with the configuration of its CRDS server.

    Every method raises `ReferenceUnavailable` if the source lacks what is requested. Mappings have
    no instrument: it is an empty string for them.
    """

    config: MirrorConfig

    @abstractmethod
    def build(self) -> str:
        """Return the build context of the `jwst` version that our products match."""

    @abstractmethod
    def digest(self, name: str, instrument: str) -> FileDigest:
        """Return the digest of a file, from the catalogue if possible."""

    @abstractmethod
    def file(self, name: str, instrument: str) -> Path:
        """Return the local path of a file whose digest was checked."""

    def read(self, name: str) -> str:
        """Read a mapping (`handler.crds.rules.RuleFiles`)."""
        return self.file(name, "").read_text(encoding="utf-8")


@dataclass
class Cache(Source):
    """A CRDS cache: a folder laid out as CRDS_PATH."""

    root: Path
    build_context: str = ""  # a cache does not record it
    config: MirrorConfig = field(init=False)

    def __post_init__(self) -> None:
        lacking = [f"no {part}" for part in (CONFIG, MAPPINGS) if not (self.root / part).exists()]
        if lacking:
            raise UserError(
                f"{self.root.resolve()}: not a CRDS cache: {', '.join(lacking)}; expected a folder "
                "laid out as CRDS_PATH"
            )
        path = self.root / CONFIG
        self.config = MirrorConfig.parse(path.read_text(), str(path))

    def build(self) -> str:
        """Return the build context that the operator named."""
        if not self.build_context:
            raise ReferenceUnavailable(
                f"{self.root}: a cache does not say which context is the build context of jwst "
                f"{EQUALS_JWST}; name it: --build {EQUALS_JWST}=jwst_N.pmap"
            )
        return self.build_context

    def digest(self, name: str, instrument: str) -> FileDigest:
        """Return the digest of a file in the cache: the catalogue's, else its own."""
        path = self._path(name, instrument)
        return self.config.catalogue.get(name) or _digest_of(path)

    def file(self, name: str, instrument: str) -> Path:
        """Return the path of a file after checking its digest."""
        path, expected = self._path(name, instrument), self.digest(name, instrument)
        actual = _digest_of(path)
        if actual != expected:
            raise ReferenceUnavailable(
                f"{path}: has {actual}, expected {expected} as the CRDS catalogue lists; delete "
                "the file and sync the cache again"
            )
        return path

    def _path(self, name: str, instrument: str) -> Path:
        is_mapping = name.endswith("map")
        # References are in sub-folders by instrument, or flat (CRDS_PATH's ref_cache_subdir_mode).
        keys = (mapping_key(name),) if is_mapping else reference_keys(name, instrument)
        for path in (self.root / key for key in keys):
            if path.is_file():
                return path
        raise ReferenceUnavailable(
            f"{self.root / keys[0]}: does not exist, expected a file of the CRDS cache; sync the "
            "cache for this context, or sync from the server"
        )


@dataclass
class Server(Source):
    """A CRDS server, reached through `crds`, and the folder for what it sends."""

    url: str
    folder: Path
    config: MirrorConfig = field(init=False)

    def __post_init__(self) -> None:
        self._configure_crds()
        logging.getLogger("CRDS").setLevel(logging.ERROR)
        socket.setdefaulttimeout(_TIMEOUT)
        api.set_crds_server(self.url)
        api.get_server_info.cache.clear()
        api.get_download_metadata.cache.clear()
        try:
            self.config = MirrorConfig.from_info(dict(api.get_server_info()), self.url)
        except (CrdsError, OSError, ValueError, TypeError) as exc:
            raise ReferenceUnavailable(
                f"{self.url}: does not answer as a CRDS server: {exc}"
            ) from exc

    def build(self) -> str:
        """Request the build context, as `crds.client.api.get_build_context` does for `jwst`."""
        self._configure_crds()
        try:
            return check_context(api.S.get_build_context("jwst", EQUALS_JWST))
        except (CrdsError, OSError) as exc:
            raise ReferenceUnavailable(
                f"{self.url}: does not say which context is the build context of jwst "
                f"{EQUALS_JWST}: {exc}"
            ) from exc

    def digest(self, name: str, instrument: str) -> FileDigest:  # noqa: ARG002
        """Return the digest that the server's catalogue lists."""
        found = self.config.catalogue.get(name)
        if found is None:
            raise ReferenceUnavailable(f"{name}: not in the catalogue of {self.url}")
        return found

    def file(self, name: str, instrument: str) -> Path:
        """Download a file, unless it was downloaded before, and check its digest."""
        expected, path = self.digest(name, instrument), self.folder / key_of(name, instrument)
        if path.is_file() and _digest_of(path) == expected:
            return path
        path.unlink(missing_ok=True)
        self._configure_crds()
        try:
            _Downloads(self.config.operational_context, path).get_local_files([name])
        except (CrdsError, OSError) as exc:
            raise ReferenceUnavailable(f"{name}: download from {self.url} failed: {exc}") from exc
        actual = _digest_of(path)
        if actual != expected:
            raise ReferenceUnavailable(f"{name}: {self.url} sent {actual}; expected {expected}")
        return path

    def drop(self, name: str, instrument: str) -> None:
        """Delete a downloaded file: /tmp of a Lambda function is small."""
        (self.folder / key_of(name, instrument)).unlink(missing_ok=True)

    def _configure_crds(self) -> None:
        # crds reads the environment at every call.
        for name in [name for name in os.environ if name.startswith("CRDS_")]:
            del os.environ[name]
        os.environ.update(
            CRDS_PATH=str(self.folder),
            CRDS_SERVER_URL=self.url,
            CRDS_OBSERVATORY="jwst",
            CRDS_CLIENT_RETRY_COUNT="3",
            CRDS_CLIENT_RETRY_DELAY_SECONDS="1",
            **dict.fromkeys(_URIS, "none"),  # the URIs that the server names
        )


class _Downloads(api.FileCacher):  # type: ignore[misc]
    """Downloads of `crds`, which would take a reference's path from the jwst data models."""

    def __init__(self, context: str, path: Path) -> None:
        super().__init__(context)
        self._path = path

    def locate(self, name: str) -> str:  # noqa: ARG002
        """Return the path to download to."""
        return str(self._path)


def _digest_of(path: Path) -> FileDigest:
    return FileDigest.of(path.read_bytes())
