"""The CRDS mirror: names and keys of its files, their digests and local copies, its configuration.

``server_config`` is CRDS's own file, a Python literal. ``mirror.json`` is written by `mirror sync`,
`use` and `prune`; the function reads ``server_config`` only if ``mirror.json`` does not exist.
"""

import ast
import base64
import hashlib
import json
import logging
import pprint
import re
import uuid
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from core.errors import ReferenceUnavailable
from handler.crds.lean_import import CRDS_NAME_RE_STR, proxy

log = logging.getLogger(__name__)

CONFIG, STATE = "config/jwst/server_config", "config/jwst/mirror.json"
MAPPINGS, REFERENCES = "mappings/jwst/", "references/jwst/"
LARGEST_CONFIG = 32_000_000  # bytes, compressed or not; those of CRDS have 0.5 MB
# Entries of a CRDS server's configuration that a mirror's must not repeat.
_NOT_KEPT = {"context_history", "mappings", "latest_context"}
T = TypeVar("T")

# Patterns of crds.core.config, which matches only the beginning of a name.
_CONTEXT = re.compile(r"jwst(_\d{4,})?\.pmap", re.ASCII)
_MAPPING = re.compile(rf"(?=jwst[_.]){CRDS_NAME_RE_STR}[pir]map", re.ASCII)
_REFERENCE = re.compile(rf"(?=jwst_){CRDS_NAME_RE_STR}(fits|asdf|json|yaml)", re.ASCII)
_INSTRUMENT = re.compile(r"[a-z][a-z0-9]{1,16}", re.ASCII | re.IGNORECASE)
_SHA1 = re.compile("[0-9a-f]{40}")


def check_context(name: object) -> str:
    """Return `name` if it looks like a context's file name, or raise `ReferenceUnavailable`."""
    return _checked(name, _CONTEXT, "a context such as jwst_1321.pmap")


def check_mapping(name: object) -> str:
    """Return `name` if it looks like a mapping's file name, or raise `ReferenceUnavailable`."""
    if isinstance(name, str) and _CONTEXT.fullmatch(name):
        return name
    return _checked(name, _MAPPING, "the name of a CRDS mapping")


def check_reference(name: object) -> str:
    """Return `name` if it looks like a reference file's, or raise `ReferenceUnavailable`."""
    return _checked(name, _REFERENCE, "the name of a CRDS reference file")


def check_instrument(name: object) -> str:
    """Return `name` if it looks like an instrument's, or raise `ReferenceUnavailable`."""
    return _checked(name, _INSTRUMENT, "the name of an instrument")


def _checked(name: object, pattern: re.Pattern[str], expected: str) -> str:
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise ReferenceUnavailable(
            f"found the name {str(name)[:100]!r}, expected {expected}; use another context"
        )
    return name


def mapping_key(name: str) -> str:
    """Return the key of a mapping file, relative to the mirror's prefix."""
    return f"{MAPPINGS}{check_mapping(name)}"


def reference_keys(name: str, instrument: str) -> tuple[str, str]:
    """Return both keys, below the mirror's prefix, of a reference file: in a folder, and flat."""
    check_reference(name)
    return f"{REFERENCES}{check_instrument(instrument).lower()}/{name}", f"{REFERENCES}{name}"


def key_of(name: str, instrument: str) -> str:
    """Return the key, below the mirror's prefix, at which `mirror sync` writes a file."""
    return mapping_key(name) if name.endswith("map") else reference_keys(name, instrument)[0]


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and SHA-1 (hexadecimal) of a file."""

    size: int
    sha1: str

    @classmethod
    def of(cls, content: bytes) -> "FileDigest":
        """Return the size and SHA-1 of a file's content."""
        return cls(len(content), hashlib.sha1(content, usedforsecurity=False).hexdigest())

    def __str__(self) -> str:
        return f"{self.size:,} bytes, SHA-1 {self.sha1}"


def read_copy(path: Path, expected: FileDigest) -> bytes | None:
    """Return the content of a local file; None if it is unreadable or not as `expected`."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if FileDigest.of(content) == expected else None


def write_copy(path: Path, content: bytes) -> None:
    """Write a local copy under a temporary name, then rename it; only log a failure."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.download")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:  # /tmp is full: the file is read from the mirror again
        log.warning("%s: cannot be written; read from the mirror again", path, exc_info=True)
        with suppress(OSError):
            temporary.unlink()


