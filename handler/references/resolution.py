"""Which mask applies to an exposure: the rules' choice, or what the request names."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.exposure import Exposure
from core.mask import Mask
from core.product import NO_MASK
from core.readout import detector_mismatch
from handler.references.lean_crds import CRDS_VERSION
from handler.references.masks import Masks
from handler.references.rules import Rules
from handler.references.server import FileDigest
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["Reference", "References"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
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
    digest : `~handler.references.server.FileDigest` or None
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
    rules : `~handler.references.rules.Rules`
        The mirror's rules.
    masks : `~handler.references.masks.Masks`
        The mirror's mask files.
    """

    rules: Rules
    masks: Masks

    @classmethod
    def of(cls, mirror: S3Location, cache: Path, client: "S3Client") -> "References":
        """Return what a mirror holds; what is read of it is kept in a directory."""
        rules = Rules.of(mirror, cache / "mappings", client)
        return cls(rules, Masks(mirror, cache / "references"))

    def resolve(
        self, exposure: Exposure, context: str, mask: S3Location | str | None, store: ObjectStore
    ) -> Reference:
        """Find out which mask applies to an exposure, without reading it from the mirror.

        Parameters
        ----------
        exposure : `~core.exposure.Exposure`
            The exposure.
        context : str
            The context to use.
        mask : `~handler.s3.locations.S3Location`, ``"N/A"`` or None
            What the request names instead of the rules' choice.
        store : `~handler.s3.objects.ObjectStore`
            How to reach S3.

        Raises
        ------
        InputRejected, ReferenceUnavailable, TransientFailure
            As `handler.references.rules.Rules.best_reference` does.
        """
        if isinstance(mask, S3Location):
            requested, sha1 = self.masks.load_object(mask, store)
            name = self._context(context)
            warning = detector_mismatch(requested, exposure)
            if warning:
                log.warning("%s", warning)
            return Reference(name, str(mask), sha1, requested=requested, warning=warning)
        if mask == NO_MASK:
            return Reference(self._context(context))
        best = self.rules.best_reference(exposure.keywords, context)
        if best.warning:
            log.warning("%s", best.warning)
        if best.mask is None or best.digest is None:
            return Reference(best.context, warning=best.warning)
        label, sha1 = f"crds://{best.mask}", best.digest.sha1
        return Reference(best.context, label, sha1, best.mask, best.digest, warning=best.warning)

    def _context(self, context: str) -> str:
        """Return the name of a context that the mirror holds: CRDS_CTX names it."""
        self.rules.prepare(context)
        return self.rules.context_name(context)

    def load(self, reference: Reference, exposure: Exposure, store: ObjectStore) -> Mask | None:
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
