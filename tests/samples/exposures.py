"""Raw exposures (`_uncal`) of every mode, with the HDUs and keywords of real ones."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from infra.demo.samples import Mode, asdf_hdu, primary_header, ramps, sample_name

__all__ = ["asdf_hdu", "int_times", "primary_header", "sample_name", "write_exposure"]

_INT_TIMES = np.dtype(
    [("integration_number", ">i4")]
    + [
        (f"int_{moment}_{scale}", ">f8")
        for scale in ("MJD_UTC", "BJD_TDB")
        for moment in ("start", "mid", "end")
    ]
)
_FLIGHT_STARS = np.dtype(
    [("reference_star_id", "S2"), ("id_x", ">f8"), ("id_y", ">f8"), ("count_rate", ">f8")]
)


def write_exposure(mode: Mode, path: Path, seed: int = 0) -> None:
    """Write a raw exposure with random ramps."""
    rng = np.random.default_rng([seed, *mode.name.encode()])
    sci = ramps(rng, mode.shape)
    hdus = [fits.PrimaryHDU(header=primary_header(mode)), fits.ImageHDU(sci, name="SCI")]
    hdus[1].header["BUNIT"] = ("DN", "physical units of the array values")
    if mode.zeroframe:
        hdus.append(fits.ImageHDU(sci[:, 0] // 2, name="ZEROFRAME"))
    if mode.refout:
        hdus.append(fits.ImageHDU(sci[..., ::4].copy(), name="REFOUT"))
    if mode.instrument == "FGS":
        stars = np.array([(b"1", 1.0, 2.0, 3.0)], dtype=_FLIGHT_STARS)
        hdus.append(fits.BinTableHDU(stars, name="Flight Reference Stars"))
    else:
        hdus.append(fits.BinTableHDU(int_times(mode.shape[0]), name="INT_TIMES"))
    hdus.append(asdf_hdu())
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path, overwrite=True)


def int_times(integrations: int) -> NDArray[np.void]:
    """Return an INT_TIMES table."""
    table = np.zeros(integrations, dtype=_INT_TIMES)
    table["integration_number"] = np.arange(1, integrations + 1)
    for column in (_INT_TIMES.names or ())[1:]:
        table[column] = 60_000 + np.arange(integrations) / 1e3
    return table
