"""The configuration of a CRDS server or mirror: the files ``server_config`` and ``mirror.json``.

``server_config`` is CRDS's own file, a Python literal. `mirror sync`, `use` and `prune` write
``mirror.json``; the function reads it if it exists and ``server_config`` otherwise.
"""

import ast
import base64
import hashlib
import json
import pprint
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from core.errors import ReferenceUnavailable
from handler.crds.lean_import import CRDS_NAME_RE_STR, proxy

__all__ = [
    "CONFIG",
    "LARGEST_CONFIG",
    "MAPPINGS",
    "REFERENCES",
    "STATE",
    "FileDigest",
    "MirrorConfig",
    "check_context",
    "check_instrument",
    "check_mapping",
    "check_reference",
    "key_of",
    "mapping_key",
    "reference_keys",
]

CONFIG, STATE = "config/jwst/server_config", "config/jwst/mirror.json"
MAPPINGS, REFERENCES = "mappings/jwst/", "references/jwst/"

# The patterns of crds.core.config, which matches names only from their beginning.
_CONTEXT = re.compile(r"jwst(_\d{4,})?\.pmap", re.ASCII)
_MAPPING = re.compile(rf"(?=jwst[_.]){CRDS_NAME_RE_STR}[pir]map", re.ASCII)
_REFERENCE = re.compile(rf"(?=jwst_){CRDS_NAME_RE_STR}(fits|asdf|json|yaml)", re.ASCII)
_INSTRUMENT = re.compile(r"[a-z][a-z0-9]{1,16}", re.ASCII | re.IGNORECASE)


def check_context(name: object) -> str:
    """Return the name of a context, or raise `ReferenceUnavailable` if it is not one."""
    return _checked(name, _CONTEXT, "a context such as jwst_1321.pmap")


def check_mapping(name: object) -> str:
    """Return the name of a mapping, or raise `ReferenceUnavailable` if it is not one."""
    if isinstance(name, str) and _CONTEXT.fullmatch(name):
        return name
    return _checked(name, _MAPPING, "the name of a CRDS mapping")


def check_reference(name: object) -> str:
    """Return the name of a reference file, or raise `ReferenceUnavailable` if it is not one."""
    return _checked(name, _REFERENCE, "the name of a CRDS reference file")


def check_instrument(name: object) -> str:
    """Return the name of an instrument, or raise `ReferenceUnavailable` if it is not one."""
    return _checked(name, _INSTRUMENT, "the name of an instrument")


def mapping_key(name: str) -> str:
    """Return the key of a mapping, below the mirror's prefix."""
    return f"{MAPPINGS}{check_mapping(name)}"


def reference_keys(name: str, instrument: str) -> tuple[str, str]:
    """Return the keys that a reference file may have: in its instrument's folder, and flat.

    Parameters
    ----------
    name : str
        File name.
    instrument : str
        INSTRUME, in any case.

    Raises
    ------
    ReferenceUnavailable
        If one of them is not a name that CRDS gives.
    """
    check_reference(name)
    return f"{REFERENCES}{check_instrument(instrument).lower()}/{name}", f"{REFERENCES}{name}"


def key_of(name: str, instrument: str) -> str:
    """Return the key of a file as `mirror sync` writes it; mappings have no instrument."""
    return mapping_key(name) if name.endswith("map") else reference_keys(name, instrument)[0]


def _checked(name: object, pattern: re.Pattern[str], expected: str) -> str:
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise ReferenceUnavailable(f"{str(name)[:100]!r}: expected {expected}")
    return name


LARGEST_CONFIG = 32_000_000
"""Bytes of a configuration, and of the catalogue that is compressed in it; CRDS's have 0.5 MB."""
_NOT_KEPT = {"context_history", "mappings", "latest_context"}
T = TypeVar("T")
_SHA1 = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and SHA-1 (hexadecimal) of a file."""

    size: int
    sha1: str

    @classmethod
    def of(cls, content: bytes) -> "FileDigest":
        """Return the digest of a file's content."""
        return cls(len(content), hashlib.sha1(content, usedforsecurity=False).hexdigest())

    def __str__(self) -> str:
        return f"{self.size:,} bytes, SHA-1 {self.sha1}"


