"""The rectangle of a detector that an array covers, as its header declares it."""

from dataclasses import dataclass

from core.fits.hdus import Keywords

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
    def from_keywords(cls, keywords: Keywords) -> "Subarray | None":
        """Read the four subarray keywords; None unless all of them are there.

        Parameters
        ----------
        keywords : `~core.fits.hdus.Keywords`
            Of the primary header of an exposure or of a mask.

        Raises
        ------
        Exception
            The header's class of error, if a keyword is no integer or a corner is less than 1.
        """
        names = ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")
        values = [value for name in names if (value := keywords.integer(name)) is not None]
        if len(values) < len(names):
            return None
        subarray = cls(*values)
        if subarray.xstart < 1 or subarray.ystart < 1:
            raise keywords.error(
                f"{keywords.name}: the subarray's corner must be at least (1, 1): {subarray}"
            )
        return subarray

    def __str__(self) -> str:
        """The keywords as an astronomer reads them in the header."""
        return (
            f"SUBSTRT1={self.xstart}, SUBSTRT2={self.ystart}, "
            f"SUBSIZE1={self.xsize}, SUBSIZE2={self.ysize}"
        )
