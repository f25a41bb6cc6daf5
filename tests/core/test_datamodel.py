"""What the jwst data models could not open is refused; what they can open is not."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.datamodel import check_opens
from core.errors import InputRejected
from core.images import locate_in
from core.kinds import Kind
from infra.demo.samples.exposures import int_times

STARS = [("reference_star_id", "S2"), ("id_x", ">f8"), ("id_y", ">f8"), ("count_rate", ">f8")]
TIMES = int_times(2)


def check(hdu: Any, kind: Kind = Kind.RAMP) -> None:
    buffer = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    check_opens(locate_in(buffer.getvalue(), "x.fits"), kind, "x.fits")


@pytest.mark.parametrize(("name", "axes"), [("ZEROFRAME", 3), ("REFOUT", 4)])
def test_axes(name: str, axes: int) -> None:
    check(fits.ImageHDU(np.ones((1,) * axes), name=name))
    check(fits.ImageHDU(name=name))
    for other in (axes - 1, axes + 1):
        with pytest.raises(InputRejected, match=f"{name} has {other} axes, expected {axes}"):
            check(fits.ImageHDU(np.ones((1,) * other), name=name))


def test_columns() -> None:
    names = list(TIMES.dtype.names)
    check(fits.BinTableHDU(TIMES, name="INT_TIMES"))
    check(fits.BinTableHDU(TIMES[names[::-1]].copy(), name="INT_TIMES"))
    with pytest.raises(InputRejected, match=r"lacks the columns \['INT_END_BJD_TDB'\]"):
        check(
            fits.BinTableHDU(
                np.array(TIMES[names[:-1]].tolist(), TIMES[names[:-1]].dtype.descr[:6]),
                name="INT_TIMES",
            )
        )


def test_columns_matter_for_the_tables_of_the_kind_only() -> None:
    few = fits.BinTableHDU(np.zeros(1, STARS[:2]), name="Flight Reference Stars")
    check(few, Kind.RAMP)
    check(fits.BinTableHDU(np.zeros(1, STARS), name="Flight Reference Stars"), Kind.GUIDER)
    with pytest.raises(InputRejected, match="FLIGHT REFERENCE STARS lacks the columns"):
        check(few, Kind.GUIDER)
