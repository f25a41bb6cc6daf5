"""Where rules and masks come from: a local CRDS cache, or a CRDS server."""

import ast
import hashlib
import logging
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from crds.client import api, proxy
from crds.core.exceptions import CrdsError

from core.errors import ReferenceUnavailable
from infra.mirror.contexts import CONFIG, key_of, replace_environment

__all__ = ["Cache", "Facts", "Server", "Source", "catalogue", "operational_context"]

_STALLED = float(os.environ.get("MIRROR_STALLED_SECONDS", "60"))
"""Seconds without a byte after which a server is given up."""


@dataclass(frozen=True)
class Facts:
    """What identifies a file: bytes, and SHA-1 in hexadecimal digits."""

    size: int
    sha1: str

    @classmethod
    def of(cls, path: Path) -> "Facts":
        """Read them off a file."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False))
        return cls(path.stat().st_size, digest.hexdigest())


_URIS = ("CRDS_CONFIG_URI", "CRDS_MAPPING_URI", "CRDS_REFERENCE_URI", "CRDS_PICKLE_URI")


class Source(Protocol):
    """Where files come from.

    Attributes
    ----------
    info : dict
        The server's configuration, as `crds` keeps it in ``server_config``.
    """

    info: dict[str, Any]

    def facts(self, name: str, instrument: str) -> Facts:
        """Return what the catalogue says of a file, without fetching it where that is possible."""

    def file(self, name: str, instrument: str) -> Path:
        """Return the file, on this machine.

        Raises
        ------
        ReferenceUnavailable
            If it cannot be had, or is not what the catalogue says.
        """


def operational_context(info: dict[str, Any]) -> str:
    """Return what a configuration calls operational (``latest``)."""
    return str(info.get("latest_context") or info["operational_context"])


def catalogue(info: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return names, sizes and SHA-1s of the files that a configuration lists."""
    encoded = info.get("download_metadata")
    return dict(proxy.crds_decode(encoded)) if encoded else {}


def _listed(found: dict[str, dict[str, str]], name: str) -> Facts | None:
    entry = found.get(name)
    return Facts(int(entry["size"]), entry["sha1sum"]) if entry else None


@dataclass
class Cache:
    """A CRDS cache on this machine, the directory that CRDS_PATH names."""

    root: Path
    info: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        path = self.root / CONFIG
        try:
            self.info = ast.literal_eval(path.read_text())
        except (OSError, SyntaxError, ValueError) as exc:
            raise ReferenceUnavailable(
                f"{path}: expected a CRDS cache's configuration: {exc}"
            ) from exc
        self._catalogue = catalogue(self.info)

    def facts(self, name: str, instrument: str) -> Facts:
        """Return what the catalogue says of a file, or what the file itself is."""
        return _listed(self._catalogue, name) or Facts.of(self._path(name, instrument))

    def file(self, name: str, instrument: str) -> Path:
        """Return the file, checked."""
        path = self._path(name, instrument)
        expected, found = self.facts(name, instrument), Facts.of(path)
        if found != expected:
            raise ReferenceUnavailable(f"{path}: is {found}, expected {expected}")
        return path

    def _path(self, name: str, instrument: str) -> Path:
        """The place of a file: references lie in their instrument's folder, or flat."""
        nested = self.root / key_of(name, instrument)
        for path in (nested, self.root / "references" / "jwst" / name):
            if path.is_file():
                return path
        raise ReferenceUnavailable(f"{nested}: there is no such file")


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
    info: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self._point_crds_here()
        logging.getLogger("CRDS").setLevel(logging.ERROR)
        socket.setdefaulttimeout(_STALLED)  # crds itself waits for ever
        api.set_crds_server(self.url)
        api.get_server_info.cache.clear()
        api.get_download_metadata.cache.clear()
        try:
            self.info = dict(api.get_server_info())
            self._catalogue = catalogue(self.info)
        except (CrdsError, OSError, KeyError, ValueError) as exc:
            raise ReferenceUnavailable(
                f"{self.url}: does not answer as a CRDS server: {exc}"
            ) from exc

    def _point_crds_here(self) -> None:
        """Have `crds` ask this server, and keep files in this folder."""
        replace_environment(
            {
                "CRDS_PATH": str(self.folder),
                "CRDS_SERVER_URL": self.url,
                "CRDS_OBSERVATORY": "jwst",
                "CRDS_CLIENT_RETRY_COUNT": "3",
                "CRDS_CLIENT_RETRY_DELAY_SECONDS": "1",
                **dict.fromkeys(_URIS, "none"),  # as the server has them
            }
        )

    def facts(self, name: str, instrument: str) -> Facts:  # noqa: ARG002  # as the protocol has it
        """Return what the server's catalogue says of a file."""
        found = _listed(self._catalogue, name)
        if found is None:
            raise ReferenceUnavailable(f"{name}: {self.url} does not know it")
        return found

    def file(self, name: str, instrument: str) -> Path:
        """Fetch a file, unless it was fetched before; checked."""
        expected, path = self.facts(name, instrument), self.folder / key_of(name, instrument)
        if path.is_file() and Facts.of(path) == expected:
            return path
        path.unlink(missing_ok=True)
        self._point_crds_here()
        try:
            _Downloads(operational_context(self.info), path).get_local_files([name])
        except (CrdsError, OSError) as exc:
            raise ReferenceUnavailable(f"{name}: {self.url} did not send it whole: {exc}") from exc
        found = Facts.of(path)
        if found != expected:
            raise ReferenceUnavailable(f"{name}: {self.url} sent {found}, expected {expected}")
        return path

    def drop(self, name: str, instrument: str) -> None:
        """Forget a file that was fetched: /tmp of a function is small."""
        (self.folder / key_of(name, instrument)).unlink(missing_ok=True)
