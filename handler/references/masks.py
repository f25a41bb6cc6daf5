"""Mask files: fetched from the mirror once, verified, and kept in memory and in /tmp."""

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from astropy.io import fits

from core.errors import ReferenceUnavailable
from core.mask import Mask
from handler.references.rules import Choice
from handler.s3.locations import S3Location
from handler.s3.objects import Arriving, ObjectStore

__all__ = ["Masks"]

_LARGEST_FILE = 256 * 1024 * 1024
_KEPT_IN_MEMORY = 2
_KEPT_ON_DISK = 12  # of 17 MB each, within the 512 MB of /tmp that a function has


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

    def load(self, choice: Choice, instrument: str, store: ObjectStore) -> Mask:
        """Return the mask that the rules chose.

        Parameters
        ----------
        choice : `~handler.references.rules.Choice`
            The rules' choice, a mask.
        instrument : str
            INSTRUME of the exposure, for the mirror's sub-folder.
        store : `~handler.s3.objects.ObjectStore`
            How to reach S3.

        Raises
        ------
        ReferenceUnavailable
            If the mirror has no such file, its size or SHA-1 is wrong, or it is no mask.
        """
        name = choice.mask or ""
        if choice.sha1 not in self._in_memory:
            path = self._on_disk(choice) or self._fetch(name, instrument, choice, store)
            self._keep(choice.sha1, _read_mask(path, name))
        self._in_memory.move_to_end(choice.sha1)
        return self._in_memory[choice.sha1]

    def load_object(self, location: S3Location, store: ObjectStore) -> tuple[Mask, str]:
        """Return the mask that a request names, and its SHA-1.

        Raises
        ------
        ReferenceUnavailable
            If there is no such object, or it is no mask.
        """
        with store.open(location, ReferenceUnavailable) as arriving:
            path, sha1 = _download(arriving, self.cache)
        try:
            if sha1 not in self._in_memory:
                self._keep(sha1, _read_mask(path, str(location)))
        finally:
            path.unlink()
        return self._in_memory[sha1], sha1

    def _keep(self, sha1: str, mask: Mask) -> None:
        self._in_memory[sha1] = mask
        while len(self._in_memory) > _KEPT_IN_MEMORY:
            self._in_memory.popitem(last=False)

    def _on_disk(self, choice: Choice) -> Path | None:
        """The file as this container fetched it before; checked again, for /tmp is writable."""
        path = self._path(choice)
        if not path.exists():
            return None
        with path.open("rb") as file:
            sha1 = hashlib.file_digest(file, _sha1).hexdigest()
        if path.stat().st_size == choice.size and sha1 == choice.sha1:
            return path
        path.unlink()
        return None

    def _fetch(self, name: str, instrument: str, choice: Choice, store: ObjectStore) -> Path:
        """Fetch the file from the mirror, verify it, and keep it on disk."""
        with self._open(name, instrument, store) as arriving:
            place, size = arriving.stored.location, arriving.stored.size
            if size != choice.size:
                raise ReferenceUnavailable(f"{place}: has {size} bytes, expected {choice.size}")
            self._make_room()
            temporary, sha1 = _download(arriving, self.cache)
        if sha1 != choice.sha1:
            temporary.unlink()
            raise ReferenceUnavailable(f"{place}: SHA-1 is {sha1}, expected {choice.sha1}")
        return temporary.replace(self._path(choice))

    @contextmanager
    def _open(self, name: str, instrument: str, store: ObjectStore) -> Iterator[Arriving]:
        """Find the file in the instrument's sub-folder or, in a flat mirror, beside the others."""
        folder = self.mirror.below("references", "jwst")
        with ExitStack() as stack:
            try:
                place = folder.below(instrument.lower(), name)
                arriving = stack.enter_context(store.open(place, FileNotFoundError))
            except FileNotFoundError:
                place = folder.below(name)
                arriving = stack.enter_context(store.open(place, ReferenceUnavailable))
            yield arriving

    def _path(self, choice: Choice) -> Path:
        return self.cache / f"{choice.sha1}.fits"

    def _make_room(self) -> None:
        """Drop the files that were fetched first."""
        files = sorted(self.cache.glob("*.fits"), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - _KEPT_ON_DISK + 1)]:
            path.unlink(missing_ok=True)


def _download(arriving: Arriving, folder: Path) -> tuple[Path, str]:
    """Write an object to a file of its own, a piece at a time; return its place and SHA-1."""
    found = arriving.stored
    if found.size > _LARGEST_FILE:
        raise ReferenceUnavailable(
            f"{found.location}: has {found.size} bytes, expected a mask of at most {_LARGEST_FILE}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path, digest = folder / f"{uuid.uuid4().hex}.download", _sha1()
    try:
        with path.open("wb") as file:
            for content in arriving.pieces:
                digest.update(content)
                file.write(content)
    except BaseException:
        path.unlink()
        raise
    return path, digest.hexdigest()


def _read_mask(path: Path, name: str) -> Mask:
    try:
        with fits.open(path, memmap=False) as hdus:
            return Mask.from_hdus(hdus, name)
    except OSError as exc:
        raise ReferenceUnavailable(f"{name}: is no FITS file: {exc}") from exc


def _sha1() -> "hashlib._Hash":
    """CRDS identifies files by SHA-1."""
    return hashlib.sha1(usedforsecurity=False)
