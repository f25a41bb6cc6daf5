"""Comparison of the flags of two masks within the pixels that an exposure read out."""

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
from core.flags import PIXEL_FLAGS, flagged_pixels, planes_sha256
from core.product import NO_MASK
from core.readout import cut
from handler.crds.masks import MaskCache
from handler.crds.mirror import MirrorConfig
from handler.crds.parameters import FITS_KEYWORDS
from handler.s3.objects import ObjectStore


@dataclass(frozen=True)
class ChosenMask:
    """The mask that a context selects or that built a product; or why none is selected."""

    name: str = ""  # file name, N/A, or S3 URI that a request named; empty with a problem
    sha1: str = ""  # empty for N/A, and with a problem
    problem: str = ""  # the reason; empty if a mask or N/A was selected


@dataclass(frozen=True)
class Readout:
    """The values that decide which pixels an exposure read out."""

    keywords: tuple[tuple[str, Any], ...]  # FITS keywords of subarray, stripes and axes
    kind: str
    # Of SCI; 1 for groups, and for integrations except of superstripes.
    shape: tuple[int, int, int, int]

    @classmethod
    def of(cls, parameters: Mapping[str, Any], kind: str, shape: tuple[int, ...]) -> "Readout":
        """Return the readout of a product, given the values in its catalogue row."""
        keywords = tuple(
            (keyword, parameters[name])
            for name, keyword in FITS_KEYWORDS.items()
            if keyword.startswith(("SUB", "MSTR_", "SSTR_", "FASTAXIS", "SLOWAXIS"))
            and parameters.get(name) is not None
        )
        integrations, _, ny, nx = shape
        return cls(keywords, kind, (integrations if kind == Kind.SUPERSTRIPE else 1, 1, ny, nx))

    def exposure(self) -> Exposure:
        """Return an exposure of this readout, without pixels."""
        keywords = dict(self.keywords)
        hdu = Hdu(fits.Header(keywords), 0, 0, 0)
        stripes = keywords.get("SSTR_NST") or 0
        return Exposure("exposure", (hdu,), Kind(self.kind), self.shape, stripes)

    @property
    def window(self) -> str:
        """Columns, rows and corner (1-based) as text, such as ``64 x 64 at 101,201``."""
        keywords = dict(self.keywords)
        corner = f"{keywords.get('SUBSTRT1', '?')},{keywords.get('SUBSTRT2', '?')}"
        striped = " in stripes" if "MSTR_RD1" in keywords else ""
        return f"{self.shape[3]} x {self.shape[2]} at {corner}{striped}"


@dataclass(frozen=True)
class Difference:
    """The flags in a readout that a new mask adds to, and removes from, an earlier one."""

    changed: bool = True  # False only if the masks were compared and are equal within the readout
    # Number of pixels by mnemonic; empty if the masks were not compared.
    gained: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    # Digest of the new planes, as in the ledger; empty if they were not computed.
    planes_sha256: str = ""
    problem: str = ""  # the reason why the effect cannot be decided; else empty


@dataclass
class MaskComparison:
    """The masks of a mirror, and the differences that were computed."""

    masks: MaskCache
    config: MirrorConfig
    store: ObjectStore
    _known: dict[tuple[str, str, Readout], Difference] = field(default_factory=dict, repr=False)

    def compare(
        self, before: ChosenMask, after: ChosenMask, instrument: str, readout: Readout
    ) -> Difference:
        """Return the flags that `after` adds to, and removes from, `before` within a readout."""
        key = (before.sha1, after.sha1, readout)
        if key not in self._known:
            try:
                self._known[key] = self._compare(before, after, instrument, readout.exposure())
            except (ValueError, TypeError, OverflowError, KeyError) as exc:  # of odd ledger values
                problem = f"{instrument} {readout.kind}, {readout.window}: {exc}"
                self._known[key] = Difference(problem=problem)
        return self._known[key]

    def _compare(
        self, before: ChosenMask, after: ChosenMask, instrument: str, exposure: Exposure
    ) -> Difference:
        """Cut two masks to the readout of an exposure; return the difference of the planes."""
        try:
            new = self._planes(after, instrument, exposure)
        except (ReferenceUnavailable, InputRejected) as exc:
            return Difference(problem=str(exc))
        digest = planes_sha256(new.shape, *flagged_pixels(new))
        try:
            old = self._planes(before, instrument, exposure)
        except (ReferenceUnavailable, InputRejected):
            return Difference(planes_sha256=digest)
        changed = not np.array_equal(old, new)
        return Difference(changed, _counts(new & ~old), _counts(old & ~new), digest)

    def _planes(self, mask: ChosenMask, instrument: str, exposure: Exposure) -> NDArray[np.uint32]:
        """Return a mask's flags of the pixels that an exposure read out; zeros for N/A."""
        if mask.name == NO_MASK:
            return np.zeros(exposure.plane_shape, np.uint32)
        digest = self.config.catalogue.get(mask.name)
        if digest is None or digest.sha1 != mask.sha1:
            raise ReferenceUnavailable(
                f"{mask.name}: not in {self.masks.mirror}, expected a mask with SHA-1 {mask.sha1}; "
                "run dq-init mirror sync"
            )
        return cut(self.masks.load(mask.name, digest, instrument, self.store), exposure)


def _counts(flags: NDArray[np.uint32]) -> dict[str, int]:
    """Return the number of pixels by mnemonic, of mnemonics that occur."""
    flagged = flags[flags != 0]
    counts = {name: int(np.count_nonzero(flagged & bit)) for name, bit in PIXEL_FLAGS.items()}
    return {name: count for name, count in counts.items() if count}
