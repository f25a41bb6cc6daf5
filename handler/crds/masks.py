"""Which mask applies to an exposure: the rules' choice, or what the request names."""

import logging
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ReferenceUnavailable
from core.exposure import Exposure
from core.mask import Mask
from core.product import NO_MASK
from core.readout import detector_mismatch
from handler.crds.lean_import import CRDS_VERSION
from handler.crds.mirror import FileDigest, reference_keys
from handler.crds.rules import Rules
from handler.s3.objects import ObjectBody, ObjectStore, S3Location

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = [
    "MaskCache",
    "MaskChoice",
    "References",
]

log = logging.getLogger(__name__)

_LARGEST_FILE = 128 * 1024 * 1024
_IN_MEMORY = 2
_ON_DISK = 12  # of 17 MB each, within the 512 MB of /tmp that a function has


@dataclass
class MaskCache:
    """The mask files of a mirror, as far as this container has needed them.

    Attributes
    ----------
    mirror : `~handler.s3.objects.S3Location`
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
        digest : `~handler.crds.mirror.FileDigest`
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


@dataclass(frozen=True)
class MaskChoice:
    """The mask that applies to an exposure, not yet read.

    Attributes
    ----------
    context : str
        The CRDS context in force.
    label : str or None
        What R_MASK says: ``crds://name`` or ``s3://bucket/key``; None where no mask applies.
    sha1 : str
        Of the mask file; empty where no mask applies.
    name : str or None
        File name in the mirror, where the rules chose the mask.
    digest : `~handler.crds.mirror.FileDigest` or None
        What the mirror's catalogue says of that file.
    crds_version : str
        Of the package that evaluates the rules.
    requested : `~core.mask.Mask` or None
        The mask that the request names, where it names one.
    warning : str or None
        What speaks against the mask: it is of another detector, or jwst would choose another.
    """

    context: str
    label: str | None = None
    sha1: str = ""
    name: str | None = None
    digest: FileDigest | None = None
    crds_version: str = CRDS_VERSION
    requested: Mask | None = None
    warning: str | None = None


@dataclass(frozen=True)
class References:
    """The CRDS mirror: rules and masks.

    Attributes
    ----------
    rules : `~handler.crds.rules.Rules`
        The mirror's rules.
    masks : `~handler.crds.masks.MaskCache`
        The mirror's mask files.
    """

    rules: Rules
    masks: MaskCache

    @classmethod
    def of(cls, mirror: S3Location, cache: Path, client: "S3Client") -> "References":
        """Return what a mirror holds; what is read of it is kept in a directory."""
        rules = Rules.of(mirror, cache / "mappings", client)
        return cls(rules, MaskCache(mirror, cache / "references"))

    def resolve(
        self, exposure: Exposure, context: str, mask: S3Location | str | None, store: ObjectStore
    ) -> MaskChoice:
        """Find out which mask applies to an exposure, without reading it from the mirror.

        Parameters
        ----------
        exposure : `~core.exposure.Exposure`
            The exposure.
        context : str
            The context to use.
        mask : `~handler.s3.objects.S3Location`, ``"N/A"`` or None
            What the request names instead of the rules' choice.
        store : `~handler.s3.objects.ObjectStore`
            How to reach S3.

        Raises
        ------
        InputRejected, ReferenceUnavailable, TransientFailure
            As `handler.crds.rules.Rules.best_reference` does.
        """
        if isinstance(mask, S3Location):
            requested, sha1 = self.masks.load_object(mask, store)
            name = self._context(context)
            warning = detector_mismatch(requested, exposure)
            if warning:
                log.warning("%s", warning)
            return MaskChoice(name, str(mask), sha1, requested=requested, warning=warning)
        if mask == NO_MASK:
            return MaskChoice(self._context(context))
        best = self.rules.best_reference(exposure.keywords, context)
        if best.warning:
            log.warning("%s", best.warning)
        if best.mask is None or best.digest is None:
            return MaskChoice(best.context, warning=best.warning)
        label, sha1 = f"crds://{best.mask}", best.digest.sha1
        return MaskChoice(best.context, label, sha1, best.mask, best.digest, warning=best.warning)

    def _context(self, context: str) -> str:
        """Return the name of a context that the mirror holds: CRDS_CTX names it."""
        self.rules.prepare(context)
        return self.rules.context_name(context)

    def load(self, reference: MaskChoice, exposure: Exposure, store: ObjectStore) -> Mask | None:
        """Return the mask itself; None where none applies.

        Raises
        ------
        ReferenceUnavailable
            If the mirror has no such file, its size or SHA-1 is wrong, or it is no mask.
        """
        if reference.name is None or reference.digest is None:
            return reference.requested
        instrument = exposure.keywords.text("INSTRUME") or ""
        return self.masks.load(reference.name, reference.digest, instrument, store)
