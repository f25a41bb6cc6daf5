"""Multistripe readouts: the rows of the detector that each stripe read.

A stripe reads blocks of rows along the slow axis, and the readout joins them to one image. The
rules are those of `jwst.lib.stripe_utils` in jwst 3.0.0.

| keyword (JWST keyword dictionary) | meaning |
|---|---|
| MSTR_RD1, MSTR_SK1 | rows read first, the head, and rows skipped after them |
| MSTR_RD2, MSTR_SK2 | rows of a block, and rows skipped between blocks |
| MSTR_RPT | whether the head is read again before every block |
| MSTR_ILV | whether the skip after the head grows with every repeat |
| SSTR_STP, SSTR_NST | rows from one superstripe to the next; number of superstripes |
| FASTAXIS, SLOWAXIS | 1 for x, 2 for y; negative if the axis is read backwards |
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.errors import InputRejected
from core.fits.hdus import Keywords

if TYPE_CHECKING:  # core.exposure imports this module
    from core.exposure import Subarray

log = logging.getLogger(__name__)

DETECTOR_SIZE = 2048  # pixels along the slow axis of every detector that is read in stripes
_KEYWORDS = (
    "MSTR_RD1", "MSTR_SK1", "MSTR_RD2", "MSTR_SK2", "MSTR_RPT", "MSTR_ILV",
    "SSTR_STP", "SSTR_NST", "FASTAXIS", "SLOWAXIS",
)  # fmt: skip


@dataclass(frozen=True)
class _Rows:
    """Consecutive rows that a stripe reads, numbered from 0 in the detector frame."""

    first: int
    count: int
    moves: bool  # whether they start SSTR_STP rows later in the next superstripe


@dataclass(frozen=True)
class StripeReadout:
    """The stripe keywords of an exposure: MSTR_*, SSTR_*, FASTAXIS and SLOWAXIS.

    A missing one is None in `values`; `readout[keyword]` raises `InputRejected` for it.
    """

    name: str  # of the exposure, for messages
    subarray_name: str  # SUBARRAY; empty if it is missing
    values: Mapping[str, int | None]

    @classmethod
    def from_keywords(cls, keywords: Keywords) -> "StripeReadout | None":
        """Read the stripe keywords of a primary header; return None if MSTR_RD1 is missing."""
        if keywords.integer("MSTR_RD1") is None:
            return None
        subarray_name = keywords.word("SUBARRAY") or ""
        values = {keyword: keywords.integer(keyword) for keyword in _KEYWORDS}
        return cls(keywords.name, subarray_name, values)

    def __str__(self) -> str:
        return ", ".join(f"{keyword}={value}" for keyword, value in self.values.items())

    def __getitem__(self, keyword: str) -> int:
        value = self.values[keyword]
        if value is None:
            raise InputRejected(
                f"{self.name}: {keyword} is missing, expected because MSTR_RD1 is present"
            )
        return value

    @property
    def slow_is_x(self) -> bool:
        """Whether the slow axis is x, so that detector rows are columns of the science frame.

        Raises `InputRejected` unless one of FASTAXIS and SLOWAXIS is 1 or -1, the other 2 or -2.
        """
        fast, slow = self["FASTAXIS"], self["SLOWAXIS"]
        if {abs(fast), abs(slow)} != {1, 2}:
            raise InputRejected(
                f"{self.name}: FASTAXIS={fast} and SLOWAXIS={slow}, expected one of them to be "
                "+1 or -1 and the other +2 or -2"
            )
        return abs(slow) == 1

    @property
    def count(self) -> int:
        """Number of superstripes in a super-integration, SSTR_NST; 0 for a substripe readout.

        Raises `InputRejected` if SSTR_NST is missing, negative or above 2048.
        """
        count = self["SSTR_NST"]
        # A crafted count would exhaust memory; every superstripe reads at least one row.
        if not 0 <= count <= DETECTOR_SIZE:
            raise InputRejected(f"{self.name}: SSTR_NST is {count}, expected 0 to {DETECTOR_SIZE}")
        return count

    def rows(self, subarray: "Subarray", length: int) -> Iterator[NDArray[np.intp]]:
        """Yield, for each image in turn, the indices of the mask's rows that make it up.

        Rows lie along the slow axis, in the science frame, from 0 to `length` - 1. A substripe
        readout has one image. `InputRejected` if rows do not fill `subarray` or the mask lacks one.
        """
        blocks = self._blocks(subarray, length)
        backwards = self["SLOWAXIS"] < 0
        for stripe in range(max(self.count, 1)):
            offset = self._offset(stripe)
            rows = np.concatenate(
                [np.arange(block.count) + block.first + block.moves * offset for block in blocks]
            )
            yield length - 1 - rows[::-1] if backwards else rows

    def _blocks(self, subarray: "Subarray", length: int) -> list[_Rows]:
        """Return the runs of consecutive rows that the first stripe reads, in reading order."""
        size = subarray.xsize if self.slow_is_x else subarray.ysize
        start = self._start(subarray.xstart if self.slow_is_x else subarray.ystart)
        count, head = self["MSTR_RD2"], max(self["MSTR_RD1"], 0)
        if count <= 0 and self.count > 0:
            count = self["SSTR_STP"]
        if count <= 0:
            raise InputRejected(
                f"{self.name}: a stripe reads blocks of {count} rows, expected at least 1: {self}"
            )
        skip = self["MSTR_SK1"]
        block = _Rows(start + head + skip, count, moves=True)
        blocks = [_Rows(start, head, moves=False), block]
        filled = head + count
        while filled < size:
            self._check_rows(block, length)  # in the loop: a crafted skip must end it early
            if self["MSTR_RPT"] > 0:
                blocks.append(blocks[0])
                filled += head
                if self.values["MSTR_ILV"]:
                    skip += self["MSTR_SK2"] + count
                    block = _Rows(start + head + skip, count, moves=False)
            else:
                first = block.first + count + self["MSTR_SK2"]
                block = _Rows(first, count, moves=True)
            blocks.append(block)
            filled += count
        if filled != size:
            raise InputRejected(
                f"{self.name}: the stripes read {filled} rows, expected {size} (subarray): {self}"
            )
        for block in blocks:
            self._check_rows(block, length)
        return blocks

    def _start(self, science_start: int) -> int:
        """Return the detector row (from 0) at which the readout starts."""
        backwards = self["SLOWAXIS"] < 0
        start = DETECTOR_SIZE - science_start if backwards else science_start - 1
        # Early products have a wrong slow-axis start in these cases (jwst.lib.stripe_utils).
        if start != 0 and ((backwards and science_start == 1) or "DHS" in self.subarray_name):
            log.warning(
                "%s: slow-axis start %d of %s interpreted as detector row 0 (early products "
                "mislabel it)",
                *(self.name, science_start, self.subarray_name),
            )
            return 0
        return start

    def _offset(self, stripe: int) -> int:
        """Return by how many rows a stripe's rows with `moves` follow the first stripe's."""
        return stripe * self["SSTR_STP"] if self.count > 0 else 0

    def _check_rows(self, block: _Rows, length: int) -> None:
        for stripe in {0, max(self.count - 1, 0)}:
            first = block.first + block.moves * self._offset(stripe)
            if block.count and not 0 <= first <= first + block.count <= length:
                raise InputRejected(
                    f"{self.name}: a stripe reads rows {first} to {first + block.count - 1} "
                    f"(from 0), expected rows of the mask, 0 to {length - 1}: {self}"
                )
