"""Cutting masks: a table of geometry, and stripes compared with a row-by-row readout."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import assume, given
from hypothesis import strategies as st

from core.compat import Kind
from core.errors import InputRejected, ReferenceUnavailable
from core.exposure import Exposure, Subarray
from core.fits.hdus import Hdu, Keywords
from core.mask import Mask
from core.readout import cut, detector_mismatch
from core.stripes import StripeReadout
from tests.reference_step import striped
from tests.samples.modes import MODES

RNG = np.random.default_rng(11)
FULL = RNG.integers(0, 2**32, (2048, 2048), dtype=np.uint32)
MIRI = RNG.integers(0, 2**32, (1024, 1032), dtype=np.uint32)
IRS2 = RNG.integers(0, 2**32, (3200, 2048), dtype=np.uint32)
SMALL = RNG.integers(0, 2**32, (40, 60), dtype=np.uint32)


def mask(dq: np.ndarray, area: tuple[int, ...] | None, instrument: str = "NIRCAM") -> Mask:
    subarray = Subarray(*area) if area else None
    return Mask("mask.fits", dq, instrument, subarray, area[:2] if area else (None, None))


def exposure(
    area: tuple[int, ...] | None,
    image: tuple[int, int] | None = None,
    kind: Kind = Kind.RAMP,
    **header: Any,
) -> Exposure:
    """Return an exposure of images of shape `image`, by default the shape of `area`."""
    names = ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")
    keywords = dict(zip(names, area, strict=True)) if area else {}
    shape = image or (area[3], area[2])
    primary = Hdu(fits.Header(keywords | header), 0, 0, 0)
    superstripes = header.get("SSTR_NST", 0)
    integrations = max(superstripes, 1) * 2
    return Exposure("x.fits", (primary,), kind, (integrations, 2, *shape), superstripes)


@pytest.mark.parametrize(
    ("reference", "science", "expected"),
    [
        pytest.param(mask(FULL, (1, 1, 2048, 2048)), exposure((1, 1, 2048, 2048)), FULL, id="whole"),
        pytest.param(mask(FULL, None), exposure((1, 1, 2048, 2048)), FULL, id="whole-no-keywords"),
        pytest.param(mask(MIRI, None, "MIRI"), exposure((1, 1, 1032, 1024)), MIRI, id="miri"),
        pytest.param(
            mask(FULL, (1, 1, 2048, 2048)), exposure((10, 20, 30, 40)), FULL[19:59, 9:39], id="window"
        ),
        pytest.param(
            mask(SMALL, (101, 201, 60, 40)), exposure((110, 205, 8, 9)), SMALL[4:13, 9:17],
            id="window-of-a-subarray-mask",
        ),
        pytest.param(
            mask(SMALL, (101, 201, 60, 40)), exposure((101, 201, 60, 40)), SMALL, id="subarray-mask-whole"
        ),
        pytest.param(
            mask(SMALL, (5, 5, 64, 64)), exposure((5, 5, 60, 40)), SMALL, id="mask-size-keywords-wrong"
        ),
        pytest.param(
            mask(SMALL, (5, 5, 60, 40)), exposure((5, 5, 1, 1), (40, 60)), SMALL,
            id="science-size-keywords-wrong",
        ),
        pytest.param(
            mask(IRS2, (1, 1, 2048, 2048)), exposure((1, 1, 2048, 2048), (3200, 2048)), IRS2, id="irs2"
        ),
        pytest.param(
            mask(FULL, (1, 1, 2048, 2048)),
            exposure((1018, 841, 128, 128), kind=Kind.GUIDER),
            FULL[840:968, 1017:1145],
            id="guider",
        ),
    ],
)  # fmt: skip
def test_mask_is_cut_as_the_rules_say(
    reference: Mask, science: Exposure, expected: np.ndarray
) -> None:
    cutout = cut(reference, science)
    assert np.array_equal(cutout, expected)
    assert np.shares_memory(cutout, reference.dq)


@pytest.mark.parametrize(
    ("reference", "science", "error", "message"),
    [
        pytest.param(
            mask(FULL, (1, 1, 2048, 2048)), exposure(None, (64, 64)), InputRejected, "lacks SUBSTRT1/2",
            id="no-science-keywords",
        ),
        pytest.param(
            mask(SMALL, None), exposure((1, 1, 8, 8)), ReferenceUnavailable, "40 x 60, .*2048 x 2048",
            id="small-mask-without-keywords",
        ),
        pytest.param(
            mask(SMALL, (5, 5, 60, 40)), exposure((4, 5, 8, 8)), InputRejected,
            "SUBSTRT1=4, .*SUBSTRT1=5, .*columns -1 to 7 of 60, rows 0 to 8 of 40", id="left-of-the-mask",
        ),
        pytest.param(
            mask(SMALL, (5, 5, 60, 40)), exposure((5, 40, 8, 8)), InputRejected, "rows 35 to 43 of 40",
            id="above-the-mask",
        ),
        pytest.param(
            mask(FULL, (1, 1, 2048, 2048)), exposure((5, 5, 8, 9), (8, 8)), InputRejected,
            "expected the size of the images in SCI", id="science-size-keywords-wrong",
        ),
        pytest.param(
            mask(FULL, (1, 1, 2048, 2048)), exposure((1, 1, 2048, 2048), (3200, 2048)), InputRejected,
            "2048 x 2048, expected 3200 x 2048", id="irs2-exposure-ordinary-mask",
        ),
    ],
)  # fmt: skip
def test_mask_that_cannot_be_cut_is_rejected(
    reference: Mask, science: Exposure, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cut(reference, science)


STRIPES = {
    "MSTR_RD1": 1, "MSTR_SK1": 1526, "MSTR_RD2": 40, "MSTR_SK2": 85, "MSTR_RPT": 1, "MSTR_ILV": 1,
    "SSTR_STP": 0, "SSTR_NST": 0, "FASTAXIS": -1, "SLOWAXIS": 2, "SUBARRAY": "SUB164STRIPE4_DHS",
}  # fmt: skip
DHS = (1, 1, 2048, 164)


@pytest.mark.parametrize(
    "mode", [mode for mode in MODES if mode.stripes], ids=lambda mode: mode.name
)
def test_striped_mode_gathers_the_rows_that_were_read(mode: Any) -> None:
    header = {
        **mode.stripes, "FASTAXIS": mode.axes[0], "SLOWAXIS": mode.axes[1], "SUBARRAY": mode.subarray,
        "SUBSTRT1": mode.corner[0], "SUBSTRT2": mode.corner[1],
        "SUBSIZE1": mode.size[0], "SUBSIZE2": mode.size[1],
    }  # fmt: skip
    kind = Kind.SUPERSTRIPE if mode.stripes["SSTR_NST"] else Kind.RAMP
    science = exposure((*mode.corner, *mode.size), kind=kind, **header)
    cutout = cut(mask(FULL, (1, 1, 2048, 2048)), science)
    assert np.array_equal(cutout, striped(FULL, header))


@given(data=st.data())
def test_random_stripe_readout_gathers_the_rows_that_were_read(data: st.DataObject) -> None:
    draw = data.draw
    slow = draw(st.sampled_from([1, -1, 2, -2]))
    reads1, reads2, blocks = (
        draw(st.integers(0, 4)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 4)),
    )
    size, start = (reads1 + reads2) * blocks, draw(st.integers(2, 900))
    fast_start, fast_size = draw(st.integers(1, 100)), draw(st.integers(1, 20))
    corner = (fast_start, start) if abs(slow) == 2 else (start, fast_start)
    image = (fast_size, size) if abs(slow) == 2 else (size, fast_size)
    if slow < 0:
        corner = tuple(2049 - c if c == start else c for c in corner)
        assume(fast_start != start)
    count = draw(st.integers(0, 5))
    header = {
        "MSTR_RD1": reads1, "MSTR_SK1": draw(st.integers(0, 90)), "MSTR_RD2": reads2,
        "MSTR_SK2": draw(st.integers(0, 20)), "MSTR_RPT": 1,
        "MSTR_ILV": draw(st.integers(0, 1)) if count == 0 else 0,
        "SSTR_STP": draw(st.integers(1, 30)) if count else 0, "SSTR_NST": count,
        "FASTAXIS": draw(st.sampled_from([1, -1])) * (3 - abs(slow)), "SLOWAXIS": slow,
        "SUBARRAY": "SUB640", "SUBSTRT1": corner[0], "SUBSTRT2": corner[1],
        "SUBSIZE1": image[0], "SUBSIZE2": image[1],
    }  # fmt: skip
    kind = Kind.SUPERSTRIPE if count else Kind.RAMP
    science = exposure((*corner, *image), kind=kind, **header)
    assert np.array_equal(cut(mask(FULL, (1, 1, 2048, 2048)), science), striped(FULL, header))


def test_mask_without_keywords_is_used_whole_on_the_fast_axis() -> None:
    science = exposure(DHS, **STRIPES)
    assert np.array_equal(
        cut(mask(FULL, None), science), cut(mask(FULL, (1, 1, 2048, 2048)), science)
    )


@pytest.mark.parametrize(
    ("name", "start", "first"), [("X_DHS", 2008, 0), ("SUB640", 1, 0), ("SUB640", 2046, 2)]
)
def test_mislabelled_slow_start_means_detector_row_0(
    name: str, start: int, first: int, caplog: pytest.LogCaptureFixture
) -> None:
    header = {**STRIPES, "SLOWAXIS": -2, "SUBARRAY": name}
    readout = StripeReadout.from_keywords(Keywords(fits.Header(header), "x.fits"))
    with caplog.at_level(logging.WARNING):
        rows = next(readout.rows(Subarray(1, start, 2048, 164), 2048))
    assert 2047 - rows[-1] == first
    assert bool(caplog.records) == (first == 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *[({key: None}, f"{key} is missing") for key in ("MSTR_SK1", "MSTR_RD2", "MSTR_SK2", "MSTR_RPT",
                                                         "FASTAXIS", "SLOWAXIS", "SSTR_NST")],
        ({"SSTR_NST": -3}, "SSTR_NST is -3"),
        ({"MSTR_RD2": 0}, "a stripe reads blocks of 0 rows, expected at least 1"),
        ({"MSTR_RD2": 41}, "read 168 rows, expected 164"),
        ({"MSTR_SK1": 2000}, r"reads rows 2001 to 2040|rows 2126 to 2165 .*rows of the mask, 0 to 2047"),
        ({"MSTR_SK1": -5}, "reads rows -4 to 35"),
        ({"SLOWAXIS": 1}, "FASTAXIS=-1 and SLOWAXIS=1"),
        ({"FASTAXIS": 3}, "FASTAXIS=3 and SLOWAXIS=2"),
    ],
)  # fmt: skip
def test_missing_or_contradictory_stripe_keywords_are_rejected(
    changes: dict[str, Any], message: str
) -> None:
    header = {k: v for k, v in (STRIPES | changes).items() if v is not None}
    with pytest.raises(InputRejected, match=message):
        cut(mask(FULL, (1, 1, 2048, 2048)), exposure(DHS, **header))


def test_missing_mstr_ilv_means_no_interleaving() -> None:
    without = {k: v for k, v in STRIPES.items() if k != "MSTR_ILV"}
    reference = mask(FULL, (1, 1, 2048, 2048))
    assert np.array_equal(
        cut(reference, exposure(DHS, **without)),
        cut(reference, exposure(DHS, **(without | {"MSTR_ILV": 0}))),
    )


def test_stripes_outside_the_mask_on_the_fast_axis_are_rejected() -> None:
    with pytest.raises(InputRejected, match=r"pixels 1 to 2048 along the fast axis, .* 2 to 2049"):
        cut(mask(FULL, (2, 1, 2048, 2048)), exposure(DHS, **STRIPES))


def test_crafted_skip_is_rejected_at_the_first_block() -> None:
    # Counting all rows first would take minutes and gigabytes.
    header = {
        "MSTR_RD1": 1, "MSTR_SK1": 10**9, "MSTR_RD2": 1, "MSTR_SK2": 0, "MSTR_RPT": 0,
        "SSTR_NST": 0, "FASTAXIS": 1, "SLOWAXIS": 2,
    }  # fmt: skip
    readout = StripeReadout.from_keywords(Keywords(fits.Header(header), "x.fits"))
    with pytest.raises(InputRejected, match="reads rows 1000000001 to 1000000001"):
        list(readout.rows(Subarray(1, 1, 2048, 10**9), 2048))


@pytest.mark.parametrize("stripes", [1, 2])
def test_guider_with_superstripes_is_rejected(stripes: int) -> None:
    keywords = {
        "MSTR_RD1": 0, "MSTR_SK1": 0, "MSTR_RD2": 8, "MSTR_SK2": 0, "MSTR_RPT": 0, "MSTR_ILV": 0,
        "SSTR_STP": 8, "SSTR_NST": stripes, "FASTAXIS": 1, "SLOWAXIS": 2,
    }  # fmt: skip
    guider = exposure((1, 1, 8, 8), kind=Kind.GUIDER, **keywords)
    with pytest.raises(InputRejected, match="a guider exposure with"):
        cut(mask(FULL, (1, 1, 2048, 2048)), guider)


def test_backward_stripes_that_leave_the_detector_are_rejected() -> None:
    header = {**STRIPES, "SLOWAXIS": -2, "SUBARRAY": "SUB640"}
    readout = StripeReadout.from_keywords(Keywords(fits.Header(header), "x.fits"))
    assert readout is not None
    with pytest.raises(InputRejected, match=r"reads rows .* expected rows of the mask, 0 to 2047"):
        list(readout.rows(Subarray(1, 2, 2048, 164), 2048))


@pytest.mark.parametrize(
    ("instrument", "detector", "is_other"),
    [
        ("NIRCAM", "NRCA1", False),
        *(("", "NRCA1", False), ("NIRCAM", "", False), ("", "", False)),
        *(("MIRI", "", True), ("", "NRCA2", True)),
    ],
)
def test_keyword_that_a_mask_lacks_gives_no_warning(
    instrument: str, detector: str, is_other: bool
) -> None:
    named = replace(mask(SMALL, None), instrument=instrument, detector=detector)
    science = exposure((1, 1, 60, 40), INSTRUME="NIRCAM", DETECTOR="NRCA1")
    warning = detector_mismatch(named, science)
    assert (warning is not None) == is_other


def test_mask_of_3200_declared_rows_is_used_whole() -> None:
    # Only a declared size of 2048 rows stands for 3200.
    declared = mask(IRS2, (1, 1, 2048, 3200), "NIRSPEC")
    science = exposure((1, 1, 2048, 3200))
    assert np.array_equal(cut(declared, science), IRS2)
    with pytest.raises(InputRejected, match="expected the size of the images in SCI: 2048 x 3200"):
        cut(declared, exposure((1, 1, 2048, 2048), (3200, 2048)))


def test_window_beyond_the_declared_mask_is_rejected() -> None:
    with pytest.raises(InputRejected, match="columns 20 to 50 of 40, rows 0 to 8 of 30"):
        cut(mask(SMALL, (1, 1, 40, 30)), exposure((21, 1, 30, 8)))


def test_backward_stripes_from_row_2_start_there() -> None:
    header = {**STRIPES, "SLOWAXIS": -2, "SUBARRAY": "SUB640"}
    header |= {"MSTR_RD1": 0, "MSTR_SK1": 0, "MSTR_RD2": 2, "MSTR_RPT": 0}
    readout = StripeReadout.from_keywords(Keywords(fits.Header(header), "x.fits"))
    assert next(readout.rows(Subarray(1, 2, 2048, 2), 2048)).tolist() == [0, 1]


def test_guider_exposure_in_superstripes_is_rejected() -> None:
    header = {**STRIPES, "SSTR_NST": 2, "SSTR_STP": 1, "MSTR_ILV": 0}
    science = exposure(DHS, kind=Kind.GUIDER, **header)
    with pytest.raises(InputRejected, match=r"x\.fits: a guider exposure with MSTR_RD1=1"):
        cut(mask(FULL, (1, 1, 2048, 2048)), science)


def test_more_superstripes_than_rows_are_rejected() -> None:
    # A file of 4 MB with four million superstripes of one pixel took 1.5 GB.
    header = {**STRIPES, "SSTR_NST": 2049, "SSTR_STP": 0}
    science = exposure((1, 1, 1, 1), kind=Kind.SUPERSTRIPE, **header)
    with pytest.raises(InputRejected, match="SSTR_NST is 2049, expected 0 to 2048"):
        cut(mask(FULL, (1, 1, 2048, 2048)), science)
