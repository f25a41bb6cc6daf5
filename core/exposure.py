"""What the headers of a raw exposure say: its kind, its shape, and how it was read out."""

import logging
import math
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from core.compat import KIND_SPECS, OPENED, Kind, KindSpec, check_jwst_can_open, kind_of
from core.errors import InputRejected
from core.fits.hdus import Hdu, Keywords, Reader, find, find_all
from core.fits.pixels import decode, format_of
from core.stripes import StripeReadout
from core.subarray import Subarray

__all__ = ["Exposure"]

log = logging.getLogger(__name__)

_EXTENSIONS = frozenset({"SCI", "PIXELDQ", "GROUPDQ", "DQ", "ERR", "ASDF"}.union(*OPENED.values()))
"""Names by which the data models look extensions up."""
_LONGEST_AXIS = 8192
"""Rows or columns; the longest axis that a detector of JWST is read out with has 3200."""
_MOST_PIXELS = 16 * 1024 * 1024
"""Of a data-quality plane, all stripes together; a full frame has a quarter of it."""


@dataclass(frozen=True)
class Exposure:
    """A raw exposure, known by its headers alone.

    Attributes
    ----------
    name : str
        Where it lies; used in messages.
    hdus : tuple of `~core.fits.hdus.Hdu`
        Every HDU of the file and its place in it.
    kind : `~core.compat.Kind`
        Ramp, superstripe or guider.
    shape : tuple of int
        Of SCI: (nints, ngroups, ny, nx).
    superstripes : int
        SSTR_NST; 0 where it is absent.
    """

    name: str
    hdus: tuple[Hdu, ...]
    kind: Kind
    shape: tuple[int, int, int, int]
    superstripes: int

    @classmethod
    def from_hdus(cls, hdus: tuple[Hdu, ...], name: str) -> "Exposure":
        """Read the headers of an exposure.

        Parameters
        ----------
        hdus : tuple of `~core.fits.hdus.Hdu`
            As `core.fits.hdus.locate` returns them.
        name : str
            Where the exposure lies, for messages.

        Raises
        ------
        InputRejected
            If there is not one SCI, it is not a 4-D image or larger than any that JWST takes, a
            keyword that says of which kind the exposure is holds a value that it cannot have, or
            the `jwst` data models cannot open what the step passes on.
        """
        keywords = Keywords(hdus[0].header, name)
        if hdus[0].name in _EXTENSIONS:  # astropy, and so jwst, finds it before the extension
            raise InputRejected(
                f"{name}: EXTNAME of the primary header is {hdus[0].name!r}, expected none"
            )
        superstripes = keywords.integer("SSTR_NST") or 0
        exposure = cls(
            name=name,
            hdus=hdus,
            kind=kind_of(keywords, superstripes),
            shape=_science_shape(hdus, name),
            superstripes=superstripes,
        )
        exposure._check_size()
        check_jwst_can_open(hdus, exposure.kind, name)
        return exposure

    @property
    def header(self) -> fits.Header:
        """The primary header."""
        return self.hdus[0].header

    @property
    def keywords(self) -> Keywords:
        """Those of the primary header."""
        return Keywords(self.header, self.name)

    @property
    def subarray(self) -> Subarray | None:
        """The rectangle read out, in the science frame; None where keywords are missing.

        Raises
        ------
        InputRejected
            If a keyword is no integer, or a corner is less than 1: where a mask is to be cut.
        """
        return Subarray.from_keywords(self.keywords)

    @property
    def stripes(self) -> StripeReadout | None:
        """The stripe keywords; None where MSTR_RD1 is absent.

        Raises
        ------
        InputRejected
            If a keyword is no integer.
        """
        return StripeReadout.from_keywords(self.keywords)

    @property
    def spec(self) -> KindSpec:
        """What follows from its kind."""
        return KIND_SPECS[self.kind]

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

    def existing_image(self, read: Reader) -> NDArray[np.uint32] | None:
        """Read PIXELDQ or DQ, where the exposure has one that fits.

        Parameters
        ----------
        read : callable
            Reads a range of the file: start, length.

        Returns
        -------
        ndarray of uint32 or None
            Of the plane shape, in the science frame.

        Raises
        ------
        InputRejected
            As `existing_array` and `core.fits.pixels.decode` do.
        """
        hdu = self.existing_array(self.spec.image, self.plane_shape)
        if hdu is None:
            return None
        stored = read(hdu.data_start, hdu.data_length)
        return decode(hdu, stored, self.name).astype(np.uint32)

    def existing_array(self, name: str, shape: tuple[int, ...]) -> Hdu | None:
        """Find a data-quality array that the input has already, for the step to merge into.

        Parameters
        ----------
        name : str
            EXTNAME of the array.
        shape : tuple of int
            The shape it must have. An array of another shape is replaced, with a warning.

        Returns
        -------
        `~core.fits.hdus.Hdu` or None
            The array's HDU; None where zeros take its place, or it has no data.

        Raises
        ------
        InputRejected
            If the input has something else of that name: a table, an array of other axes, or one
            of another EXTVER only.
        """
        found = find_all(self.hdus, name)
        hdu = find(self.hdus, name)
        if found and hdu is None:
            raise InputRejected(f"{self.name}: {name} has EXTVER {_version(found[0])}, expected 1")
        if hdu is None or (hdu.is_image and not hdu.shape):
            return None
        if hdu.is_image and hdu.shape == shape:
            return hdu
        if not hdu.is_image or len(hdu.shape) != len(shape):
            raise InputRejected(
                f"{self.name}: {name} has {len(hdu.shape)} axes, expected an image of {len(shape)}"
            )
        log.warning(
            "%s: %s has shape %s, expected %s; nothing is merged into it",
            *(self.name, name, hdu.shape, shape),
        )
        return None

    def check_integrations(self) -> None:
        """Check that integration i belongs to stripe i mod SSTR_NST for every one of them.

        Raises
        ------
        InputRejected
            If the integrations are no multiple of SSTR_NST.
        """
        if self.kind is Kind.SUPERSTRIPE and self.shape[0] % self.superstripes:
            raise InputRejected(
                f"{self.name}: {self.shape[0]} integrations are no multiple of "
                f"SSTR_NST={self.superstripes}"
            )

    def _check_size(self) -> None:
        """Refuse what no detector reads out, before memory is asked for it."""
        pixels = math.prod(self.plane_shape)
        if max(self.image_shape) > _LONGEST_AXIS or pixels > _MOST_PIXELS:
            raise InputRejected(
                f"{self.name}: a data-quality plane of {self.plane_shape} pixels, expected at most "
                f"{_LONGEST_AXIS} along an axis and {_MOST_PIXELS} in all"
            )


