"""A raw exposure as its headers describe it: its kind, its shape, and its readout."""

import logging
import math
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.compat import (
    KIND_SPECS,
    MODEL_EXTENSIONS,
    Kind,
    KindSpec,
    check_asdf_agrees,
    check_jwst_can_open,
    kind_of,
)
from core.errors import InputRejected
from core.fits.hdus import Hdu, Keywords, Reader, find, find_all, locate, shape_text
from core.fits.pixels import decode, format_of
from core.stripes import StripeReadout

log = logging.getLogger(__name__)

# EXTNAMEs that the data models look up.
_EXTENSIONS = frozenset(
    {"SCI", "PIXELDQ", "GROUPDQ", "DQ", "ERR", "ASDF"}.union(*MODEL_EXTENSIONS.values())
)
# Limits checked before memory is allocated; the largest readout (NIRSpec IRS2) is 2048 x 3200.
_LONGEST_AXIS = 8192
_MOST_PIXELS = 16 * 1024 * 1024  # of a data-quality plane, all stripes together


@dataclass(frozen=True)
class Subarray:
    """A rectangle of pixels of the detector, in the science frame; pixels count from 1."""

    xstart: int
    ystart: int
    xsize: int
    ysize: int

    @classmethod
    def from_keywords(cls, keywords: Keywords) -> "Subarray | None":
        """Read SUBSTRT1/2 and SUBSIZE1/2 of a primary header; return None if one is missing.

        Raises `keywords.error` if one is not an integer or, if all are present, a start is below 1.
        Sizes are not checked.
        """
        names = ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")
        values = [value for name in names if (value := keywords.integer(name)) is not None]
        if len(values) < len(names):
            return None
        subarray = cls(*values)
        if subarray.xstart < 1 or subarray.ystart < 1:
            raise keywords.error(
                f"{keywords.name}: {subarray}, expected SUBSTRT1 and SUBSTRT2 to be at least 1"
            )
        return subarray

    def __str__(self) -> str:
        return (
            f"SUBSTRT1={self.xstart}, SUBSTRT2={self.ystart}, "
            f"SUBSIZE1={self.xsize}, SUBSIZE2={self.ysize}"
        )


