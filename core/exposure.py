"""A raw exposure as its headers describe it: its kind, its shape, and its readout."""

import logging
import math
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.compat import KIND_SPECS, MODEL_EXTENSIONS, Kind, KindSpec, check_jwst_can_open, kind_of
from core.errors import InputRejected
from core.fits.hdus import Hdu, Keywords, Reader, find, find_all
from core.fits.pixels import decode, format_of
from core.stripes import StripeReadout
from core.subarray import Subarray

log = logging.getLogger(__name__)

# EXTNAMEs that the data models look up.
_EXTENSIONS = frozenset(
    {"SCI", "PIXELDQ", "GROUPDQ", "DQ", "ERR", "ASDF"}.union(*MODEL_EXTENSIONS.values())
)
# Limits checked before memory is allocated; the largest readout (NIRSpec IRS2) is 2048 x 3200.
_LONGEST_AXIS = 8192
_MOST_PIXELS = 16 * 1024 * 1024  # of a data-quality plane, all stripes together


@dataclass(frozen=True)
class Exposure:
    """A raw exposure, described by its headers.

    Attributes
    ----------
    name : str
        URI or file name, for messages.
    hdus : tuple of `~core.fits.hdus.Hdu`
        Every HDU of the file.
    kind : `~core.compat.Kind`
        Ramp, superstripe or guider.
    shape : tuple of int
        Shape of SCI: (nints, ngroups, ny, nx).
    superstripes : int
        SSTR_NST; 0 if it is missing.
    """

    name: str
    hdus: tuple[Hdu, ...]
    kind: Kind
    shape: tuple[int, int, int, int]
    superstripes: int

    @classmethod
    def from_hdus(cls, hdus: tuple[Hdu, ...], name: str) -> "Exposure":
        """Read the headers of an exposure, given its HDUs as `core.fits.hdus.locate` finds them.

        Raises
        ------
        InputRejected
            If there is not exactly one SCI, a 4-D image of a size that JWST reads out; if a
            keyword that decides the kind of the exposure is invalid; or if the `jwst` data models
            could not open the product.
        """
        keywords = Keywords(hdus[0].header, name)
        if hdus[0].name in _EXTENSIONS:  # astropy, and so jwst, would find it before the extension
            raise InputRejected(
                f"{name}: EXTNAME of the primary header is {hdus[0].name!r}, expected none"
            )
        superstripes = keywords.integer("SSTR_NST") or 0
        kind = kind_of(keywords, superstripes)
        exposure = cls(name, hdus, kind, _science_shape(hdus, name), superstripes)
        plane = exposure.plane_shape
        if max(exposure.image_shape) > _LONGEST_AXIS or math.prod(plane) > _MOST_PIXELS:
            raise InputRejected(
                f"{name}: a data-quality plane of {plane} pixels, expected at most "
                f"{_LONGEST_AXIS} along an axis and {_MOST_PIXELS} in all"
            )
        check_jwst_can_open(hdus, kind, name)
        return exposure

    @property
    def header(self) -> fits.Header:
        """The primary header."""
        return self.hdus[0].header

    @property
    def keywords(self) -> Keywords:
        """The keywords of the primary header."""
        return Keywords(self.header, self.name)

    @property
    def subarray(self) -> Subarray | None:
        """The area read out, in the science frame; None if a keyword is missing."""
        return Subarray.from_keywords(self.keywords)

    @property
    def stripes(self) -> StripeReadout | None:
        """The stripe keywords; None if MSTR_RD1 is missing."""
        return StripeReadout.from_keywords(self.keywords)

    @property
    def spec(self) -> KindSpec:
        """The arrays and the data model of this kind of exposure."""
        return KIND_SPECS[self.kind]

    @property
    def image_shape(self) -> tuple[int, int]:
        """Shape of one image: (ny, nx)."""
        return self.shape[2:]

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Shape of the data-quality plane: (ny, nx), or (SSTR_NST, ny, nx) for superstripes."""
        if self.kind is Kind.SUPERSTRIPE:
            return (self.superstripes, *self.image_shape)
        return self.image_shape

    def existing_image(self, read: Reader) -> NDArray[np.uint32] | None:
        """Read the PIXELDQ or DQ array of the input: `plane_shape`, science frame; None if absent.

        An array of another shape counts as absent, see `existing_array`.
        """
        hdu = self.existing_array(self.spec.image, self.plane_shape)
        if hdu is None:
            return None
        stored = read(hdu.data_start, hdu.data_length)
        return decode(hdu, stored, self.name).astype(np.uint32)

    def existing_array(self, name: str, shape: tuple[int, ...]) -> Hdu | None:
        """Find a data-quality array of the input by EXTNAME, to merge flags into it.

        None if it is missing, has no data or, with a warning, has another shape.

        Raises
        ------
        InputRejected
            If the HDU is a table, has another number of axes, or has another EXTVER than 1.
        """
        found, hdu = find_all(self.hdus, name), find(self.hdus, name)
        if hdu is None:
            if found:
                raise InputRejected(
                    f"{self.name}: {name} has EXTVER {_version(found[0])}, expected 1"
                )
            return None
        if hdu.is_image and not hdu.shape:
            return None
        if not hdu.is_image or len(hdu.shape) != len(shape):
            what = "an image" if hdu.is_image else "a table"
            raise InputRejected(
                f"{self.name}: {name} is {what} of {len(hdu.shape)} axes, expected an image of "
                f"{len(shape)} axes"
            )
        if hdu.shape != shape:
            log.warning(
                "%s: %s has shape %s, expected %s; it is not merged",
                *(self.name, name, hdu.shape, shape),
            )
            return None
        return hdu


def _science_shape(hdus: tuple[Hdu, ...], name: str) -> tuple[int, int, int, int]:
    """Check that there is one valid SCI array and return its shape."""
    found = find_all(hdus, "SCI")
    if len(found) > 1:
        raise InputRejected(f"{name}: {len(found)} HDUs are named SCI, expected one")
    if not found or not found[0].is_image:
        names = ", ".join(hdu.name or "unnamed" for hdu in hdus)
        raise InputRejected(f"{name}: no SCI image among its HDUs ({names}); is it compressed?")
    (sci,) = found
    if sci.version != 1:
        raise InputRejected(f"{name}: SCI has EXTVER {_version(sci)}, expected 1")
    shape = sci.shape
    if len(shape) != 4 or 0 in shape:
        raise InputRejected(f"{name}: SCI has shape {shape}, expected (nints, ngroups, ny, nx)")
    format_of(sci.header, f"{name}, SCI")  # rejects scaled pixels
    return shape[0], shape[1], shape[2], shape[3]


def _version(hdu: Hdu) -> str:
    return "undefined" if hdu.version is None else str(hdu.version)
