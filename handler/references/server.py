"""What a mirror's ``server_config`` says: the file in which `crds` keeps a server's configuration.

It is a Python literal. A mirror's own lists the files that the mirror holds, not all that the
server ever had.
"""

import ast
import hashlib
import pprint
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.errors import ReferenceUnavailable
from handler.references.lean_crds import proxy

__all__ = ["FileDigest", "ServerConfig"]

_NOT_KEPT = {"context_history", "mappings", "latest_context"}
_INSTRUMENTS, _BUILDS = "mirrored_instruments", "build_contexts"
"""What a mirror's configuration says besides."""


@dataclass(frozen=True)
class FileDigest:
    """What identifies a file: bytes, and SHA-1 in hexadecimal digits."""

    size: int
    sha1: str

    @classmethod
    def of(cls, content: bytes) -> "FileDigest":
        """Return what identifies a file of that content."""
        return cls(len(content), hashlib.sha1(content, usedforsecurity=False).hexdigest())


@dataclass(frozen=True)
class ServerConfig:
    """A server's configuration, or a mirror's copy of it.

    Attributes
    ----------
    operational_context : str
        What ``latest`` means.
    bad_files : frozenset of str
        Names of references and rules that are not to be used.
    catalogue : mapping of str to `FileDigest`
        The files that there are.
    other : mapping
        Whatever else the file says.
    """

    operational_context: str
    bad_files: frozenset[str]
    catalogue: Mapping[str, FileDigest]
    other: Mapping[str, Any]

    @property
    def instruments(self) -> frozenset[str]:
        """The instruments that a mirror is restricted to, in upper case; empty for all."""
        return frozenset(map(str, self.other.get(_INSTRUMENTS, ())))

    @property
    def builds(self) -> Mapping[str, str]:
        """Version of `jwst` -> its build context, as far as a mirror records it."""
        return dict(self.other.get(_BUILDS, {}))

    def mirroring(self, instruments: frozenset[str], builds: Mapping[str, str]) -> "ServerConfig":
        """Return the same, of a mirror restricted to instruments and recording build contexts."""
        said = {_INSTRUMENTS: sorted(instruments), _BUILDS: dict(builds)}
        return replace(self, other={**self.other, **said})

    @classmethod
    def parse(cls, text: str, name: str) -> "ServerConfig":
        """Read ``server_config``.

        Parameters
        ----------
        text : str
            The file.
        name : str
            Where it lies, for messages.

        Raises
        ------
        ReferenceUnavailable
            If it cannot be read.
        """
        try:
            return cls.from_info(ast.literal_eval(text))
        except (SyntaxError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ReferenceUnavailable(f"{name}: cannot be read: {exc!r}") from exc

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> "ServerConfig":
        """Read the dictionary that a server sends, or that ``server_config`` holds.

        Raises
        ------
        KeyError, ValueError, TypeError, AttributeError
            If something is missing, or not what it should be.
        """
        encoded = info.get("download_metadata")
        entries = proxy.crds_decode(encoded) if encoded else {}
        return cls(
            operational_context=str(info.get("latest_context") or info["operational_context"]),
            bad_files=frozenset(info.get("bad_files_list", ())),
            catalogue={
                name: FileDigest(int(entry["size"]), str(entry["sha1sum"]))
                for name, entry in entries.items()
            },
            other=info,
        )

    def to_text(self) -> str:
        """Return the file's content."""
        info = {name: value for name, value in self.other.items() if name not in _NOT_KEPT}
        entries = {
            name: {"size": str(digest.size), "sha1sum": digest.sha1}
            for name, digest in self.catalogue.items()
        }
        info |= {
            "download_metadata": proxy.crds_encode(entries),
            "operational_context": self.operational_context,
            "mappings": sorted(name for name in self.catalogue if name.endswith("map")),
            "bad_files_list": sorted(self.bad_files),
        }
        return pprint.pformat(info)
