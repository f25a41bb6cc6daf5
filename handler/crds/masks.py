"""The mask of an exposure: chosen by the rules or named by the request, read through caches."""

import logging
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ReferenceUnavailable
from core.exposure import Exposure
from core.mask import Mask
from core.product import NO_MASK
from core.readout import detector_mismatch
from handler.crds.mirror import FileDigest, read_copy, reference_keys, write_copy
from handler.crds.rules import MaskChoice, Rules
from handler.s3.objects import ObjectStore, S3Location

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["MaskCache", "MaskChoice", "References"]

log = logging.getLogger(__name__)

_LARGEST_FILE = 128 * 1024 * 1024
_IN_MEMORY = 2
_ON_DISK = 12  # of 17 MB each, within the 512 MB of /tmp that a function has


@dataclass
class MaskCache:
    """Masks, cached: parsed ones in memory, files of the mirror in the directory `cache`."""

    mirror: S3Location
    cache: Path
    _in_memory: OrderedDict[str, Mask] = field(default_factory=OrderedDict, repr=False)

    def load(self, name: str, digest: FileDigest, instrument: str, store: ObjectStore) -> Mask:
        """Return the mask in the mirror's file `name`, or raise `ReferenceUnavailable`."""
        if digest.sha1 not in self._in_memory:
            path = self.cache / f"{digest.sha1}.fits"
            content = read_copy(path, digest)
            if content is None:
                content = self._fetch(name, digest, instrument, store)
                self._keep_on_disk(content, path)
            self._remember(digest.sha1, Mask.from_bytes(content, name))
        self._in_memory.move_to_end(digest.sha1)
        return self._in_memory[digest.sha1]

    def load_object(self, location: S3Location, store: ObjectStore) -> tuple[Mask, str]:
        """Return the mask in an S3 object, and its SHA-1, or raise `ReferenceUnavailable`."""
        found = store.get(location, _LARGEST_FILE, ReferenceUnavailable)
        if found is None:
            raise ReferenceUnavailable(
                f"{location}: no such object, expected the mask that the request names; upload it"
            )
        sha1 = FileDigest.of(found[0]).sha1
        if sha1 not in self._in_memory:
            self._remember(sha1, Mask.from_bytes(found[0], str(location)))
        return self._in_memory[sha1], sha1

    def _remember(self, sha1: str, mask: Mask) -> None:
        self._in_memory[sha1] = mask
        while len(self._in_memory) > _IN_MEMORY:
            self._in_memory.popitem(last=False)

    def _fetch(self, name: str, digest: FileDigest, instrument: str, store: ObjectStore) -> bytes:
        nested, flat = (self.mirror.below(key) for key in reference_keys(name, instrument))
        for location in (nested, flat):
            found = store.get(location, min(digest.size, _LARGEST_FILE), ReferenceUnavailable)
            if found is None:
                continue
            actual = FileDigest.of(found[0])
            if actual != digest:
                raise ReferenceUnavailable(
                    f"{location}: has {actual}, expected {digest}; run dq-init mirror sync "
                    f"{self.mirror}"
                )
            return found[0]
        raise ReferenceUnavailable(
            f"{nested}: no such object, expected the mask of the rules; run dq-init mirror sync "
            f"{self.mirror}"
        )

    def _keep_on_disk(self, content: bytes, path: Path) -> None:
        with suppress(OSError):  # a full disk only costs another fetch
            files = sorted(self.cache.glob("*.fits"), key=lambda file: file.stat().st_mtime)
            for old in files[: max(0, len(files) - _ON_DISK + 1)]:
                old.unlink(missing_ok=True)
        write_copy(path, content)


@dataclass(frozen=True)
class References:
    """The rules and masks of a CRDS mirror."""

    rules: Rules
    masks: MaskCache

    @classmethod
    def of(cls, mirror: S3Location, cache: Path, client: "S3Client") -> "References":
        """Create the `References` of a mirror; nothing is read yet."""
        rules = Rules(mirror, cache / "mappings", client)
        return cls(rules, MaskCache(mirror, cache / "references"))

    def resolve(
        self, exposure: Exposure, context: str, mask: S3Location | str | None, store: ObjectStore
    ) -> MaskChoice:
        """Choose an exposure's mask: the requested `mask` or, if None, that of the rules."""
        if isinstance(mask, S3Location):
            requested, sha1 = self.masks.load_object(mask, store)
            choice = MaskChoice(
                self.rules.prepare(context),
                warning=detector_mismatch(requested, exposure),
                label=str(mask),
                sha1=sha1,
                requested=requested,
            )
        elif mask == NO_MASK:
            choice = MaskChoice(self.rules.prepare(context))
        else:
            choice = self.rules.best_reference(exposure.keywords, context)
        if choice.warning:
            log.warning("%s", choice.warning)
        return choice

    def load(self, choice: MaskChoice, exposure: Exposure, store: ObjectStore) -> Mask | None:
        """Return the mask of a choice; None if no mask applies."""
        if choice.mask is None or choice.digest is None:
            return choice.requested
        instrument = exposure.keywords.text("INSTRUME") or ""
        return self.masks.load(choice.mask, choice.digest, instrument, store)
