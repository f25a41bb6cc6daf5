"""Raw exposures (`_uncal`) of every mode, with the HDUs and keywords of real ones."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from infra.demo.samples.modes import Mode

_INT_TIMES = np.dtype(
    [("integration_number", ">i4")]
    + [
        (f"int_{moment}_{scale}", ">f8")
        for scale in ("MJD_UTC", "BJD_TDB")
        for moment in ("start", "mid", "end")
    ]
)
# Every raw file ends with its metadata as an ASDF document; jwst's steps reject one without.
_ASDF = b"""#ASDF 1.0.0
#ASDF_STANDARD 1.5.0
%YAML 1.1
%TAG ! tag:stsci.edu:asdf/
--- !core/asdf-1.1.0
meta: {model_type: Level1bModel, telescope: JWST}
...
"""
_FLIGHT_STARS = np.dtype(
    [("reference_star_id", "S2"), ("id_x", ">f8"), ("id_y", ">f8"), ("count_rate", ">f8")]
)
_WINDOW = ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2", "FASTAXIS", "SLOWAXIS")


def sample_name(mode: Mode, number: int = 1) -> str:
    """Return a file name as in the archive."""
    return f"jw09999001{number:03d}_02101_00001_{mode.detector.lower()}-{mode.name}_uncal.fits"


def primary_header(mode: Mode) -> fits.Header:
    """Return the primary header of an exposure of a mode."""
    header = fits.PrimaryHDU().header
    header["DATE"], header["FILENAME"] = "2023-03-02T00:00:00.000", sample_name(mode)
    header["DATAMODL"], header["TELESCOP"] = "Level1bModel", "JWST"
    window = dict(zip(_WINDOW, (*mode.corner, *mode.size, *mode.axes), strict=True))
    sections: dict[str, dict[str, str | int | bool]] = {
        "Observation identifiers": {"DATE-OBS": "2023-03-01", "TIME-OBS": "12:34:56.789"},
        "Instrument configuration information": {
            "INSTRUME": mode.instrument,
            "DETECTOR": mode.detector,
        },
        "Exposure parameters": {
            "EXP_TYPE": mode.exposure_type,
            "READPATT": mode.readout_pattern,
            "NINTS": mode.shape[0],
            "NGROUPS": mode.shape[1],
            "NFRAMES": 1,
            "GROUPGAP": 0,
            "ZEROFRAM": mode.zeroframe,
        },
        "Subarray parameters": {"SUBARRAY": mode.subarray, **window, **mode.stripes},
    }
    for title, cards in sections.items():
        for card in (("", ""), ("", title), ("", ""), *cards.items()):
            header.append(card, end=True)
    return header


def write_exposure(mode: Mode, path: Path, seed: int = 0) -> None:
    """Write a raw exposure with random ramps."""
    rng = np.random.default_rng([seed, *mode.name.encode()])
    sci = _ramps(rng, mode.shape)
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


def asdf_hdu() -> fits.BinTableHDU:
    """Return an ASDF extension as in real raw files."""
    document = np.frombuffer(_ASDF, dtype=np.uint8)[None, :]
    column = fits.Column("ASDF_METADATA", format=f"{len(_ASDF)}B", array=document)
    return fits.BinTableHDU.from_columns([column], name="ASDF")


def _ramps(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> NDArray[np.uint16]:
    """Return a pedestal, a slope per pixel and some noise, in detector counts."""
    _, ngroups, ny, nx = shape
    slope = rng.integers(1, 50, size=(ny, nx), dtype=np.uint16)
    groups = np.arange(ngroups, dtype=np.uint16)[:, None, None]
    noise = rng.integers(0, 30, size=shape, dtype=np.uint16)
    return np.uint16(10_000) + noise + groups * slope


def int_times(integrations: int) -> NDArray[np.void]:
    """Return an INT_TIMES table."""
    table = np.zeros(integrations, dtype=_INT_TIMES)
    table["integration_number"] = np.arange(1, integrations + 1)
    for column in (_INT_TIMES.names or ())[1:]:
        table[column] = 60_000 + np.arange(integrations) / 1e3
    return table
