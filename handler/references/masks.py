"""Mask files: fetched from the mirror once, verified, and kept in memory and in a directory."""

import logging
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import ReferenceUnavailable
from core.mask import Mask
from handler.references.keys import reference_keys
from handler.references.server import FileDigest
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectBody, ObjectStore

__all__ = ["Masks"]

log = logging.getLogger(__name__)

_LARGEST_FILE = 128 * 1024 * 1024
_IN_MEMORY = 2
_ON_DISK = 12  # of 17 MB each, within the 512 MB of /tmp that a function has


@dataclass
class Masks:
    """The mask files of a mirror, as far as this container has needed them.

    Attributes
    ----------
    mirror : `~handler.s3.locations.S3Location`
        Bucket and prefix of the mirror.
    cache : `pathlib.Path`
        Directory that the files are kept in.
    """

    mirror: S3Location
    cache: Path
    _in_memory: OrderedDict[str, Mask] = field(default_factory=OrderedDict, repr=False)

    def load(self, name: str, digest: FileDigest, instrument: str, store: ObjectStore) -> Mask:
        """Return the mask that the rules chose.

        Parameters
        ----------
        name : str
            Its file name.
        digest : `~handler.references.server.FileDigest`
            What the mirror's catalogue says of it.
        instrument : str
            INSTRUME of the exposure, for the mirror's sub-folder.
        store : `~handler.s3.objects.ObjectStore`
            How to reach S3.

        Raises
        ------
        ReferenceUnavailable
            If the mirror has no such file, its size or SHA-1 is wrong, or it is no mask.
        """
        sha1 = digest.sha1
        if sha1 not in self._in_memory:
            content = self._on_disk(digest) or self._fetch(name, digest, instrument, store)
            self._remember(sha1, Mask.from_bytes(content, name))
        self._in_memory.move_to_end(sha1)
        return self._in_memory[sha1]

    def load_object(self, location: S3Location, store: ObjectStore) -> tuple[Mask, str]:
        """Return the mask that a request names, and its SHA-1.

        Raises
        ------
        ReferenceUnavailable
            If there is no such object, it may not be read, or it is no mask.
        """
        with store.open(location, ReferenceUnavailable) as body:
            content = _whole(body)
        sha1 = FileDigest.of(content).sha1
        if sha1 not in self._in_memory:
            self._remember(sha1, Mask.from_bytes(content, str(location)))
        return self._in_memory[sha1], sha1

    def _remember(self, sha1: str, mask: Mask) -> None:
        self._in_memory[sha1] = mask
        while len(self._in_memory) > _IN_MEMORY:
            self._in_memory.popitem(last=False)

    def _on_disk(self, digest: FileDigest) -> bytes | None:
        """The file as this container fetched it before; checked again, for /tmp is writable."""
        path = self._path(digest)
        if not path.exists():
            return None
        content = path.read_bytes()
        if FileDigest.of(content) == digest:
            return content
        path.unlink()
        return None

    def _fetch(self, name: str, digest: FileDigest, instrument: str, store: ObjectStore) -> bytes:
        """Fetch the file from the mirror, verify it, and keep it on disk."""
        with self._open(name, instrument, store) as body:
            location, size = body.described.location, body.described.size
            if size != digest.size:
                raise ReferenceUnavailable(f"{location}: has {size} bytes, expected {digest.size}")
            content = _whole(body)
        sha1 = FileDigest.of(content).sha1
        if sha1 != digest.sha1:
            raise ReferenceUnavailable(f"{location}: SHA-1 is {sha1}, expected {digest.sha1}")
        self._keep_on_disk(content, self._path(digest))
        return content

    @contextmanager
    def _open(self, name: str, instrument: str, store: ObjectStore) -> Iterator[ObjectBody]:
        """Find the file in the instrument's sub-folder or, in a flat mirror, beside the others."""
        nested, flat = (self.mirror.below(key) for key in reference_keys(name, instrument))
        with ExitStack() as stack:
            try:
                body = stack.enter_context(store.open(nested, FileNotFoundError))
            except FileNotFoundError as exc:
                try:
                    body = stack.enter_context(store.open(flat, FileNotFoundError))
                except FileNotFoundError:
                    raise ReferenceUnavailable(str(exc)) from exc
            yield body

    def _path(self, digest: FileDigest) -> Path:
        return self.cache / f"{digest.sha1}.fits"

    def _keep_on_disk(self, content: bytes, path: Path) -> None:
        """Write the file to a temporary name and rename it; a full disk costs another fetch."""
        temporary = path.with_name(f"{uuid.uuid4().hex}.download")
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            self._make_room()
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError:
            log.warning("%s: a mask cannot be kept", path, exc_info=True)
            with suppress(OSError):
                temporary.unlink()

    def _make_room(self) -> None:
        """Drop the files that were fetched first."""
        files = sorted(self.cache.glob("*.fits"), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - _ON_DISK + 1)]:
            path.unlink(missing_ok=True)


def _whole(body: ObjectBody) -> bytes:
    """The content of an object that is not too large for a mask."""
    described = body.described
    if described.size > _LARGEST_FILE:
        raise ReferenceUnavailable(
            f"{described.location}: has {described.size} bytes, expected a mask of at most "
            f"{_LARGEST_FILE}"
        )
    return b"".join(body.pieces)
