"""What the jwst data models could not open is rejected; what they can open is not."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.datamodel import OPENED, check_opens
from core.errors import InputRejected
from core.images import locate_in
from core.kinds import Kind

ARRAYS = [(kind, name, n) for kind in Kind for name, n in OPENED[kind].items() if type(n) is int]
TABLES = [
    (kind, name, sorted(columns))
    for kind in Kind
    for name, columns in OPENED[kind].items()
    if isinstance(columns, frozenset)
]


def check(hdu: Any, kind: Kind = Kind.RAMP) -> None:
    buffer = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    check_opens(locate_in(buffer.getvalue(), "x.fits"), kind, "x.fits")


def table(name: str, columns: list[str]) -> fits.BinTableHDU:
    made = [fits.Column(column, "J", array=np.zeros(1, np.int32)) for column in columns]
    return fits.BinTableHDU.from_columns(made, name=name)


@pytest.mark.parametrize(("kind", "name", "axes"), ARRAYS)
def test_array_with_other_axes_is_rejected(kind: Kind, name: str, axes: int) -> None:
    check(fits.ImageHDU(np.ones((1,) * axes), name=name), kind)
    check(fits.ImageHDU(name=name), kind)
    for other in (axes - 1, axes + 1):
        with pytest.raises(InputRejected, match=f"{name} has {other} axes, expected {axes}"):
            check(fits.ImageHDU(np.ones((1,) * other), name=name), kind)
    with pytest.raises(InputRejected, match=f"{name} is a table, expected an image"):
        check(table(name, ["A"]), kind)


@pytest.mark.parametrize(("kind", "name", "columns"), TABLES)
def test_table_with_other_columns_is_rejected(kind: Kind, name: str, columns: list[str]) -> None:
    check(table(name, columns), kind)
    check(table(name, [column.lower() for column in columns[::-1]]), kind)
    with pytest.raises(InputRejected, match=f"{name} lacks {columns[-1]}, expected"):
        check(table(name, columns[:-1]), kind)
    with pytest.raises(InputRejected, match=f"{name} also has MORE, expected"):
        check(table(name, [*columns, "MORE"]), kind)
    with pytest.raises(InputRejected, match="is an image, expected a table"):
        check(fits.ImageHDU(np.ones((1, 1)), name=name), kind)


def test_ascii_table_is_accepted_as_jwst_does() -> None:
    names = OPENED[Kind.RAMP]["MSA_TARG_ACQ"]
    assert isinstance(names, frozenset)
    zeros = np.zeros(1, np.int32)
    columns = [fits.Column(name, "I10", array=zeros, ascii=True) for name in sorted(names)]
    check(fits.TableHDU.from_columns(columns, name="MSA_TARG_ACQ"))
    with pytest.raises(InputRejected, match=f"MSA_TARG_ACQ lacks {sorted(names)[0]}, expected"):
        check(fits.TableHDU.from_columns(columns[1:], name="MSA_TARG_ACQ"))


def test_table_of_another_kind_is_not_checked() -> None:
    check(table("Flight Reference Stars", ["A"]), Kind.RAMP)
    check(table("INT_TIMES", ["A"]), Kind.GUIDER)