@dataclass(frozen=True)
class MirrorConfig:
    """The configuration of a CRDS mirror or server: contexts, bad files, catalogue of files."""

    operational_context: str
    bad_files: frozenset[str]  # references and mappings
    # Size and SHA-1 of files, by name; a server lists all that it ever had.
    catalogue: Mapping[str, FileDigest]
    # All entries of server_config; empty if read from mirror.json.
    other: Mapping[str, Any] = field(default_factory=dict)
    # That the mirror is restricted to, in upper case; empty: all.
    instruments: frozenset[str] = frozenset()
    builds: Mapping[str, str] = field(default_factory=dict)  # build context by version of jwst
    previous_context: str = ""
    source_context: str = ""  # operational context of the source of the last sync
    # The newest operational context of any source: only a newer source shortens bad_files.
    bad_files_of: str = ""
    # The last `mirror use` named a context, not latest: syncs keep it operational.
    held_by_hand: bool = False
    # Operational context of the last CRDS Context Changed event; empty: none.
    announced_context: str = ""
    serial: int = 0  # number of the last write
    # Twice the number of prunes; odd during a prune, when no sync starts. A sync that compared its
    # files under another number fails, because a prune may have deleted some of them since.
    prunes: int = 0

    @classmethod
    def parse(cls, content: bytes, name: str) -> "MirrorConfig":
        """Parse ``server_config``, or raise `ReferenceUnavailable` if it is damaged."""
        _check_size(content, name)
        try:
            info = ast.literal_eval(content.decode())
        except Exception as exc:  # MemoryError and RecursionError, too, mean that it is damaged
            raise _damaged(name, exc) from exc
        return cls.from_info(info, name)

    @classmethod
    def from_info(cls, info: Any, name: str) -> "MirrorConfig":
        """Convert the content of ``server_config``, a dictionary that a CRDS server also sends."""
        try:
            return cls(
                operational_context=check_context(
                    info.get("latest_context") or info["operational_context"]
                ),
                bad_files=_names(info.get("bad_files_list", ())),
                catalogue={
                    str(file): _digest(entry["size"], entry["sha1sum"])
                    for file, entry in _decode(info.get("download_metadata") or {}).items()
                },
                other={key: value for key, value in info.items() if isinstance(key, str)},
            )
        except Exception as exc:  # a damaged entry can raise anything
            raise _damaged(name, exc) from exc

    @classmethod
    def parse_state(cls, content: bytes, name: str) -> "MirrorConfig":
        """Parse ``mirror.json``, or raise `ReferenceUnavailable` if it is damaged."""
        _check_size(content, name)
        try:
            state = json.loads(content)

            def context(key: str) -> str:
                return check_context(state[key]) if state.get(key, "") != "" else ""

            return cls(
                operational_context=check_context(state["operational_context"]),
                bad_files=_names(state["bad_files"]),
                catalogue={
                    str(file): _digest(*digest) for file, digest in state["catalogue"].items()
                },
                # Another release may not have written the fields from here on.
                instruments=frozenset(map(check_instrument, state.get("instruments", ()))),
                builds={str(k): check_context(v) for k, v in state.get("builds", {}).items()},
                held_by_hand=_typed(state.get("held_by_hand", False), bool),
                serial=_typed(state.get("serial", 0), int),
                prunes=_typed(state.get("prunes", 0), int),
                previous_context=context("previous_context"),
                source_context=context("source_context"),
                bad_files_of=context("bad_files_of"),
                announced_context=context("announced_context"),
            )
        except Exception as exc:  # a damaged entry can raise anything
            raise _damaged(name, exc) from exc

    def to_state(self) -> bytes:
        """Return the content of ``mirror.json``: all fields but `other`, as JSON."""
        state = asdict(replace(self, other={}, catalogue={}))
        del state["other"]
        state["bad_files"], state["instruments"] = sorted(self.bad_files), sorted(self.instruments)
        state["catalogue"] = {
            name: (digest.size, digest.sha1) for name, digest in sorted(self.catalogue.items())
        }
        return json.dumps(state, indent=1).encode()

    def to_config(self) -> bytes:
        """Return the content of ``server_config``, a Python literal, for this configuration."""
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
        # Files of equal content have equal ETags; the serial number makes each write different.
        return pprint.pformat(info | {"mirror_serial": self.serial}).encode()


def _check_size(content: bytes, name: str) -> None:
    if len(content) > LARGEST_CONFIG:
        raise ReferenceUnavailable(
            f"{name}: has {len(content):,} bytes, expected at most {LARGEST_CONFIG:,}; in S3, "
            "restore an earlier version of the object"
        )


def _decode(encoded: Any) -> Any:
    """Decode what `crds_encode` of `crds` encoded, or return any other value unchanged."""
    if not isinstance(encoded, dict) or "crds_payload" not in encoded:
        return encoded
    decompressor = zlib.decompressobj(wbits=31)  # gzip
    payload = base64.b64decode(encoded["crds_payload"].encode("ascii"))
    content = decompressor.decompress(payload, LARGEST_CONFIG)
    if not decompressor.eof:
        raise ValueError(
            f"download_metadata is incomplete, or larger than {LARGEST_CONFIG:,} bytes"
        )
    return json.loads(content)


def _names(names: Any) -> frozenset[str]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError("bad_files(_list) holds other values, expected a list of file names")
    return frozenset(names)


def _digest(size: Any, sha1: Any) -> FileDigest:
    if not isinstance(sha1, str) or not _SHA1.fullmatch(sha1) or not 0 <= int(size) < 1 << 40:
        raise ValueError(f"found {size!s:.40} and {sha1!s:.60}, expected a size and a SHA-1")
    return FileDigest(int(size), sha1)


def _typed(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"found {str(value)[:100]!r}, expected a value of type {kind.__name__}")
    return value


def _damaged(name: str, exc: Exception) -> ReferenceUnavailable:
    return ReferenceUnavailable(
        f"{name}: damaged ({str(exc)[:200] or type(exc).__name__}), expected the configuration of "
        "a CRDS mirror; in S3, restore an earlier version of the object"
    )
