"""Exposures, masks and rules of the demo, with the keywords and the structure of real ones."""

import hashlib
import pprint
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from crds.client import proxy
from crds.core import utils
from numpy.typing import NDArray

CONTEXT = "jwst_9001.pmap"

# Every raw file ends with its metadata as an ASDF document; jwst's steps reject one without.
_ASDF = b"""#ASDF 1.0.0
#ASDF_STANDARD 1.5.0
%YAML 1.1
%TAG ! tag:stsci.edu:asdf/
--- !core/asdf-1.1.0
meta: {model_type: Level1bModel, telescope: JWST}
...
"""
_WINDOW = ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2", "FASTAXIS", "SLOWAXIS")
_STRIPES = (
    *("MSTR_RD1", "MSTR_SK1", "MSTR_RD2", "MSTR_SK2"),
    *("MSTR_RPT", "MSTR_ILV", "SSTR_STP", "SSTR_NST"),
)
_USEAFTER = "2022-01-01 00:00:00"
_PARAMETERS = (
    ("META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME"),
    ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME"),
)


@dataclass(frozen=True)
class Mode:
    """A readout mode: the values of its keywords, and the shape of SCI."""

    name: str  # for tables and file names
    instrument: str
    detector: str
    exposure_type: str
    readout_pattern: str
    subarray: str
    corner: tuple[int, int]  # SUBSTRT1, SUBSTRT2
    size: tuple[int, int]  # SUBSIZE1, SUBSIZE2
    axes: tuple[int, int]  # FASTAXIS, SLOWAXIS
    shape: tuple[int, int, int, int]  # nints, ngroups, ny, nx
    stripes: dict[str, int] = field(default_factory=dict)  # MSTR_* and SSTR_*
    zeroframe: bool = False  # ZEROFRAM; the samples of the tests then have the extension ZEROFRAME
    refout: bool = False  # whether the samples of the tests have the extension REFOUT


def stripes(*values: int) -> dict[str, int]:
    """Return the stripe keywords with eight values, in the order of `_STRIPES`."""
    return dict(zip(_STRIPES, values, strict=True))


MODES: tuple[Mode, ...] = (
    Mode(
        "nircam-full", "NIRCAM", "NRCA1", "NRC_IMAGE", "RAPID", "FULL",
        (1, 1), (2048, 2048), (-1, 2), (1, 10, 2048, 2048),
    ),
    Mode(
        "nircam-sub64p", "NIRCAM", "NRCB1", "NRC_IMAGE", "RAPID", "SUB64P",
        (1851, 1817), (64, 64), (1, -2), (3, 5, 64, 64),
    ),
    Mode(
        "nircam-dhs", "NIRCAM", "NRCA1", "NRC_TSGRISM", "RAPID", "SUB164STRIPE4_DHS",
        (1, 1), (2048, 164), (-1, 2), (2, 4, 164, 2048), stripes(1, 1526, 40, 85, 1, 1, 0, 0),
    ),
    Mode(
        "niriss-superstripe", "NIRISS", "NIS", "NIS_SOSS", "NISRAPID", "SUB204STRIPE_SOSS",
        (2048, 1793), (208, 256), (-2, -1), (20, 3, 256, 208), stripes(4, 0, 204, 0, 1, 1, 204, 10),
    ),
    Mode(
        "nirspec-irs2", "NIRSPEC", "NRS1", "NRS_MSASPEC", "NRSIRS2RAPID", "FULL",
        (1, 1), (2048, 2048), (2, 1), (1, 1, 3200, 2048),
    ),
    Mode(
        "miri-brightsky", "MIRI", "MIRIMAGE", "MIR_IMAGE", "FASTR1", "BRIGHTSKY",
        (457, 51), (512, 512), (1, 2), (2, 6, 512, 512),
    ),
    Mode(
        "fgs1-acq1", "FGS", "GUIDER1", "FGS_ACQ1", "ACQ1", "128X128",
        (1018, 841), (128, 128), (-2, -1), (6, 2, 128, 128),
    ),
)  # fmt: skip
"""An exposure of every instrument and kind; the first one has a typical size, 92 MB."""

# Detectors and the shapes of their masks; NIRSpec's is of IRS2.
_MASKS = {
    "nircam": {"NRCA1": (2048, 2048), "NRCB1": (2048, 2048)},
    "niriss": {"NIS": (2048, 2048)},
    "nirspec": {"NRS1": (3200, 2048)},
    "miri": {"MIRIMAGE": (1024, 1032)},
    "fgs": {"GUIDER1": (2048, 2048)},
}


def sample_name(mode: Mode, number: int = 1) -> str:
    """Return the file name of an exposure: as at MAST, plus the mode; `number` is the visit."""
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


def asdf_hdu() -> fits.BinTableHDU:
    """Return an ASDF extension as in real raw files, but with a minimal document."""
    document = np.frombuffer(_ASDF, dtype=np.uint8)[None, :]
    column = fits.Column("ASDF_METADATA", format=f"{len(_ASDF)}B", array=document)
    return fits.BinTableHDU.from_columns([column], name="ASDF")


