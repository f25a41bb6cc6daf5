"""A MASK reference file: its flags, and the area of the detector that it covers."""

import logging
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from numpy.typing import NDArray

from core import keywords
from core.errors import ReferenceUnavailable
from core.flags import FlagDefinition, translate
from core.subarray import Subarray

__all__ = ["Mask", "full_frame"]

log = logging.getLogger(__name__)

_FULL_FRAMES = {"MIRI": (1024, 1032)}  # (rows, columns); every other detector is square
_FULL_FRAME = (2048, 2048)


@dataclass(frozen=True)
class Mask:
    """A mask, ready to be cut to a readout.

    Attributes
    ----------
    name : str
        File name, as R_MASK gives it.
    dq : ndarray of uint32
        Standard flags, shape (rows, columns), science frame. Not to be written to.
    instrument : str
        INSTRUME, in upper case.
    subarray : `~core.subarray.Subarray` or None
        What the header declares; None where it declares nothing.
    """

    name: str
    dq: NDArray[np.uint32]
    instrument: str
    subarray: Subarray | None

    @classmethod
    def from_hdus(cls, hdus: fits.HDUList, name: str) -> "Mask":
        """Read a MASK reference file and translate its bits to the standard flags.

        Parameters
        ----------
        hdus : `~astropy.io.fits.HDUList`
            The opened file.
        name : str
            Its name.

        Raises
        ------
        ReferenceUnavailable
            If it has no 2-D integer DQ array or its DQ_DEF table cannot be read.
        """
        dq = translate(_dq_array(hdus, name), _definitions(hdus, name), name)
        dq.setflags(write=False)
        header = hdus[0].header
        return cls(
            name=name,
            dq=dq,
            instrument=(
                keywords.text(header, "INSTRUME", name, ReferenceUnavailable) or ""
            ).upper(),
            subarray=Subarray.from_header(header, name, ReferenceUnavailable),
        )

    @property
    def area(self) -> Subarray:
        """What the mask covers: as its header declares it, or else the full frame.

        Raises
        ------
        ReferenceUnavailable
            If the header declares nothing and the array is not a full frame.
        """
        if self.subarray is not None:
            return self.subarray
        full = full_frame(self.instrument)
        if self.dq.shape != full:
            raise ReferenceUnavailable(
                f"{self.name}: no subarray keywords, and its array is {self.dq.shape}, "
                f"expected the full frame {full}"
            )
        log.warning("%s: no subarray keywords; taken as full frame", self.name)
        return Subarray(1, 1, full[1], full[0])


def full_frame(instrument: str) -> tuple[int, int]:
    """Return rows and columns of a mask that covers all of a detector.

    Parameters
    ----------
    instrument : str
        INSTRUME, in upper case.
    """
    return _FULL_FRAMES.get(instrument, _FULL_FRAME)


def _dq_array(hdus: fits.HDUList, name: str) -> NDArray[np.uint32]:
    if "DQ" not in hdus:
        raise ReferenceUnavailable(f"{name}: no DQ array among its HDUs ({_names(hdus)})")
    try:
        data = hdus["DQ"].data
    except (OSError, TypeError, ValueError, VerifyError) as exc:
        raise ReferenceUnavailable(f"{name}: its DQ array cannot be read: {exc}") from exc
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.dtype.kind not in "iu":
        found = "no data" if data is None else f"{data.dtype} of shape {np.shape(data)}"
        raise ReferenceUnavailable(f"{name}: DQ is {found}, expected a 2-D image of integers")
    return data.astype(np.uint32, copy=False)


def _definitions(hdus: fits.HDUList, name: str) -> list[FlagDefinition]:
    """The rows of DQ_DEF; none where the table is absent or empty."""
    if "DQ_DEF" not in hdus:
        return []
    try:
        table = hdus["DQ_DEF"].data
        if table is None:
            return []
        return [FlagDefinition(int(row["VALUE"]), str(row["NAME"]).strip()) for row in table]
    except (KeyError, IndexError, OSError, TypeError, ValueError, VerifyError) as exc:
        raise ReferenceUnavailable(f"{name}: its DQ_DEF table cannot be read: {exc}") from exc


def _names(hdus: fits.HDUList) -> str:
    return ", ".join(hdu.name or "unnamed" for hdu in hdus)
