"""Sources of a mirror's files: a local CRDS cache, or a CRDS server."""

import logging
import os
import socket
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from core import EQUALS_JWST
from core.errors import ReferenceUnavailable
from handler.crds.lean_import import CrdsError, api
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
from handler.crds.rules import text_of
from infra.cli import UserError

# Seconds without a byte from a server; crds itself has no timeout.
_TIMEOUT = 60.0
_OURS = frozenset({"CRDS_MIRROR", "CRDS_SERVER"})  # environment variables of infra/mirror.yaml
# How a CRDS cache lays out references: flat, or in a folder for each instrument.
_LAYOUT = "config/jwst/ref_cache_subdir_mode"
_URIS = ("CRDS_CONFIG_URI", "CRDS_MAPPING_URI", "CRDS_REFERENCE_URI", "CRDS_PICKLE_URI")


class Source(ABC):
    """A source of mappings and masks, with the configuration of its CRDS server.

    Every method raises `ReferenceUnavailable` if the source lacks what is requested. `instrument`
    is empty for mappings.
    """

    config: MirrorConfig

    @abstractmethod
    def build(self) -> str:
        """Return the build context of the `jwst` version that the products equal."""

    @abstractmethod
    def digest(self, name: str, instrument: str) -> FileDigest:
        """Return the size and SHA-1 that the source's configuration lists for a file."""

    @abstractmethod
    def file(self, name: str, instrument: str) -> Path:
        """Return the local path of a file whose size and SHA-1 are those of `digest`."""

    def read(self, name: str) -> str:
        """Return the text of a mapping (a method of `handler.crds.rules.RuleFiles`)."""
        path = self.file(name, "")
        return text_of(path.read_bytes(), path, "use another context")


@dataclass
class Cache(Source):
    """A CRDS cache on this machine: a folder laid out as the one that CRDS_PATH names."""

    root: Path
    build_context: str = ""  # named by the operator, because a cache does not record it; or empty
    config: MirrorConfig = field(init=False)

    def __post_init__(self) -> None:
        lacking = [f"no {part}" for part in (CONFIG, MAPPINGS) if not (self.root / part).exists()]
        if lacking:
            raise UserError(
                f"{self.root.resolve()}: has {' and '.join(lacking)}, expected a CRDS cache (the "
                "folder that CRDS_PATH names)"
            )
        path = self.root / CONFIG
        self.config = MirrorConfig.parse(path.read_bytes(), str(path))

    def build(self) -> str:
        """Return the build context that the operator named with ``--build``."""
        if not self.build_context:
            raise ReferenceUnavailable(
                f"{self.root}: a CRDS cache does not record the build context of jwst "
                f"{EQUALS_JWST}; name a context instead of build, or give mirror sync the option "
                f"--build {EQUALS_JWST}=jwst_N.pmap"
            )
        return self.build_context

    def digest(self, name: str, instrument: str) -> FileDigest:
        """Return the digest in server_config of a file, else the digest of its content."""
        path = self._path(name, instrument)
        return self.config.catalogue.get(name) or _digest_of(path)

    def file(self, name: str, instrument: str) -> Path:
        """Return the path of a file."""
        path, expected = self._path(name, instrument), self.digest(name, instrument)
        actual = _digest_of(path)
        if actual != expected:
            raise ReferenceUnavailable(
                f"{path}: has {actual}, expected {expected}, as the CRDS catalogue lists; delete "
                "the file and run crds sync"
            )
        return path

    def _path(self, name: str, instrument: str) -> Path:
        paths = _paths(self.root, name, instrument)
        for path in paths:
            if path.is_file():
                return path
        raise ReferenceUnavailable(
            f"{paths[0]}: does not exist, expected a file of the CRDS cache; run crds "
            "sync for the context, or use a CRDS server"
        )