@dataclass(frozen=True)
class Exposure:
    """A raw exposure, described by its headers."""

    name: str  # URI or file name, for messages
    hdus: tuple[Hdu, ...]
    kind: Kind  # ramp, superstripe or guider
    shape: tuple[int, int, int, int]  # of SCI: (integrations, groups, ny, nx)
    superstripes: int  # SSTR_NST; 0 if it is missing

    @classmethod
    def read(cls, read: Reader, size: int, name: str) -> "Exposure":
        """Read headers and ASDF of an exposure of `size` bytes, or raise `InputRejected`."""
        hdus = locate(read, size, name)
        exposure = cls.from_hdus(hdus, name)
        check_asdf_agrees(hdus, read, name)
        return exposure

    @classmethod
    def from_hdus(cls, hdus: tuple[Hdu, ...], name: str) -> "Exposure":
        """Describe an exposure, given its HDUs from `locate`, or raise `InputRejected`."""
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
                f"{name}: a data-quality plane of {shape_text(plane)} pixels, expected at most "
                f"{_LONGEST_AXIS} along an axis and {_MOST_PIXELS} in all"
            )
        check_jwst_can_open(hdus, kind, name)
        return exposure

    @property
    def header(self) -> fits.Header:
        """The primary header of the exposure."""
        return self.hdus[0].header

    @property
    def keywords(self) -> Keywords:
        """The keywords of the exposure's primary header."""
        return Keywords(self.header, self.name)

    @property
    def subarray(self) -> Subarray | None:
        """The rectangle that SUBSTRT1/2 and SUBSIZE1/2 declare; None if one is missing.

        Stripes read other rows, and the size may differ from SCI's. Raises `InputRejected` if one
        is not an integer or, if all are present, a start is below 1.
        """
        return Subarray.from_keywords(self.keywords)

    @property
    def stripes(self) -> StripeReadout | None:
        """The stripe keywords of the exposure; None if MSTR_RD1 is missing."""
        return StripeReadout.from_keywords(self.keywords)

    @property
    def spec(self) -> KindSpec:
        """The data model and the arrays of products of this kind of exposure."""
        return KIND_SPECS[self.kind]

    @property
    def image_shape(self) -> tuple[int, int]:
        """Shape of one image of SCI, that is, of one group: (ny, nx)."""
        return self.shape[2:]

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Shape of PIXELDQ or DQ: (ny, nx), or (SSTR_NST, ny, nx) for superstripes."""
        if self.kind is Kind.SUPERSTRIPE:
            return (self.superstripes, *self.image_shape)
        return self.image_shape

    def existing_image(self, read: Reader) -> NDArray[np.uint32] | None:
        """Return the pixels of PIXELDQ (of a guider: DQ) that the exposure's file has.

        None or `InputRejected` as in `existing_array`; `InputRejected` also as in `decode`. Floats
        that are not flags are converted as numpy does, with a logged warning.
        """
        hdu = self.existing_array(self.spec.image, self.plane_shape)
        if hdu is None:
            return None
        stored = read(hdu.data_start, hdu.data_length)
        pixels = decode(hdu, stored, self.name)
        with np.errstate(invalid="ignore"):  # numpy would warn about NaN with a path of this code
            image = pixels.astype(np.uint32)
        if pixels.dtype.kind == "f" and (number := np.count_nonzero(image != pixels)):
            log.warning(
                "%s: %s has %d pixels that are not integers in [0, 2**32), expected flags; they "
                "are converted",
                *(self.name, hdu.name, number),
            )
        return image

    def existing_array(self, name: str, shape: tuple[int, ...]) -> Hdu | None:
        """Return the HDU with EXTNAME `name` if it has `shape`, that of the flags to merge.

        None if it is missing, without axes or, with a logged warning, of other lengths of the axes.
        Raises `InputRejected` for a table, another number of axes, or EXTVER not 1.
        """
        found, hdu = find_all(self.hdus, name), find(self.hdus, name)
        if hdu is None:
            if found:
                raise InputRejected(
                    f"{self.name}: {name} has EXTVER {found[0].version_text}, expected 1"
                )
            return None
        if hdu.is_image and not hdu.shape:
            return None
        if not hdu.is_image or len(hdu.shape) != len(shape):
            what = "an image" if hdu.is_image else "a table"
            raise InputRejected(
                f"{self.name}: its existing {name} is {what} of {len(hdu.shape)} axes, expected an "
                f"image of {len(shape)} axes, whose flags the product keeps"
            )
        if hdu.shape != shape:
            log.warning(
                "%s: %s has shape %s, expected %s; its flags are not merged into the product",
                *(self.name, name, shape_text(hdu.shape), shape_text(shape)),
            )
            return None
        return hdu


def _science_shape(hdus: tuple[Hdu, ...], name: str) -> tuple[int, int, int, int]:
    """Return the shape of SCI: (integrations, groups, ny, nx)."""
    found = find_all(hdus, "SCI")
    if len(found) > 1:
        raise InputRejected(f"{name}: {len(found)} HDUs are named SCI, expected one")
    if not found or not found[0].is_image:
        names = ", ".join(hdu.name or "unnamed" for hdu in hdus)
        advice = "; a virtual product: expand it first" if find(hdus, "LAYOUT") else ""
        raise InputRejected(f"{name}: no SCI image among its HDUs ({names}), expected one{advice}")
    (sci,) = found
    if sci.version != 1:
        raise InputRejected(f"{name}: SCI has EXTVER {sci.version_text}, expected 1")
    shape = sci.shape
    if len(shape) != 4 or 0 in shape:
        raise InputRejected(
            f"{name}: SCI has shape {shape_text(shape)}, expected integrations x groups x ny x nx"
        )
    format_of(sci.header, f"{name}, SCI")  # rejects scaled pixels
    return shape[0], shape[1], shape[2], shape[3]
