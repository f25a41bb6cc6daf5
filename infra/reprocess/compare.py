"""What one mask in place of another changes, within the pixels that an exposure read out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.compat import Kind
from core.errors import InputRejected, ReferenceUnavailable
from core.exposure import Exposure
from core.fits.hdus import Hdu
from core.flags import PIXEL_FLAGS
from core.mask import Mask
from core.readout import cut
from handler.crds.masks import MaskCache
from handler.crds.mirror import MirrorConfig
from handler.crds.parameters import FITS_KEYWORDS
from handler.s3.objects import ObjectStore
from handler.summaries import planes_sha256

__all__ = ["Difference", "Differences", "Readout"]

_NO_MASK = "N/A"
_OF_READOUT = tuple(
    keyword
    for keyword in FITS_KEYWORDS.values()
    if keyword.startswith(("SUB", "MSTR_", "SSTR_")) or keyword in {"FASTAXIS", "SLOWAXIS"}
)
"""Keywords that say which pixels were read out."""


@dataclass(frozen=True)
class Readout:
    """Which pixels an exposure read out; equal for all that read out the same.

    Attributes
    ----------
    keywords : tuple of (str, value)
        What its header says of it.
    kind : str
        Ramp, superstripe or guider.
    shape : tuple of int
        Of SCI; integrations only as far as they matter to superstripes.
    """

    keywords: tuple[tuple[str, Any], ...]
    kind: str
    shape: tuple[int, int, int, int]

    @classmethod
    def of(cls, parameters: Mapping[str, Any], kind: str, shape: tuple[int, ...]) -> "Readout":
        """Read the parameters of a row."""
        header = {keyword: parameters.get(name) for name, keyword in FITS_KEYWORDS.items()}
        keywords = tuple((k, header[k]) for k in _OF_READOUT if header[k] is not None)
        integrations = shape[0] if kind == Kind.SUPERSTRIPE else 1
        _, _, ny, nx = shape
        return cls(keywords, kind, (integrations, 1, ny, nx))

    def exposure(self) -> Exposure:
        """Return an exposure that reads out the same."""
        header = fits.Header(dict(self.keywords))
        stripes = dict(self.keywords).get("SSTR_NST") or 0
        hdu = Hdu(header, 0, 0, 0)
        return Exposure("exposure", (hdu,), Kind(self.kind), self.shape, stripes)

    @property
    def window(self) -> str:
        """What was read out, in words."""
        found = dict(self.keywords)
        corner = f"{found.get('SUBSTRT1', '?')},{found.get('SUBSTRT2', '?')}"
        striped = " in stripes" if "MSTR_RD1" in found else ""
        return f"{self.shape[3]} x {self.shape[2]} at {corner}{striped}"


@dataclass(frozen=True)
class Difference:
    """What changes.

    Attributes
    ----------
    pixels : int
        Pixels whose flags differ; -1 where the mask before cannot be read any more.
    gained, lost : mapping of str to int
        Pixels that gain or lose a flag, by mnemonic.
    planes_sha256 : str
        Of the planes that the mask after makes.
    problem : str
        Why it cannot be said.
    """

    pixels: int
    gained: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    planes_sha256: str = ""
    problem: str = ""

    def is_told_by(self, planes_sha256: str) -> bool:
        """Say whether a product of those planes would be made with other pixels."""
        return self.pixels != 0 and self.planes_sha256 != planes_sha256


@dataclass
class Differences:
    """Compares masks of a mirror; each pair in each readout once.

    Attributes
    ----------
    masks : `~handler.crds.masks.MaskCache`
        The mirror's masks.
    config : `~handler.crds.mirror.MirrorConfig`
        What the mirror says of its files.
    store : `~handler.s3.objects.ObjectStore`
        How to reach S3.
    """

    masks: MaskCache
    config: MirrorConfig
    store: ObjectStore
    _known: dict[tuple[Any, ...], Difference] = field(default_factory=dict, repr=False)

    def between(
        self, before: tuple[str, str], after: tuple[str, str], instrument: str, readout: Readout
    ) -> Difference:
        """Compare two masks, each given by name and SHA-1, within a readout.

        Parameters
        ----------
        before, after : tuple of str
            File name (or ``N/A``) and SHA-1.
        instrument : str
            INSTRUME.
        readout : `Readout`
            Which pixels count.
        """
        key = (before[1], after[1], readout)
        if key not in self._known:
            self._known[key] = self._compare(before, after, instrument, readout)
        return self._known[key]

    def _compare(
        self, before: tuple[str, str], after: tuple[str, str], instrument: str, readout: Readout
    ) -> Difference:
        exposure = readout.exposure()
        try:
            new = self._planes(after, instrument, exposure)
        except (ReferenceUnavailable, InputRejected) as exc:
            return Difference(-1, problem=str(exc))
        digest = planes_sha256(new)
        try:
            old = self._planes(before, instrument, exposure)
        except (ReferenceUnavailable, InputRejected):
            return Difference(-1, planes_sha256=digest)
        changed = np.count_nonzero(old != new)
        return Difference(int(changed), _count(new & ~old), _count(old & ~new), digest)

    def _planes(
        self, named: tuple[str, str], instrument: str, exposure: Exposure
    ) -> NDArray[np.uint32]:
        name, sha1 = named
        if name == _NO_MASK:
            return np.zeros(exposure.plane_shape, np.uint32)
        return cut(self._mask(name, sha1, instrument), exposure)

    def _mask(self, name: str, sha1: str, instrument: str) -> Mask:
        digest = self.config.catalogue.get(name)
        if digest is None or digest.sha1 != sha1:
            raise ReferenceUnavailable(f"{name} with SHA-1 {sha1}: is not in the mirror")
        return self.masks.load(name, digest, instrument, self.store)


def _count(flags: NDArray[np.uint32]) -> dict[str, int]:
    flagged = flags[flags != 0]
    counts = {name: int(np.count_nonzero(flagged & bit)) for name, bit in PIXEL_FLAGS.items()}
    return {name: count for name, count in counts.items() if count}
