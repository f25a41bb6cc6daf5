"""The rectangle of a detector that an array covers, as its header declares it."""

from dataclasses import dataclass

from astropy.io import fits

from core import keywords
from core.errors import InputRejected

__all__ = ["Subarray"]


@dataclass(frozen=True)
class Subarray:
    """A rectangle in the science frame.

    Attributes
    ----------
    xstart, ystart : int
        First column and row (SUBSTRT1, SUBSTRT2), 1-based.
    xsize, ysize : int
        Columns and rows (SUBSIZE1, SUBSIZE2).
    """

    xstart: int
    ystart: int
    xsize: int
    ysize: int

    @classmethod
    def from_header(
        cls, header: fits.Header, owner: str, error: type[Exception] = InputRejected
    ) -> "Subarray | None":
        """Read the four subarray keywords; None unless all of them are there.

        Parameters
        ----------
        header : `~astropy.io.fits.Header`
            Primary header of an exposure or of a mask.
        owner : str
            The object that the header belongs to, for messages.
        error : type
            What to raise.

        Raises
        ------
        Exception
            `error`, if a keyword is no integer or a corner is less than 1.
        """
        names = ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")
        values = [keywords.integer(header, name, owner, error) for name in names]
        present = [value for value in values if value is not None]
        if len(present) < len(names):
            return None
        subarray = cls(*present)
        if subarray.xstart < 1 or subarray.ystart < 1:
            raise error(f"{owner}: the subarray's corner must be at least (1, 1): {subarray}")
        return subarray

    def __str__(self) -> str:
        """The keywords as an astronomer reads them in the header."""
        return (
            f"SUBSTRT1={self.xstart}, SUBSTRT2={self.ystart}, "
            f"SUBSIZE1={self.xsize}, SUBSIZE2={self.ysize}"
        )