@dataclass
class Server(Source):
    """A CRDS server, reached through `crds`, and the local folder for its files.

    Creating one sets the environment variables that `crds` reads, and the default socket timeout.
    """

    url: str
    folder: Path
    read_only: bool = False  # whether nothing may be downloaded
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
                f"{self.url}: does not answer as a CRDS server ({exc}); check the URL"
            ) from exc

    def build(self) -> str:
        """Return the build context that the server assigns to jwst `EQUALS_JWST`."""
        self._configure_crds()
        try:
            return check_context(api.S.get_build_context("jwst", EQUALS_JWST))
        except (CrdsError, OSError, ValueError, TypeError, LookupError) as exc:
            raise ReferenceUnavailable(
                f"{self.url}: does not name the build context of jwst {EQUALS_JWST} ({exc}); "
                "name a context instead of build"
            ) from exc

    def digest(self, name: str, instrument: str) -> FileDigest:  # noqa: ARG002
        """Return the digest that the server lists for a file."""
        found = self.config.catalogue.get(name)
        if found is None:
            raise ReferenceUnavailable(
                f"{name}: not in the catalogue of {self.url}; check the name of the context"
            )
        return found

    def file(self, name: str, instrument: str) -> Path:
        """Return the local path of a file; download it if missing or unlike its `digest`."""
        expected, paths = self.digest(name, instrument), _paths(self.folder, name, instrument)
        for path in paths:
            if path.is_file() and _digest_of(path) == expected:
                return path
        path = paths[0]
        if self.read_only:
            raise ReferenceUnavailable(
                f"{path}: missing or damaged, expected {expected}; CRDS_READONLY_CACHE forbids a "
                "download: unset it, or add the file"
            )
        self._configure_crds()
        # Here an OSError says why a file cannot be kept; crds would call it a failed download.
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
        for is_last in (False, False, True):
            path.unlink(missing_ok=True)  # crds downloads only what does not exist
            try:
                download = _Downloads(self.config.operational_context, path)
                download.get_local_files([name])  # compares digests
                break
            except (CrdsError, OSError) as exc:
                # crds repeats a download, but not one that was cut short.
                is_cut_short = path.exists()
                path.unlink(missing_ok=True)  # other programs do not check what is in the cache
                if is_last or not is_cut_short:
                    raise ReferenceUnavailable(
                        f"{name}: download from {self.url} failed ({exc}); run the command again"
                    ) from exc
        return path

    def drop(self, name: str, instrument: str) -> None:
        """Delete a downloaded file: /tmp of a Lambda function is small."""
        (self.folder / key_of(name, instrument)).unlink(missing_ok=True)

    def _configure_crds(self) -> None:
        # crds reads the environment at every call. Ours stay: a Lambda function is invoked again.
        for name in {name for name in os.environ if name.startswith("CRDS_")} - _OURS:
            del os.environ[name]
        os.environ.update(
            CRDS_PATH=str(self.folder),
            CRDS_SERVER_URL=self.url,
            CRDS_OBSERVATORY="jwst",
            CRDS_CLIENT_RETRY_COUNT="3",
            CRDS_CLIENT_RETRY_DELAY_SECONDS="1",
            CRDS_READONLY_CACHE=str(self.read_only),
            **dict.fromkeys(_URIS, "none"),  # the URIs that the server names
        )


class _Downloads(api.FileCacher):  # type: ignore[misc]
    """A `crds` downloader that writes to a given path; `crds` needs jwst to choose paths."""

    def __init__(self, context: str, path: Path) -> None:
        super().__init__(context)
        self._path = path

    def locate(self, name: str) -> str:  # noqa: ARG002
        """Return the path that was given on creation, for any name (`crds` calls this)."""
        return str(self._path)


def _paths(root: Path, name: str, instrument: str) -> list[Path]:
    """Return the paths in a CRDS cache that may have a file; new files go to the first one."""
    keys = (mapping_key(name),) if name.endswith("map") else reference_keys(name, instrument)
    mode = root / _LAYOUT
    is_flat = mode.is_file() and mode.read_text(encoding="utf-8").strip() == "flat"
    return [root / key for key in (keys[::-1] if is_flat else keys)]


def _digest_of(path: Path) -> FileDigest:
    return FileDigest.of(path.read_bytes())