@dataclass(frozen=True)
class MirrorConfig:
    """The configuration of a CRDS server or of a mirror.

    Attributes
    ----------
    operational_context : str
        The context that ``latest`` stands for.
    bad_files : frozenset of str
        Names of references and mappings that must not be used.
    catalogue : mapping of str to `FileDigest`
        The files of the server or mirror.
    other : mapping
        The other entries of ``server_config``.
    instruments : frozenset of str
        Instruments that a mirror is restricted to, in upper case; empty for all.
    builds : mapping of str to str
        Build contexts by version of `jwst`, as far as a mirror records them.
    previous_context : str
        The operational context before this one; empty if there was none.
    source_context : str
        The operational context of the source of the last sync.
    bad_files_of : str
        The newest operational context of any source; only a newer source shortens `bad_files`.
    held_by_hand : bool
        Whether `mirror use` chose the operational context, so that a sync keeps it.
    announced_context : str
        The context that was announced last; empty if none was.
    serial : int
        Number of the last write.
    prunes : int
        Twice the number of prunes; odd while one deletes files, so that no sync may publish, and
        another number than at its beginning tells a sync not to trust what it found.
    """

    operational_context: str
    bad_files: frozenset[str]
    catalogue: Mapping[str, FileDigest]
    other: Mapping[str, Any] = field(default_factory=dict)
    instruments: frozenset[str] = frozenset()
    builds: Mapping[str, str] = field(default_factory=dict)
    previous_context: str = ""
    source_context: str = ""
    bad_files_of: str = ""
    held_by_hand: bool = False
    announced_context: str = ""
    serial: int = 0
    prunes: int = 0

    @classmethod
    def parse(cls, text: str, name: str) -> "MirrorConfig":
        """Read ``server_config``.

        Parameters
        ----------
        text : str
            Content of the file.
        name : str
            Its URI or path, for messages.

        Raises
        ------
        ReferenceUnavailable
            If it is damaged.
        """
        _check_size(text, name)
        try:
            info = ast.literal_eval(text)
        except Exception as exc:  # also MemoryError and RecursionError: all of them say "damaged"
            raise _damaged(name, exc) from exc
        return cls.from_info(info, name)

    @classmethod
    def from_info(cls, info: Any, name: str) -> "MirrorConfig":
        """Read the dictionary that a server sends, or that ``server_config`` holds.

        Raises
        ------
        ReferenceUnavailable
            If an entry is missing or malformed.
        """
        try:
            return cls(
                operational_context=check_context(
                    info.get("latest_context") or info["operational_context"]
                ),
                bad_files=_names(info.get("bad_files_list", ())),
                catalogue={
                    str(file): _digest(entry["size"], entry["sha1sum"])
                    for file, entry in _decoded(info.get("download_metadata") or {}).items()
                },
                other={key: value for key, value in info.items() if isinstance(key, str)},
            )
        except Exception as exc:  # whatever a damaged entry makes of itself
            raise _damaged(name, exc) from exc

    @classmethod
    def parse_state(cls, text: str, name: str) -> "MirrorConfig":
        """Read ``mirror.json``.

        Raises
        ------
        ReferenceUnavailable
            If it is damaged.
        """
        _check_size(text, name)
        try:
            state = json.loads(text)

            def context(key: str) -> str:
                return check_context(state[key]) if state[key] != "" else ""

            return cls(
                operational_context=check_context(state["operational_context"]),
                bad_files=_names(state["bad_files"]),
                catalogue={
                    str(file): _digest(*digest) for file, digest in state["catalogue"].items()
                },
                instruments=frozenset(map(check_instrument, state["instruments"])),
                builds={str(k): check_context(v) for k, v in state["builds"].items()},
                held_by_hand=_typed(state["held_by_hand"], bool),
                serial=_typed(state["serial"], int),
                prunes=_typed(state["prunes"], int),
                previous_context=context("previous_context"),
                source_context=context("source_context"),
                bad_files_of=context("bad_files_of"),
                announced_context=context("announced_context"),
            )
        except Exception as exc:  # whatever a damaged entry makes of itself
            raise _damaged(name, exc) from exc

    def to_state(self) -> str:
        """Return the content of ``mirror.json``."""
        state = asdict(replace(self, other={}, catalogue={}))
        del state["other"]
        state["bad_files"], state["instruments"] = sorted(self.bad_files), sorted(self.instruments)
        state["catalogue"] = {
            name: (digest.size, digest.sha1) for name, digest in sorted(self.catalogue.items())
        }
        return json.dumps(state, indent=1)

    def to_text(self) -> str:
        """Return the content of ``server_config``."""
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
        # Two files of equal content have one ETag; the serial number tells two writes apart.
        return pprint.pformat(info | {"mirror_serial": self.serial})


def _check_size(text: str, name: str) -> None:
    if len(text) > LARGEST_CONFIG:
        raise ReferenceUnavailable(
            f"{name}: {len(text):,} characters, expected at most {LARGEST_CONFIG:,}"
        )


def _decoded(encoded: Any) -> Any:
    """Decode what `crds.client.proxy.crds_encode` made, up to a size."""
    if not isinstance(encoded, dict) or "crds_payload" not in encoded:
        return encoded
    inflating = zlib.decompressobj(wbits=31)  # gzip
    packed = base64.b64decode(encoded["crds_payload"].encode("ascii"))
    content = inflating.decompress(packed, LARGEST_CONFIG)
    if not inflating.eof:
        raise ValueError(f"download_metadata is damaged or larger than {LARGEST_CONFIG:,} bytes")
    return json.loads(content)


def _names(names: Any) -> frozenset[str]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError("bad_files_list is not a list of names")
    return frozenset(names)


def _digest(size: Any, sha1: Any) -> FileDigest:
    if not isinstance(sha1, str) or not _SHA1.fullmatch(sha1) or not 0 <= int(size) < 1 << 40:
        raise ValueError(f"{str((size, sha1))[:100]} is not a size and a SHA-1")
    return FileDigest(int(size), sha1)


def _typed(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{str(value)[:100]!r} is not {kind.__name__}")
    return value


def _damaged(name: str, exc: Exception) -> ReferenceUnavailable:
    return ReferenceUnavailable(f"{name}: cannot be read: {str(exc)[:200] or type(exc).__name__}")