def ramps(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> NDArray[np.uint16]:
    """Return random ramps in counts: a pedestal plus a slope per pixel plus some noise."""
    _, ngroups, ny, nx = shape
    slope = rng.integers(1, 50, size=(ny, nx), dtype=np.uint16)
    groups = np.arange(ngroups, dtype=np.uint16)[:, None, None]
    noise = rng.integers(0, 30, size=shape, dtype=np.uint16)
    return np.uint16(10_000) + noise + groups * slope


def write_exposure(mode: Mode, path: Path) -> None:
    """Write a raw exposure of a mode; its random ramps are the same in every run."""
    sci = ramps(np.random.default_rng([*mode.name.encode()]), mode.shape)
    hdus = [fits.PrimaryHDU(header=primary_header(mode)), fits.ImageHDU(sci, name="SCI")]
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([*hdus, asdf_hdu()]).writeto(path)


def write_cache(root: Path) -> None:
    """Write a CRDS cache to `root`: `CONTEXT`, and a mask for each detector of `MODES`."""
    mappings, instruments = root / "mappings" / "jwst", {}
    for instrument, detectors in _MASKS.items():
        imap, rmap = f"jwst_{instrument}_9001.imap", f"jwst_{instrument}_mask_9001.rmap"
        rules = ""
        for number, (detector, shape) in enumerate(detectors.items(), 9001):
            name = f"jwst_{instrument}_mask_{number}.fits"
            _write_mask(root / "references" / "jwst" / instrument / name, detector, shape)
            after = f"UseAfter({{{_USEAFTER!r} : {name!r}}})"
            rules += f"    {(detector, 'GENERIC')!r} : {after},\n"
        header: dict[str, object] = {
            "mapping": "REFERENCE",
            "classes": ("Match", "UseAfter"),
            "filekind": "MASK",
            "instrument": instrument.upper(),
            "parkey": _PARAMETERS,
            "substitutions": {"META.SUBARRAY.NAME": {"GENERIC": "N/A"}},
        }
        write_mapping(mappings / rmap, header, f"Match({{\n{rules}}})")
        header = {"mapping": "INSTRUMENT", "instrument": instrument.upper(), "parkey": ("REFTYPE",)}
        write_mapping(mappings / imap, header, pprint.pformat({"MASK": rmap}))
        instruments[instrument.upper()] = imap
    header = {"mapping": "PIPELINE", "parkey": ("META.INSTRUMENT.NAME",)}
    write_mapping(mappings / CONTEXT, header, pprint.pformat(instruments))
    write_server_config(root)


def _write_mask(path: Path, detector: str, shape: tuple[int, int]) -> None:
    """Write a MASK file with one random flag in each of at most 2 % of the pixels."""
    rng, dq = np.random.default_rng([*path.name.encode()]), np.zeros(shape, np.uint32)
    pixels = rng.integers(dq.size, size=dq.size // 50)
    dq.flat[pixels] = np.uint32(1) << rng.integers(3, size=len(pixels), dtype="u4")
    primary = fits.PrimaryHDU()
    primary.header.update({"REFTYPE": "MASK", "TELESCOP": "JWST", "DETECTOR": detector})
    primary.header.update({"INSTRUME": path.parent.name.upper(), "SUBARRAY": "GENERIC"})
    # A mask of IRS2 has 3200 rows, and SUBSIZE2 counts those of the detector.
    window = (1, 1, shape[1], min(shape[0], 2048))
    primary.header.update(dict(zip(_WINDOW, window, strict=False)))
    rows = [(bit, 1 << bit, name, "") for bit, name in enumerate(("DO_NOT_USE", "DEAD", "HOT"))]
    # The columns that jwst needs to open a mask.
    columns = [("BIT", ">i4"), ("VALUE", ">i4"), ("NAME", "S40"), ("DESCRIPTION", "S80")]
    bits = np.array(rows, dtype=columns)
    hdus = [primary, fits.ImageHDU(dq, name="DQ"), fits.BinTableHDU(bits, name="DQ_DEF")]
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path)


def write_mapping(path: Path, header: Mapping[str, object], selector: str) -> None:
    """Write a CRDS mapping from its header and its selector, which is Python source text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    common = {"derived_from": "generated", "name": path.name, "observatory": "JWST"}
    lines = [
        f"    {key!r} : {value!r},\n" for key, value in sorted((common | dict(header)).items())
    ]
    # The SHA-1 of the text without the line of the signature.
    before, after = f"header = {{\n{''.join(lines)}", f"}}\n\nselector = {selector}\n"
    signature = f"    'sha1sum' : {utils.str_checksum(before + after)!r},\n"
    path.write_text(before + signature + after)


def write_server_config(
    root: Path, context: str = CONTEXT, bad_files: tuple[str, ...] = ()
) -> None:
    """Write ``config/jwst/server_config``, with a catalogue of all files in the cache."""
    files = [path for path in sorted(root.glob("*/jwst/**/*map")) if path.is_file()]
    files += sorted(root.glob("references/jwst/**/*.fits"))
    catalogue = {
        path.name: {
            "size": str(path.stat().st_size),
            "sha1sum": hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest(),
        }
        for path in files
    }
    config = {
        "bad_files_list": list(bad_files),
        "connected": True,
        "context_history": [[_USEAFTER, context, "Samples"]],
        "crds_version": {"str": "sample"},
        "download_metadata": proxy.crds_encode(catalogue),
        "edit_context": context,
        "force_remote_mode": 0,
        "last_synced": _USEAFTER,
        "mapping_url": {"jwst": "https://crds.invalid/mappings/jwst/"},
        "mappings": [path.name for path in files if path.suffix.endswith("map")],
        "observatory": "jwst",
        "operational_context": context,
        "reference_url": {"jwst": "https://crds.invalid/references/jwst/"},
        "status": "server",
        "versions_context": context,
    }
    path = root / "config" / "jwst" / "server_config"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pprint.pformat(config))
