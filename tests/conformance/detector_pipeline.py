"""Compare Detector1Pipeline of jwst from the raw exposure and from the product.

The product is used as in docs/how-to/use-products.md: with dq_init skipped, or run again.

Run by jwst's own interpreter, as a part of with_jwst.py. The steps that follow take references that
are made here, of the exposure's own readout or, for stripes, of the whole detector. The mask is the
one that CRDS's rules choose.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from jwst.pipeline import Detector1Pipeline
from metadata import metadata_differences  # beside this file
from stdatamodels.jwst import datamodels

_NOT_MADE = (
    "ipc", "refpix", "sirskernel", "reset", "rscd", "emicorr", "trapdensity", "trappars", "persat",
)  # fmt: skip
"""References without which steps run or are skipped."""
_GROUPS = 6
"""Number of groups of the dark; the exposures have at most as many."""
_COMPARED = ("data", "err", "dq", "var_poisson", "var_rnoise")
_ITS_OWN = ("cal_step.dq_init", "cal_logs")
"""Metadata in which rate images may differ: the status of the step and its log."""


class _Area(NamedTuple):
    """The subarray of a reference, as in its header."""

    xstart: int
    ystart: int
    xsize: int
    ysize: int

    @property
    def image(self) -> tuple[int, int]:
        """The shape of its pixels."""
        return self.ysize, self.xsize


def rate_differences(case: Path, exempt: tuple[str, ...]) -> list[str]:
    """Compare the rate images of one case except for some metadata; return the differences."""
    references, exempt = references_of(case), (*exempt, *_ITS_OWN)
    theirs = _rates(case / "exposure_uncal.fits", references, {})
    found = []
    for dq_init, how in (({"skip": True}, "skipped"), ({}, "run again")):
        ours = _rates(case / "native.fits", references, dq_init)
        for name, one, other in zip(("rate", "rateints"), ours, theirs, strict=True):
            differences = _differences(one, other, exempt)
            found += [f"{name} with dq_init {how}, {what}" for what in differences]
    return found


def _differences(ours: Any, theirs: Any, exempt: tuple[str, ...]) -> list[str]:
    if ours is None or theirs is None:
        return [] if ours is theirs else ["made from one of them only"]
    found = [
        name
        for name in _COMPARED
        if not np.array_equal(getattr(ours, name), getattr(theirs, name), equal_nan=True)
    ]
    if not np.isfinite(theirs.data).any() or not (theirs.dq & 1).any():
        found.append("nothing to compare: no slope, or no flag")
    return found + metadata_differences(ours, theirs, exempt)


def _rates(path: Path, references: dict[str, str], dq_init: dict[str, Any]) -> tuple[Any, Any]:
    """Run the pipeline; return the rate image and, for several integrations, those of each."""
    made: list[Any] = []
    pipeline = Detector1Pipeline()
    pipeline.save_model = lambda model, *a, **k: made.append(model)
    pipeline.get_config_from_reference = lambda *a, **k: {}
    for name, value in dq_init.items():
        setattr(pipeline.dq_init, name, value)
    named = dict.fromkeys(_NOT_MADE, "N/A") | references
    for step in (getattr(pipeline, name) for name in pipeline.step_defs):
        for kind in named.keys() & step.reference_file_types:
            setattr(step, f"override_{kind}", named[kind])
    rate = pipeline.run(str(path))
    return rate, (made[0] if made else None)


def references_of(case: Path) -> dict[str, str]:
    """Write the references of the steps; return paths by type."""
    header = fits.getheader(case / "exposure_uncal.fits")
    own = _Area(*(header[name] for name in ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")))
    if header.get("SSTR_NST"):
        # The stripes of a superstripe are joined along NIRISS's x axis before the dark.
        own = own._replace(xstart=1, xsize=2048)
    whole = _Area(1, 1, 2048, 2048) if "MSTR_RD1" in header else own
    paths = {}
    for area, models in (
        (own, _of_the_readout(own.image, header["INSTRUME"] == "MIRI")),
        (whole, _of_the_detector(whole.image)),
    ):
        for kind, model in models.items():
            model.meta.instrument.name = header["INSTRUME"]
            for name, value in area._asdict().items():
                setattr(model.meta.subarray, name, value)
            model.meta.subarray.fastaxis = header["FASTAXIS"]
            model.meta.subarray.slowaxis = header["SLOWAXIS"]
            paths[kind] = str(case / f"{kind}.fits")
            model.save(paths[kind])
    return paths


def _of_the_readout(image: tuple[int, int], is_miri: bool) -> dict[str, Any]:
    """Return references that CRDS has per subarray, including stripes."""
    rng, integrations = np.random.default_rng(1), (1,) if is_miri else ()
    shape = (*integrations, _GROUPS, *image)
    charge = np.cumsum(rng.normal(0.1, 0.01, shape), axis=-3).astype(np.float32)
    flags = np.broadcast_to(_some(rng, image, 0), (1, 1, *image) if is_miri else image)
    dark = (datamodels.DarkMIRIModel if is_miri else datamodels.DarkModel)(
        data=charge, dq=flags.copy()
    )
    dark.meta.exposure.nframes, dark.meta.exposure.groupgap = 1, 0
    return {"dark": dark}


def _of_the_detector(image: tuple[int, int]) -> dict[str, Any]:
    """Return references that are cut to the readout."""
    rng = np.random.default_rng(2)

    def values(mean: float, spread: float) -> Any:
        return rng.normal(mean, spread, image).astype(np.float32)

    linear = np.stack([np.zeros(image, np.float32), np.ones(image, np.float32), values(1e-7, 1e-8)])
    return {
        "saturation": datamodels.SaturationModel(
            data=values(55_000, 2000), dq=_some(rng, image, 1)
        ),
        "superbias": datamodels.SuperBiasModel(
            data=values(1000, 20), err=values(5, 0.1), dq=_some(rng, image, 3)
        ),
        "linearity": datamodels.LinearityModel(coeffs=linear, dq=_some(rng, image, 20)),
        "gain": datamodels.GainModel(data=values(1.8, 0.05)),
        "readnoise": datamodels.ReadnoiseModel(data=values(12, 1)),
    }


def _some(rng: np.random.Generator, image: tuple[int, int], bit: int) -> Any:
    """Return an image with a flag on 1 % of the pixels."""
    return (rng.random(image) < 0.01).astype(np.uint32) << bit
