"""Multistripe readouts: which rows of the detector each stripe read.

A stripe reads scattered blocks of rows along the slow axis, and the readout joins them to one
image. All of a stripe's rows are known from nine keywords, so a mask is brought to the readout by
one gather of whole rows. The rules are those of `jwst.lib.stripe_utils` in jwst 3.0.0; the keywords
are described in the JWST keyword dictionary (MSTR_*, SSTR_*).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import InputRejected
from core.fits.hdus import Keywords
from core.subarray import Subarray

__all__ = ["DETECTOR_SIZE", "StripeReadout"]

log = logging.getLogger(__name__)

DETECTOR_SIZE = 2048
"""Pixels along the slow axis of every detector that is read in stripes."""


@dataclass(frozen=True)
class _Block:
    """Rows that are read one after another: the first (detector index), how many of them, and
    whether SSTR_STP moves them from one superstripe to the next.
    """

    first: int
    rows: int
    moves: bool


@dataclass(frozen=True)
class StripeReadout:
    """The stripe keywords of an exposure. All but `reads1` may be absent (None).

    Attributes
    ----------
    name : str
        The exposure's name, for messages.
    subarray_name : str
        SUBARRAY.
    reads1, skips1, reads2, skips2 : int
        Rows read and skipped: MSTR_RD1, MSTR_SK1, MSTR_RD2, MSTR_SK2.
    repeat : int
        MSTR_RPT: whether the head returns to its start after every block.
    interleave : int
        MSTR_ILV: whether the rows skipped after each return grow.
    step, superstripes : int
        SSTR_STP: rows from one superstripe to the next; SSTR_NST: superstripes in all.
    fast_axis, slow_axis : int
        FASTAXIS and SLOWAXIS: 1 for x, 2 for y; negative where the readout runs backwards.
    """

    name: str
    subarray_name: str
    reads1: int
    skips1: int | None
    reads2: int | None
    skips2: int | None
    repeat: int | None
    interleave: int | None
    step: int | None
    superstripes: int | None
    fast_axis: int | None
    slow_axis: int | None

    @classmethod
    def from_keywords(cls, keywords: Keywords) -> "StripeReadout | None":
        """Read the keywords; None where MSTR_RD1 is absent.

        Raises
        ------
        InputRejected
            If a keyword holds anything but an integer.
        """
        reads1 = keywords.integer("MSTR_RD1")
        if reads1 is None:
            return None
        return cls(
            name=keywords.name,
            subarray_name=keywords.word("SUBARRAY") or "",
            reads1=reads1,
            skips1=keywords.integer("MSTR_SK1"),
            reads2=keywords.integer("MSTR_RD2"),
            skips2=keywords.integer("MSTR_SK2"),
            repeat=keywords.integer("MSTR_RPT"),
            interleave=keywords.integer("MSTR_ILV"),
            step=keywords.integer("SSTR_STP"),
            superstripes=keywords.integer("SSTR_NST"),
            fast_axis=keywords.integer("FASTAXIS"),
            slow_axis=keywords.integer("SLOWAXIS"),
        )

    @property
    def slow_is_x(self) -> bool:
        """Whether rows, as the detector reads them, are columns of the science frame.

        Raises
        ------
        InputRejected
            If FASTAXIS and SLOWAXIS are missing or do not name two different axes.
        """
        fast = _needed(self.fast_axis, "FASTAXIS", self.name)
        slow = _needed(self.slow_axis, "SLOWAXIS", self.name)
        if {abs(fast), abs(slow)} != {1, 2}:
            raise InputRejected(
                f"{self.name}: FASTAXIS={fast} and SLOWAXIS={slow}, expected one of them to be "
                "+1 or -1 and the other +2 or -2"
            )
        return abs(slow) == 1

    def rows(self, subarray: Subarray, length: int) -> Iterator[NDArray[np.intp]]:
        """Yield which rows of the mask each row of an image is, one stripe after another.

        Parameters
        ----------
        subarray : `~core.subarray.Subarray`
            The exposure's subarray keywords; its sizes are those of the image.
        length : int
            Rows that the mask has along the slow axis.

        Yields
        ------
        ndarray of intp
            Indices along the slow axis of the mask, science frame. One array for a substripe
            readout, SSTR_NST arrays for superstripes.

        Raises
        ------
        InputRejected
            If a keyword that the readout needs is missing, the blocks do not fill the subarray
            exactly, or a row lies outside the mask.
        """
        blocks = self._blocks(subarray, length)
        backwards = _needed(self.slow_axis, "SLOWAXIS", self.name) < 0
        for stripe in range(max(self.count, 1)):
            offset = self._offset(stripe)
            rows = np.concatenate(
                [np.arange(block.rows) + block.first + block.moves * offset for block in blocks]
            )
            yield length - 1 - rows[::-1] if backwards else rows

    @property
    def count(self) -> int:
        """Superstripes in a super-integration; 0 for a substripe readout."""
        count = _needed(self.superstripes, "SSTR_NST", self.name)
        if not 0 <= count <= DETECTOR_SIZE:
            raise InputRejected(
                f"{self.name}: SSTR_NST is {count}, expected 0 to {DETECTOR_SIZE}: a superstripe "
                "reads at least one row"
            )
        return count

    def _start(self, science_start: int) -> int:
        """Detector index (from 0) at which the readout starts."""
        backwards = _needed(self.slow_axis, "SLOWAXIS", self.name) < 0
        start = DETECTOR_SIZE - science_start if backwards else science_start - 1
        mislabelled = backwards and science_start == 1
        if start != 0 and (mislabelled or "DHS" in self.subarray_name):
            log.warning(
                "%s: slow-axis start %d of %s taken as detector row 0, as early products mean it",
                self.name,
                science_start,
                self.subarray_name,
            )
            return 0
        return start

    def _blocks(self, subarray: Subarray, length: int) -> list["_Block"]:
        """Return the blocks of rows that the first stripe read, in reading order."""
        size = subarray.xsize if self.slow_is_x else subarray.ysize
        start = self._start(subarray.xstart if self.slow_is_x else subarray.ystart)
        count, head = self._block_length(), max(self.reads1, 0)
        skip = growing_skip = _needed(self.skips1, "MSTR_SK1", self.name)
        block = _Block(start + head + skip, count, moves=True)
        blocks = [_Block(start, head, moves=False), block]
        filled = head + count
        while filled < size:
            self._check_rows(block, length)  # at once: a crafted skip ends the reading
            if _needed(self.repeat, "MSTR_RPT", self.name) > 0:
                blocks.append(blocks[0])
                filled += head
                if self.interleave:
                    growing_skip += _needed(self.skips2, "MSTR_SK2", self.name) + count
                    block = _Block(start + head + growing_skip, count, moves=False)
            else:
                first = block.first + count + _needed(self.skips2, "MSTR_SK2", self.name)
                block = _Block(first, count, moves=True)
            blocks.append(block)
            filled += count
        if filled != size:
            raise InputRejected(
                f"{self.name}: the stripes read {filled} rows, the subarray has {size}: {self}"
            )
        for block in blocks:
            self._check_rows(block, length)
        return blocks

    def _offset(self, stripe: int) -> int:
        """Return by how many rows the moving blocks of a stripe lie behind those of the first."""
        return stripe * _needed(self.step, "SSTR_STP", self.name) if self.count > 0 else 0

    def _check_rows(self, block: "_Block", length: int) -> None:
        """Check that a block of rows lies on the detector, in the first and in the last stripe."""
        for stripe in {0, max(self.count - 1, 0)}:
            first = block.first + block.moves * self._offset(stripe)
            if block.rows and not 0 <= first <= first + block.rows <= length:
                raise InputRejected(
                    f"{self.name}: a stripe reads rows {first} to {first + block.rows - 1} "
                    f"(from 0), the mask has rows 0 to {length - 1}: {self}"
                )

    def _block_length(self) -> int:
        """Rows of a science block: MSTR_RD2, or the step where a superstripe leaves it zero."""
        reads2 = _needed(self.reads2, "MSTR_RD2", self.name)
        if reads2 <= 0 and self.count > 0:
            reads2 = _needed(self.step, "SSTR_STP", self.name)
        if reads2 <= 0:
            raise InputRejected(f"{self.name}: no rows in a stripe's block: {self}")
        return reads2

    def __str__(self) -> str:
        """The keywords as an astronomer reads them in the header."""
        return (
            f"MSTR_RD1={self.reads1}, MSTR_SK1={self.skips1}, MSTR_RD2={self.reads2}, "
            f"MSTR_SK2={self.skips2}, MSTR_RPT={self.repeat}, MSTR_ILV={self.interleave}, "
            f"SSTR_STP={self.step}, SSTR_NST={self.superstripes}, "
            f"FASTAXIS={self.fast_axis}, SLOWAXIS={self.slow_axis}"
        )


def _needed(value: int | None, keyword: str, name: str) -> int:
    if value is None:
        raise InputRejected(f"{name}: {keyword} is missing, and the stripe readout needs it")
    return value
