"""What the headers of a raw exposure say: its kind, its shape, and how it was read out."""

from dataclasses import dataclass
from enum import StrEnum

from astropy.io import fits

from core import keywords
from core.errors import InputRejected
from core.hdus import Hdu, find
from core.pixels import FLOAT32, PixelFormat, format_of
from core.stripes import StripeReadout
from core.subarray import Subarray

__all__ = ["Exposure", "Kind"]

_GUIDER_TYPES = frozenset(
    {"FGS_ID-IMAGE", "FGS_ID-STACK", "FGS_ACQ1", "FGS_ACQ2", "FGS_TRACK", "FGS_FINEGUIDE"}
)
_SCI_FORMATS = (PixelFormat(16, unsigned=True), FLOAT32)


class Kind(StrEnum):
    """Which arrays the step makes, and which `jwst` data model the product is."""

    RAMP = "ramp"
    SUPERSTRIPE = "superstripe"
    GUIDER = "guider"


@dataclass(frozen=True)
class Exposure:
    """A raw exposure, known by its headers alone.

    Attributes
    ----------
    name : str
        Where it lies; used in messages.
    hdus : tuple of `~core.hdus.Hdu`
        Every HDU of the file and its place in it.
    kind : `Kind`
        Ramp, superstripe or guider.
    shape : tuple of int
        Of SCI: (nints, ngroups, ny, nx).
    subarray : `~core.subarray.Subarray` or None
        The rectangle read out, in the science frame; None where keywords are missing.
    stripes : `~core.stripes.StripeReadout` or None
        The stripe keywords; None where MSTR_RD1 is absent.
    superstripes : int
        SSTR_NST; 0 where it is absent.
    """

    name: str
    hdus: tuple[Hdu, ...]
    kind: Kind
    shape: tuple[int, int, int, int]
    subarray: Subarray | None
    stripes: StripeReadout | None
    superstripes: int

    @classmethod
    def from_hdus(cls, hdus: tuple[Hdu, ...], name: str) -> "Exposure":
        """Read the headers of an exposure.

        Parameters
        ----------
        hdus : tuple of `~core.hdus.Hdu`
            As `core.hdus.locate` returns them.
        name : str
            Where the exposure lies, for messages.

        Raises
        ------
        InputRejected
            If SCI is missing, is not a 4-D image of uint16 or float32 pixels, a keyword holds a
            value of the wrong type, or the integrations are no multiple of SSTR_NST.
        """
        primary = hdus[0].header
        superstripes = keywords.integer(primary, "SSTR_NST", name) or 0
        exposure = cls(
            name=name,
            hdus=hdus,
            kind=_kind(primary, superstripes, name),
            shape=_science_shape(hdus, name),
            subarray=Subarray.from_header(primary, name),
            stripes=StripeReadout.from_header(primary, name),
            superstripes=superstripes,
        )
        exposure._check_integrations()
        return exposure

    @property
    def header(self) -> fits.Header:
        """The primary header."""
        return self.hdus[0].header

    @property
    def image_shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.shape[2:]

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Shape of the data-quality plane: (ny, nx), or (SSTR_NST, ny, nx) for superstripes."""
        if self.kind is Kind.SUPERSTRIPE:
            return (self.superstripes, *self.image_shape)
        return self.image_shape

    def keyword(self, keyword: str) -> str | None:
        """The string that a keyword of the primary header holds."""
        return keywords.text(self.header, keyword, self.name)

    def _check_integrations(self) -> None:
        if self.kind is Kind.SUPERSTRIPE and self.shape[0] % self.superstripes:
            raise InputRejected(
                f"{self.name}: {self.shape[0]} integrations are no multiple of "
                f"SSTR_NST={self.superstripes}"
            )


def _kind(primary: fits.Header, superstripes: int, name: str) -> Kind:
    exposure_type = keywords.text(primary, "EXP_TYPE", name) or ""
    if exposure_type.upper() in _GUIDER_TYPES:
        return Kind.GUIDER
    return Kind.SUPERSTRIPE if superstripes > 0 else Kind.RAMP


def _science_shape(hdus: tuple[Hdu, ...], name: str) -> tuple[int, int, int, int]:
    """Check that SCI is what a raw exposure has, and return its shape."""
    sci = find(hdus, "SCI")
    if sci is None or not sci.is_image:
        names = ", ".join(hdu.name or "unnamed" for hdu in hdus)
        raise InputRejected(f"{name}: no SCI image among its HDUs ({names})")
    shape = sci.shape
    if len(shape) != 4 or 0 in shape:
        raise InputRejected(f"{name}: SCI has shape {shape}, expected (nints, ngroups, ny, nx)")
    pixel_format = format_of(sci.header, f"{name}, SCI")
    if pixel_format not in _SCI_FORMATS:
        raise InputRejected(f"{name}: SCI holds {pixel_format}, expected uint16 or float32")
    return shape[0], shape[1], shape[2], shape[3]
