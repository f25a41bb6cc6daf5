"""The area of a detector that an exposure or a mask covers, from its subarray keywords."""

from dataclasses import dataclass

from core.fits.hdus import Keywords


@dataclass(frozen=True)
class Subarray:
    """A rectangle of pixels in the science frame; its first column and row are numbered 1."""

    xstart: int
    ystart: int
    xsize: int
    ysize: int

    @classmethod
    def from_keywords(cls, keywords: Keywords) -> "Subarray | None":
        """Read the four subarray keywords of a primary header; return None if one is missing.

        Raises
        ------
        Exception
            `keywords.error`, if a keyword is not an integer or a corner is less than 1.
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
        return (
            f"SUBSTRT1={self.xstart}, SUBSTRT2={self.ystart}, "
            f"SUBSIZE1={self.xsize}, SUBSIZE2={self.ysize}"
        )
