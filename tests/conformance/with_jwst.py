"""Commands for comparison, run by jwst's own interpreter.

Usage: with_jwst.py apertures | build | models | keywords | suffixes | run FOLDER | compare FOLDER | choose FILE
"""

import json
import logging
import signal
import sys
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

EXEMPT_KEYWORDS = {
    "DATE": "when the file was written",
    "FILENAME": "jwst names its product after the step",
    "CAL_VER": "jwst's own version, which is not ours to claim",
    "CAL_VCS": "the same",
    "CRDS_VER": "the version of the crds package in each environment",
    "HISTORY": "names this software",
}
EXEMPT_CHECKSUMS = {
    "CHECKSUM": "jwst keeps the input's, which are wrong for its product",
    "DATASUM": "the same",
}
EXEMPT_WITH_OWN_MASK = {"R_MASK": "a path there, an S3 address here"}
EXEMPT_HDUS = {"ASDF": "jwst writes the headers into it once more; the product keeps the input's"}
EXEMPT_METADATA = ("date", "filename", "calibration_software_", "ref_file.crds.sw_version")
_SECONDS = 300
"""Timeout of one case; jwst 2.0 never ends on superstripes that read no second rows."""


def cases(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/case.json"))


def apertures() -> None:
    """Print [instrument, detector, aperture, xstart, ystart, xsize, ysize] of every subarray."""
    import numpy as np
    import pysiaf

    fulls = {"NIRCam": "{}_FULL", "NIRISS": "NIS_CEN", "MIRI": "MIRIM_FULL", "FGS": "{}_FULL"}
    rows: list[tuple[Any, ...]] = []
    for instrument, full_name in fulls.items():
        siaf, seen = pysiaf.Siaf(instrument), set()
        for name, aperture in siaf.apertures.items():
            detector = name.split("_")[0]
            full = siaf.apertures.get(full_name.format(detector))
            if (
                aperture.AperType not in {"SUBARRAY", "FULLSCA"}
                or full is None
                or aperture.XDetRef is None
            ):
                continue
            edges = (np.array([0.5, size + 0.5]) for size in (aperture.XSciSize, aperture.YSciSize))
            x, y = full.det_to_sci(*aperture.sci_to_det(*edges))
            area = (
                round(min(x) + 0.5),
                round(min(y) + 0.5),
                round(abs(x[1] - x[0])),
                round(abs(y[1] - y[0])),
            )
            inside = (
                area[0] + area[2] - 1 <= full.XSciSize and area[1] + area[3] - 1 <= full.YSciSize
            )
            if min(area) >= 1 and inside and (detector, area) not in seen:
                seen.add((detector, area))
                rows.append((instrument, detector, name, *area))
    print(json.dumps(rows))


def run(folder: Path) -> None:
    """Write jwst's product of every case, or its error; write digests to ``jwst.json``.

    The step of jwst 3.0.0 looks the type of the data model up in the ASDF extension. An exposure
    without one is opened as that data model first.
    """
    from astropy.io import fits
    from digests import digests  # beside this file
    from jwst.dq_init import DQInitStep
    from stdatamodels.jwst import datamodels

    # Without this, every call asks the CRDS server for parameters of the step.
    DQInitStep.get_config_from_reference = classmethod(lambda cls, *a, **k: {})

    def step_of(case: Path, by: str) -> Any:
        user = case / "user_dq.fits"
        step = DQInitStep()
        if by != "rules":
            step.override_mask = str(case / "mask.fits") if by == "mask" else "N/A"
        if user.exists():
            if not hasattr(step, "user_supplied_dq"):
                raise NotImplementedError("this release has no parameter user_supplied_dq")
            step.user_supplied_dq = str(user)
        return step

    def as_model(path: Path) -> Any:
        with datamodels.open(path) as model:
            kind = DQInitStep()._ramp_type(model)
        return kind(path)

    def time_out(*_: Any) -> None:
        raise TimeoutError(f"no product after {_SECONDS} s")

    signal.signal(signal.SIGALRM, time_out)
    for case in cases(folder):
        by = json.loads((case / "case.json").read_text())["by"]
        exposure = case / "exposure_uncal.fits"
        signal.alarm(_SECONDS)
        try:
            has_asdf = "ASDF" in {hdu[1] for hdu in fits.info(exposure, output=False)}
            by_name = has_asdf or not hasattr(DQInitStep, "_ramp_type")
            result = step_of(case, by).run(str(exposure) if by_name else as_model(exposure))
            result.save(str(case / "jwst.fits"))
            result.close()
        except Exception as exc:
            refusal = f"{type(exc).__name__}: {exc}"
            (case / "jwst.refused").write_text(refusal)
            (case / "jwst.json").write_text(json.dumps({"refused": refusal[:200]}))
            continue
        finally:
            signal.alarm(0)
        exempt = frozenset({*EXEMPT_KEYWORDS, *(EXEMPT_WITH_OWN_MASK if by == "mask" else ())})
        made = digests(case / "jwst.fits", exempt)
        (case / "jwst.json").write_text(json.dumps({"product": made}))


def compare(folder: Path) -> None:
    """Write the differences of every case's products into ``differences.json``."""
    from detector_pipeline import rate_differences  # beside this file

    for case in cases(folder):
        if not (case / "jwst.fits").exists() or not (case / "float32.fits").exists():
            continue
        details = json.loads((case / "case.json").read_text())
        by, made_of = details["by"], details["extras"]
        comparisons = {
            "float32 file": partial(file_differences, case, by == "mask"),
            "native data model": partial(model_differences, case, by == "mask"),
        }
        if by == "rules":
            comparisons["next steps"] = partial(step_differences, case)
        if "ramp" in made_of:
            comparisons["rate images"] = partial(rate_differences, case, EXEMPT_METADATA)
        differences = {}
        for what, found in comparisons.items():
            try:
                differences[what] = found()
            except Exception as exc:  # what another release does not open
                differences[what] = [f"{type(exc).__name__}: {exc}"]
        (case / "differences.json").write_text(json.dumps(differences))


def file_differences(case: Path, own_mask: bool) -> list[str]:
    """Return the differences by FITSDiff of the float32 product, without the exemptions."""
    from astropy.io import fits

    keywords = [*EXEMPT_KEYWORDS, *(EXEMPT_WITH_OWN_MASK if own_mask else ())]
    with fits.open(case / "float32.fits") as ours, fits.open(case / "jwst.fits") as theirs:
        for hdus in (ours, theirs):
            for keyword in keywords:
                hdus[0].header.remove(keyword, ignore_missing=True, remove_all=True)
            for name in EXEMPT_HDUS:
                if name in hdus:
                    del hdus[name]
            for hdu in hdus:
                for keyword in EXEMPT_CHECKSUMS:
                    hdu.header.remove(keyword, ignore_missing=True)
        # jwst writes its schema's comments; the product keeps those of the input.
        diff = fits.FITSDiff(ours, theirs, ignore_comments=["*"])
        return [] if diff.identical else _listed(ours, theirs)


def _listed(ours: Any, theirs: Any) -> list[str]:
    """Return the differences of two files HDU by HDU, each as ``what: detail``."""
    from astropy.io import fits

    names = [[hdu.name for hdu in hdus] for hdus in (ours, theirs)]
    found = [f"HDU {name}: only here" for name in names[0] if name not in names[1]]
    found += [f"HDU {name}: only in jwst's" for name in names[1] if name not in names[0]]
    for name in (name for name in names[0] if name in names[1]):
        diff = fits.HDUDiff(ours[name], theirs[name], ignore_comments=["*"])
        cards = diff.diff_headers
        only_ours, only_theirs = cards.diff_keywords or ((), ())
        found += [f"{name} {keyword}: only here" for keyword in only_ours]
        found += [f"{name} {keyword}: only in jwst's" for keyword in only_theirs]
        for keyword, values in cards.diff_keyword_values.items():
            card = keyword or "titles between cards"
            found += [f"{name} {card}: {a!r} is not {b!r}" for a, b in filter(None, values)]
        if diff.diff_data is not None and not diff.diff_data.identical:
            found.append(f"{name} pixels: {diff.diff_data.report().splitlines()[-1].strip()}")
    return found or [f"order of HDUs: {names[0]} are not {names[1]}"]


def model_differences(case: Path, own_mask: bool) -> list[str]:
    """Return the arrays and metadata in which the native product's data model differs."""
    import numpy as np
    from metadata import metadata_differences  # beside this file
    from stdatamodels.jwst import datamodels

    found = []
    with (
        datamodels.open(case / "native.fits") as ours,
        datamodels.open(case / "jwst.fits") as theirs,
    ):
        if type(ours) is not type(theirs):
            found.append(f"class: {type(ours).__name__} is not {type(theirs).__name__}")
        for name in ("data", "pixeldq", "groupdq", "dq", "err", "zeroframe", "refout", "int_times"):
            a, b = getattr(ours, name, None), getattr(theirs, name, None)
            if (a is None) != (b is None) or (a is not None and not np.array_equal(a, b)):
                found.append(name)
        exempt = (*EXEMPT_METADATA, *(("ref_file.mask",) if own_mask else ()))
        return found + metadata_differences(ours, theirs, exempt)


def step_differences(case: Path) -> list[str]:
    """Return the differences after the next steps of jwst on both products."""
    import numpy as np
    from jwst.group_scale import GroupScaleStep
    from jwst.guider_cds import GuiderCdsStep
    from jwst.refpix import RefPixStep
    from stdatamodels.jwst import datamodels

    guider = json.loads((case / "case.json").read_text())["header"]["EXP_TYPE"].startswith(
        ("FGS_ID", "FGS_ACQ", "FGS_TR", "FGS_FI")
    )
    steps = (
        [(GuiderCdsStep, ("gain", "readnoise"))]
        if guider
        else [(GroupScaleStep, ()), (RefPixStep, ("refpix",))]
    )
    found = []
    for kind, references in steps:
        kind.get_config_from_reference = classmethod(lambda cls, *a, **k: {})
        outcomes = []
        for name in ("native.fits", "jwst.fits"):
            step = kind()
            for reference in references:
                setattr(step, f"override_{reference}", guider_reference(case.parent, reference))
            with datamodels.open(case / name) as model:
                try:
                    outcomes.append(step.run(model))
                except Exception as exc:
                    outcomes.append(f"{type(exc).__name__}: {exc}")
        a, b = outcomes
        if isinstance(a, str) or isinstance(b, str):
            found.append(f"{kind.__name__} after ours: {a}, after jwst's: {b}")
            continue
        for name in ("data", "pixeldq", "groupdq", "dq", "err"):
            x, y = getattr(a, name, None), getattr(b, name, None)
            if (x is None) != (y is None) or (
                x is not None and not np.array_equal(x, y, equal_nan=True)
            ):
                found.append(f"{kind.__name__} {name}")
    return found


def guider_reference(folder: Path, kind: str) -> str:
    """Write a gain or readnoise reference for guider_cds; refpix needs none."""
    import numpy as np
    from stdatamodels.jwst import datamodels

    if kind == "refpix":
        return "N/A"
    path = folder / f"{kind}.fits"
    if not path.exists():
        model = {"gain": datamodels.GainModel, "readnoise": datamodels.ReadnoiseModel}[kind]
        with model(data=np.full((2048, 2304), 1.5, np.float32)) as made:
            made.meta.instrument.name = "FGS"
            made.meta.subarray.xstart = made.meta.subarray.ystart = 1
            made.meta.subarray.xsize, made.meta.subarray.ysize = 2304, 2048
            made.save(str(path))
    return str(path)


def models() -> None:
    """Print the arrays and tables of the schemas: {model: {EXTNAME: axes or column names}}."""
    from stdatamodels import schema
    from stdatamodels.jwst import datamodels

    found: dict[str, dict[str, int | list[str]]] = {}
    for name in ("RampModel", "SuperstripeRampModel", "GuiderRawModel"):
        asked = found.setdefault(name, {})

        def look(part: Any, *_: Any, asked: dict[str, int | list[str]] = asked) -> None:
            hdu, types = str(part.get("fits_hdu", "")).upper(), part.get("datatype")
            if hdu and isinstance(types, list):
                asked[hdu] = [column["name"].upper() for column in types]
            elif hdu and "ndim" in part:
                asked[hdu] = part["ndim"]

        schema.walk_schema(getattr(datamodels, name)().schema, look)
    print(json.dumps(found))


def keywords() -> None:
    """Print {keyword: [type, words]} of every keyword of the primary header that has a type.

    `words` are those that the schema lists, empty if it lists none.
    """
    from stdatamodels import schema
    from stdatamodels.jwst import datamodels

    found: dict[str, list[Any]] = {}

    def look(part: Any, *_: Any) -> None:
        keyword = part.get("fits_keyword")
        if keyword and part.get("fits_hdu", "PRIMARY") == "PRIMARY" and "type" in part:
            listed = [part, *part.get("anyOf", ())]
            words = {word for choice in listed for word in choice.get("enum", ())}
            found[keyword] = [part["type"], sorted(words) if part["type"] == "string" else []]

    schema.walk_schema(datamodels.RampModel().schema, look)
    print(json.dumps(found))


def suffixes() -> None:
    """Print the suffixes of file names that a step of jwst replaces with its own."""
    from jwst.lib.suffix import KNOW_SUFFIXES

    print(json.dumps(KNOW_SUFFIXES))


def choose(path: Path) -> None:
    """Print the mask that crds selects for each header."""
    import crds

    answers = []
    for question in json.loads(path.read_text()):
        try:
            chosen = crds.getrecommendations(
                question["header"], ["mask"], context=question["context"], observatory="jwst"
            )
            answers.append(chosen.get("mask", "N/A"))
        except Exception as exc:
            answers.append(f"NOT FOUND {exc}")
    path.with_suffix(".answers").write_text(json.dumps(answers))


def build() -> None:
    """Print the context that crds uses if none is named."""
    from crds.client import api

    print(json.dumps(api.get_default_context("jwst")))


if __name__ == "__main__":
    if sys.argv[1] in {"apertures", "build", "models", "suffixes", "keywords"}:
        {
            "apertures": apertures,
            "build": build,
            "models": models,
            "suffixes": suffixes,
            "keywords": keywords,
        }[sys.argv[1]]()
    elif sys.argv[1] == "versions":
        print(
            ", ".join(
                f"{name} {version(name)}"
                for name in ("jwst", "stdatamodels", "astropy", "numpy", "crds")
            )
        )
    else:
        {"run": run, "compare": compare, "choose": choose}[sys.argv[1]](Path(sys.argv[2]))
