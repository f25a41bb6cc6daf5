"""Full-frame exposures of NIRCam for measurements, written in pieces."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits

from core.fits.hdus import padding
from tests.samples.exposures import asdf_hdu, primary_header
from tests.samples.modes import MODES

__all__ = ["EXPOSURES", "LongExposure"]

_IMAGE = (2048, 2048)
_FULL = next(mode for mode in MODES if mode.name == "nircam-full")


@dataclass(frozen=True)
class LongExposure:
    """A full-frame exposure.

    Attributes
    ----------
    name : str
        For the table.
    integrations, groups : int
        How many there are.
    zeroframe : bool
        Whether there is a ZEROFRAME.
    sparse : bool
        Whether the pixels are all alike (no disk could hold many of them otherwise).
    """

    name: str
    integrations: int
    groups: int
    zeroframe: bool = False
    sparse: bool = False

    @property
    def key(self) -> str:
        """Key in the raw bucket."""
        return f"bench/{self.name.replace(' ', '-').lower()}_uncal.fits"

    def content(self) -> Iterator[bytes]:
        """The file, in pieces of some 8 MB."""
        shape = (self.integrations, self.groups, *_IMAGE)
        header = primary_header(_FULL)
        header.update({"NINTS": shape[0], "NGROUPS": shape[1], "ZEROFRAM": self.zeroframe})
        yield header.tostring().encode()
        yield from self._image("SCI", shape)
        if self.zeroframe:
            yield from self._image("ZEROFRAME", (self.integrations, *_IMAGE))
        yield _last_hdu()

    def _image(self, name: str, shape: tuple[int, ...]) -> Iterator[bytes]:
        rng = np.random.default_rng(len(name))
        yield _image_header(name, shape)
        planes = math.prod(shape[:-2])
        plane = rng.bytes(2 * math.prod(_IMAGE))
        for number in range(planes):
            yield (
                plane
                if self.sparse
                else (rng.bytes(64) + plane[number * 64 :])[: len(plane)].ljust(len(plane), b"\7")
            )
        yield bytes(padding(2 * math.prod(shape)))


EXPOSURES = (
    LongExposure("92 MB", 1, 10, zeroframe=True),
    LongExposure("839 MB", 1, 100),
    LongExposure("4 GB", 5, 100, sparse=True),
)


def _image_header(name: str, shape: tuple[int, ...]) -> bytes:
    header = fits.Header()
    cards: list[tuple[str, Any]] = [("XTENSION", "IMAGE"), ("BITPIX", 16), ("NAXIS", len(shape))]
    cards += [(f"NAXIS{axis}", size) for axis, size in enumerate(reversed(shape), 1)]
    cards += [("PCOUNT", 0), ("GCOUNT", 1), ("BSCALE", 1), ("BZERO", 32768)]
    for card in [*cards, ("EXTNAME", name), ("EXTVER", 1)]:
        header.append(card, end=True)
    return header.tostring().encode()


def _last_hdu() -> bytes:
    hdu = asdf_hdu()
    data = hdu.data.tobytes()
    return hdu.header.tostring().encode() + data + bytes(padding(len(data)))
