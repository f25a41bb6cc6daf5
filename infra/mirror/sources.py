"""Where rules and masks come from: a local CRDS cache, or a CRDS server."""

import logging
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from crds.client import api
from crds.core.exceptions import CrdsError

from core import EQUALS_JWST
from core.errors import ReferenceUnavailable
from handler.crds.mirror import (
    CONFIG,
    FileDigest,
    MirrorConfig,
    check_context,
    key_of,
    mapping_key,
    reference_keys,
)

__all__ = ["Cache", "Server", "Source", "SourceRules", "digest_of"]

_STALLED = float(os.environ.get("MIRROR_STALLED_SECONDS", "60"))
"""Seconds without a byte after which a server is given up."""
_URIS = ("CRDS_CONFIG_URI", "CRDS_MAPPING_URI", "CRDS_REFERENCE_URI", "CRDS_PICKLE_URI")


def digest_of(path: Path) -> FileDigest:
    """Return what identifies a file."""
    return FileDigest.of(path.read_bytes())


class Source(Protocol):
    """Where files come from.

    Attributes
    ----------
    config : `~handler.crds.mirror.MirrorConfig`
        The server's configuration.
    """

    config: MirrorConfig

    def build(self) -> str:
        """Return the build context of the `jwst` version whose products ours equal.

        Raises
        ------
        ReferenceUnavailable
            If the source does not know it.
        """

    def digest(self, name: str, instrument: str) -> FileDigest:
        """Return what the catalogue says of a file, without fetching it where that is possible."""

    def file(self, name: str, instrument: str) -> Path:
        """Return the file, on this machine.

        Raises
        ------
        ReferenceUnavailable
            If it cannot be had, or is not what the catalogue says.
        """


@dataclass(frozen=True)
class SourceRules:
    """The rule files of a source, as `handler.crds.rules.Mappings` reads them."""

    source: Source

    def read(self, name: str) -> str:
        """Return a rule file."""
        return self.source.file(name, "").read_text(encoding="utf-8")


@dataclass
class Cache:
    """A CRDS cache on this machine, the directory that CRDS_PATH names.

    Attributes
    ----------
    root : `pathlib.Path`
        The directory.
    build_context : str
        The build context of the `jwst` version whose products ours equal: a cache has no word of
        it, and so a person says it.
    """

    root: Path
    build_context: str = ""
    config: MirrorConfig = field(init=False)

    def __post_init__(self) -> None:
        path = self.root / CONFIG
        try:
            text = path.read_text()
        except OSError as exc:
            raise ReferenceUnavailable(
                f"{path}: expected a CRDS cache's configuration: {exc}"
            ) from exc
        self.config = MirrorConfig.parse(text, str(path))

    def build(self) -> str:
        """Return the build context that a person has named."""
        if not self.build_context:
            raise ReferenceUnavailable(
                f"{self.root}: a cache does not say which context is the build context of jwst "
                f"{EQUALS_JWST}; name it: --build {EQUALS_JWST}=jwst_N.pmap"
            )
        return self.build_context

    def digest(self, name: str, instrument: str) -> FileDigest:
        """Return what the catalogue says of a file that is there, or what the file itself is."""
        path = self._path(name, instrument)
        return self.config.catalogue.get(name) or digest_of(path)

    def file(self, name: str, instrument: str) -> Path:
        """Return the file, checked."""
        path = self._path(name, instrument)
        expected, actual = self.digest(name, instrument), digest_of(path)
        if actual != expected:
            raise ReferenceUnavailable(f"{path}: {actual}; expected {expected}")
        return path

    def _path(self, name: str, instrument: str) -> Path:
        """The place of a file: references lie in their instrument's folder, or flat."""
        is_mapping = name.endswith("map")
        keys = (mapping_key(name),) if is_mapping else reference_keys(name, instrument)
        for path in (self.root / key for key in keys):
            if path.is_file():
                return path
        raise ReferenceUnavailable(f"{self.root / keys[0]}: there is no such file")


class _Downloads(api.FileCacher):  # type: ignore[misc]
    """How `crds` fetches a file; it would look up a reference's place in jwst's data models."""

    def __init__(self, context: str, path: Path) -> None:
        super().__init__(context)
        self._path = path

    def locate(self, name: str) -> str:  # noqa: ARG002
        """Return the place that a file is fetched to."""
        return str(self._path)


@dataclass
class Server:
    """A CRDS server, asked through `crds`; what it sends is kept in a directory.

    Attributes
    ----------
    url : str
        Its address.
    folder : `pathlib.Path`
        Where files are kept.
    """

    url: str
    folder: Path
    config: MirrorConfig = field(init=False)

    def __post_init__(self) -> None:
        self._point_crds_here()
        logging.getLogger("CRDS").setLevel(logging.ERROR)
        socket.setdefaulttimeout(_STALLED)  # crds itself waits for ever
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
        """Ask the server, as `crds.client.api.get_build_context` does where `jwst` is installed."""
        self._point_crds_here()
        try:
            return check_context(api.S.get_build_context("jwst", EQUALS_JWST))
        except (CrdsError, OSError) as exc:
            raise ReferenceUnavailable(
                f"{self.url}: does not say which context is the build context of jwst "
                f"{EQUALS_JWST}: {exc}"
            ) from exc

    def _point_crds_here(self) -> None:
        """Have `crds` ask this server, and keep files in this folder."""
        for name in [name for name in os.environ if name.startswith("CRDS_")]:
            del os.environ[name]
        os.environ.update(
            CRDS_PATH=str(self.folder),
            CRDS_SERVER_URL=self.url,
            CRDS_OBSERVATORY="jwst",
            CRDS_CLIENT_RETRY_COUNT="3",
            CRDS_CLIENT_RETRY_DELAY_SECONDS="1",
            **dict.fromkeys(_URIS, "none"),  # as the server has them
        )

    def digest(self, name: str, instrument: str) -> FileDigest:  # noqa: ARG002  # as the protocol has it
        """Return what the server's catalogue says of a file."""
        listed = self.config.catalogue.get(name)
        if listed is None:
            raise ReferenceUnavailable(f"{name}: {self.url} does not know it")
        return listed

    def file(self, name: str, instrument: str) -> Path:
        """Fetch a file, unless it was fetched before; checked."""
        expected, path = self.digest(name, instrument), self.folder / key_of(name, instrument)
        if path.is_file() and digest_of(path) == expected:
            return path
        path.unlink(missing_ok=True)
        self._point_crds_here()
        try:
            _Downloads(self.config.operational_context, path).get_local_files([name])
        except (CrdsError, OSError) as exc:
            raise ReferenceUnavailable(f"{name}: {self.url} did not send it whole: {exc}") from exc
        actual = digest_of(path)
        if actual != expected:
            raise ReferenceUnavailable(f"{name}: {self.url} sent {actual}; expected {expected}")
        return path

    def drop(self, name: str, instrument: str) -> None:
        """Forget a file that was fetched: /tmp of a function is small."""
        (self.folder / key_of(name, instrument)).unlink(missing_ok=True)