def _science_shape(hdus: tuple[Hdu, ...], name: str) -> tuple[int, int, int, int]:
    """Check that SCI is what a raw exposure has, and return its shape."""
    sci = _only_science(hdus, name)
    shape = sci.shape
    if len(shape) != 4 or 0 in shape:
        raise InputRejected(f"{name}: SCI has shape {shape}, expected (nints, ngroups, ny, nx)")
    format_of(sci.header, f"{name}, SCI")  # refuses what is scaled
    return shape[0], shape[1], shape[2], shape[3]


def _only_science(hdus: tuple[Hdu, ...], name: str) -> Hdu:
    images = find_all(hdus, "SCI")
    if len(images) > 1:
        raise InputRejected(f"{name}: {len(images)} HDUs are named SCI, expected one")
    if not images or not images[0].is_image:
        names = ", ".join(hdu.name or "unnamed" for hdu in hdus)
        raise InputRejected(f"{name}: no SCI image among its HDUs ({names}); is it compressed?")
    if images[0].version != 1:
        raise InputRejected(f"{name}: SCI has EXTVER {_version(images[0])}, expected 1")
    return images[0]


def _version(hdu: Hdu) -> str:
    """Write EXTVER for a message."""
    return "undefined" if hdu.version is None else str(hdu.version)
