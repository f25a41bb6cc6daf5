"""The kinds of exposure, and checks that the `jwst` data models can open an exposure."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from core.errors import InputRejected
from core.fits.hdus import Hdu, Keywords, Reader, find_all

log = logging.getLogger(__name__)


class Kind(StrEnum):
    """The kind of an exposure, which decides the arrays and the data model of its product."""

    RAMP = "ramp"
    SUPERSTRIPE = "superstripe"
    GUIDER = "guider"


@dataclass(frozen=True)
class KindSpec:
    """The data model of products of one kind, and EXTNAMEs of arrays that they have."""

    data_model: str  # DATAMODL of the product
    image: str  # EXTNAME of the array that gets all flags of the mask: PIXELDQ or DQ
    adds: frozenset[str]  # EXTNAMEs of the HDUs that every product has directly after SCI
    converts: frozenset[str]  # arrays that jwst writes as float32


_QUALITY = frozenset({"PIXELDQ", "GROUPDQ"})
_SCIENCE = frozenset({"SCI", "ZEROFRAME", "REFOUT"})

KIND_SPECS: Mapping[Kind, KindSpec] = MappingProxyType(
    {
        Kind.RAMP: KindSpec("RampModel", "PIXELDQ", _QUALITY, _SCIENCE),
        Kind.SUPERSTRIPE: KindSpec("SuperstripeRampModel", "PIXELDQ", _QUALITY, _SCIENCE),
        Kind.GUIDER: KindSpec(
            "GuiderRawModel", "DQ", frozenset({"ERR", "DQ"}), frozenset({"SCI", "ERR"})
        ),
    }
)

_GUIDER_TYPES = frozenset(
    {"FGS_ID-IMAGE", "FGS_ID-STACK", "FGS_ACQ1", "FGS_ACQ2", "FGS_TRACK", "FGS_FINEGUIDE"}
)


def kind_of(keywords: Keywords, superstripes: int) -> Kind:
    """Return guider by EXP_TYPE, else superstripe if `superstripes` (SSTR_NST) > 0, else ramp."""
    if keywords.word("EXP_TYPE") in _GUIDER_TYPES:
        return Kind.GUIDER
    return Kind.SUPERSTRIPE if superstripes > 0 else Kind.RAMP


def _columns(names: str) -> frozenset[str]:
    return frozenset(names.split())


_RAMP: dict[str, int | frozenset[str]] = {
    "ZEROFRAME": 3,
    "REFOUT": 4,
    "AVDRKCUR": 2,
    "GROUP": _columns(
        "INTEGRATION_NUMBER GROUP_NUMBER END_DAY END_MILLISECONDS END_SUBMILLISECONDS "
        "GROUP_END_TIME NUMBER_OF_COLUMNS NUMBER_OF_ROWS NUMBER_OF_GAPS COMPLETION_CODE_NUMBER "
        "COMPLETION_CODE_TEXT BARY_END_TIME HELIO_END_TIME"
    ),
    "INT_TIMES": _columns(
        "INTEGRATION_NUMBER INT_START_MJD_UTC INT_MID_MJD_UTC INT_END_MJD_UTC INT_START_BJD_TDB "
        "INT_MID_BJD_TDB INT_END_BJD_TDB"
    ),
    "INT_TIMES_STRIPE": _columns(
        "INTEGRATION_NUMBER STRIPE_NUMBER INT_START_MJD_UTC INT_MID_MJD_UTC INT_END_MJD_UTC "
        "INT_START_BJD_TDB INT_MID_BJD_TDB INT_END_BJD_TDB"
    ),
    "MSA_TARG_ACQ": _columns(
        "EXPOSURE_ID ORDER_NUMBER REFERENCE_STAR_NUMBER REFERENCE_STAR_NAME REFERENCE_STAR_RA "
        "REFERENCE_STAR_DEC REFERENCE_STAR_MAG CATALOG_NAME PLANNED_V2 PLANNED_V3 DESIRED_V2 "
        "DESIRED_V3 EXTRACT_COL_START EXTRACT_ROW_START REF_STAR_DETECTOR BACKGROUND_VALUE "
        "BOX_PEAK_VALUE BOX_PEAK_COL BOX_PEAK_ROW BOX_TOTAL_VALUE ITERATIONS FINAL_ITER_COL_DIFF "
        "FINAL_ITER_ROW_DIFF CORRECTED_COL CORRECTED_ROW IMAGE_CENTROID_COL IMAGE_CENTROID_ROW "
        "DETECTOR_CENTROID_COL DETECTOR_CENTROID_ROW SCI_X_CENTROID SCI_Y_CENTROID "
        "COL_SECOND_MOMENT ROW_SECOND_MOMENT COL_THIRD_MOMENT ROW_THIRD_MOMENT CONVERGENCE_STATUS "
        "FOUND_STATUS FOUND_V2 FOUND_V3 FOUND_MSA_X FOUND_MSA_Y LSF_REMOVED_STATUS "
        "LSF_REMOVED_REASON LSF_REMOVED_X LSF_REMOVED_Y FIT_OFFSET_V2 FIT_OFFSET_V3 X_REL Y_REL "
        "XROT_REL YROT_REL V2_NEW_FROM_FIT V3_NEW_FROM_FIT V2_FIT_RESIDUAL V3_FIT_RESIDUAL"
    ),
}
_GUIDER: dict[str, int | frozenset[str]] = {
    "PLANNED REFERENCE STARS": _columns(
        "GUIDE_STAR_ORDER REFERENCE_ORDER REFERENCE_STAR_ID RA DEC ID_X ID_Y FGS_MAG "
        "FGS_MAG_UNCERT COUNT_RATE COUNT_RATE_UNCERT"
    ),
    "FLIGHT REFERENCE STARS": _columns("REFERENCE_STAR_ID ID_X ID_Y COUNT_RATE"),
    "POINTING": _columns(
        "TIME JITTER DELTA_DDC_RA DELTA_DDC_DEC DELTA_APERTURE_PA DELTA_V1_RA DELTA_V1_DEC "
        "DELTA_V3_PA DELTA_J1_RA DELTA_J1_DEC DELTA_J3_PA HGA_MOTION"
    ),
    "FGS CENTROID PACKET": _columns(
        "OBSERVATORY_TIME CENTROID_TIME GUIDE_STAR_POSITION_X GUIDE_STAR_POSITION_Y "
        "GUIDE_STAR_INSTRUMENT_COUNTS_PER_SEC SIGNAL_TO_NOISE_CURRENT_FRAME DELTA_SIGNAL "
        "DELTA_NOISE PSF_WIDTH_X PSF_WIDTH_Y DATA_QUALITY BAD_PIXEL_FLAG BAD_CENTROID_DQ_FLAG "
        "COSMIC_RAY_HIT_FLAG SW_SUBWINDOW_LOC_CHANGE_FLAG "
        "GUIDE_STAR_AT_DETECTOR_SUBWINDOW_BOUNDARY_FLAG SUBWINDOW_OUT_OF_FOV_FLAG"
    ),
    "TRACK SUBARRAY TABLE": _columns("OBSERVATORY_TIME X_CORNER Y_CORNER X_SIZE Y_SIZE"),
}

# Schemas of stdatamodels 6.0.0, checked by `make conformance`.
MODEL_EXTENSIONS: Mapping[Kind, Mapping[str, int | frozenset[str]]] = MappingProxyType(
    {
        Kind.RAMP: _RAMP,
        Kind.SUPERSTRIPE: {name: value for name, value in _RAMP.items() if name != "AVDRKCUR"},
        Kind.GUIDER: _GUIDER,
    }
)
"""Kind, then EXTNAME, to the number of axes of an image or the columns of a table, in any order.

SCI and the data-quality arrays are checked in `core.exposure`.
"""


def check_jwst_can_open(hdus: tuple[Hdu, ...], kind: Kind, name: str) -> None:
    """Raise `InputRejected` if an HDU differs from what `MODEL_EXTENSIONS` lists for `kind`.

    Images need that number of axes, tables exactly those columns. HDUs without axes and unlisted
    HDUs (SCI, data-quality arrays) pass. `name` is the file's, for messages.
    """
    for hdu in hdus:
        expected = MODEL_EXTENSIONS[kind].get(hdu.name)
        if expected is None or (hdu.is_image and not hdu.shape):
            continue
        label = f"{name}: {hdu.name}"
        if isinstance(expected, int):
            if not hdu.is_image:
                raise InputRejected(f"{label} is a table, expected an image of {expected} axes")
            if len(hdu.shape) != expected:
                raise InputRejected(f"{label} has {len(hdu.shape)} axes, expected {expected}")
            continue
        if hdu.is_image:
            raise InputRejected(f"{label} is an image, expected a table")
        found = {str(value).strip().upper() for value in hdu.header["TTYPE*"].values()}
        for columns, fault in ((expected - found, "lacks"), (found - expected, "also has")):
            if columns:
                raise InputRejected(
                    f"{label} {fault} {', '.join(sorted(columns))}, expected the "
                    f"{len(expected)} columns of the jwst data model"
                )


_DECIDING: Mapping[str, str] = MappingProxyType({
    "EXP_TYPE": "exposure.type", "READPATT": "exposure.readpatt",
    "INSTRUME": "instrument.name", "DETECTOR": "instrument.detector",
    "DATE-OBS": "observation.date", "TIME-OBS": "observation.time",
    "SUBARRAY": "subarray.name",
    "SUBSTRT1": "subarray.xstart", "SUBSTRT2": "subarray.ystart",
    "SUBSIZE1": "subarray.xsize", "SUBSIZE2": "subarray.ysize",
    "FASTAXIS": "subarray.fastaxis", "SLOWAXIS": "subarray.slowaxis",
    "MSTR_RD1": "subarray.multistripe_reads1", "MSTR_SK1": "subarray.multistripe_skips1",
    "MSTR_RD2": "subarray.multistripe_reads2", "MSTR_SK2": "subarray.multistripe_skips2",
    "MSTR_RPT": "subarray.repeat_stripe", "MSTR_ILV": "subarray.interleave_reads1",
    "SSTR_STP": "subarray.superstripe_step", "SSTR_NST": "subarray.num_superstripe",
})  # fmt: skip
"""Keyword that decides kind, mask or geometry, to its path below ``meta`` in the ASDF extension."""

_DQ_ARRAYS = frozenset({"PIXELDQ", "GROUPDQ", "ERR", "DQ"})
_LARGEST_DOCUMENT = 4 * 1024 * 1024
_MOST_EVENTS = 200_000
_DEEPEST = 100
_LONGEST_PATH = 3  # keys of a deciding path: meta, a section, a value
_START_OF_YAML = re.compile(rb"(?:^|\n)---")
_END_OF_YAML = re.compile(rb"\r?\n\.\.\.(?:\r?\n|$)")
_BY_NUMBER = re.compile(rb"(?<![\w.])fits:(\d+)(?![\d,])")  # source: fits:2
_BY_NAME = re.compile(rb"(?<![\w.])source: *['\"]?fits:([ -~]{1,68}?),(\d{1,9})")  # fits:SCI,1


def missing_asdf_warning(hdus: tuple[Hdu, ...]) -> str | None:
    """Return the warning about an exposure without an ASDF extension, None if it has one."""
    if find_all(hdus, "ASDF"):
        return None
    return "no ASDF extension; jwst 3.0.0 accepts it as an open data model, not as a file name"


def check_asdf_agrees(hdus: tuple[Hdu, ...], read: Reader, name: str) -> None:
    """Raise `InputRejected` if ASDF is damaged or has a keyword that the header lacks.

    Checked are keywords of `_DECIDING`, if not null in ASDF, and references to HDUs; values are not
    compared. A file without an ASDF extension gets a logged warning.
    """
    warning = missing_asdf_warning(hdus)
    if warning:
        log.warning("%s: %s", name, warning)
        return
    hdu = find_all(hdus, "ASDF")[0]
    if hdu.data_length > _LARGEST_DOCUMENT:
        raise InputRejected(
            f"{name}: the ASDF extension has {hdu.data_length} bytes, expected at most "
            f"{_LARGEST_DOCUMENT}"
        )
    document = read(hdu.data_start, hdu.data_length)
    if not document.startswith(b"#ASDF ") or not _END_OF_YAML.search(document):
        raise InputRejected(
            f"{name}: the ASDF extension starts with {document[:8]!r} and is damaged, compressed "
            "or incomplete, expected a document that jwst.datamodels can open"
        )
    _check_references(hdus, document, name)
    # Parsing YAML would cost more than the rest of the step, so the text is searched first: nearly
    # every exposure has all of the deciding keywords in its header.
    mentioned = {
        keyword
        for keyword, path in _DECIDING.items()
        if keyword not in hdus[0].header and path.rpartition(".")[2].encode() in document
    }
    if mentioned:
        values = _paths_with_values(document, name)
        only_there = sorted(kw for kw in mentioned if _has_value(values, _DECIDING[kw]))
        if only_there:
            raise InputRejected(
                f"{name}: {', '.join(only_there)} in the ASDF metadata only, expected also in the "
                "primary header"
            )


def _check_references(hdus: tuple[Hdu, ...], document: bytes, name: str) -> None:
    """Raise `InputRejected` if a reference of ASDF to an HDU would not work in the product."""
    # The product has its new HDUs after SCI, so the number of every later HDU changes.
    names = [hdu.name for hdu in hdus]
    kept = names.index("SCI") + 1 if "SCI" in names else 1
    kept = next((place for place in range(kept) if names[place] in _DQ_ARRAYS), kept)
    for digits in _BY_NUMBER.findall(document):
        number = int(digits[:9])
        if number >= kept:
            raise InputRejected(
                f"{name}, ASDF: refers to HDU {number} by number, which changes in the product; "
                "expected a reference by EXTNAME and EXTVER"
            )
    present = {(hdu.name, hdu.header.get("EXTVER", 1)) for hdu in hdus}
    for extension, version in _BY_NAME.findall(document):
        extname, extver = extension.decode().strip().upper(), int(version)
        # astropy takes the primary HDU for PRIMARY of any EXTVER.
        if (extname, extver) not in present and extname != "PRIMARY":
            raise InputRejected(
                f"{name}, ASDF: refers to {extname} with EXTVER {extver}, expected an existing HDU"
            )


def _has_value(values: set[str], path: str) -> bool:
    """Say whether ASDF may have a value at ``meta.`` + `path`."""
    parts = f"meta.{path}".split(".")
    above = [".".join(parts[:depth]) for depth in range(len(parts))]
    merges = {f"{way}.<<".lstrip(".") for way in above}
    by_reference = {f"{way}*" for way in [*above, *merges]} | merges
    return not values.isdisjoint({f"meta.{path}", f"meta.{path}*"} | by_reference)


def _paths_with_values(document: bytes, name: str) -> set[str]:
    """Return the dotted paths, of at most 3 keys, that have a value in an ASDF document.

    The path of a YAML alias ends with ``*``.
    """
    start, end = _START_OF_YAML.search(document), _END_OF_YAML.search(document)
    if start is None or end is None:
        raise InputRejected(f"{name}: the ASDF extension has no YAML document, expected one")
    body = document[start.end() : end.start()].partition(b"\n")[2]  # without the document's tag
    import yaml  # noqa: PLC0415  # rarely needed, and slow to import

    # Events are read one by one and no object is built: merges, aliases and numbers are not
    # evaluated, so a small crafted document cannot take much time or memory.
    events = yaml.parse(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return set(_walk(events, name))
    except (yaml.YAMLError, ValueError) as exc:
        raise InputRejected(f"{name}: the ASDF metadata are damaged, expected YAML: {exc}") from exc


def _walk(events: Iterable[Any], name: str) -> Iterator[str]:
    """Yield dotted paths of at most 3 keys to values that are not null and not in a sequence."""
    keys: list[str | None] = []  # the current key of each open collection; None before a key
    mappings: list[bool] = []  # whether each open collection is a mapping
    for number, event in enumerate(events):
        if number > _MOST_EVENTS or len(keys) > _DEEPEST:
            raise InputRejected(
                f"{name}: ASDF metadata of {number} keys and values, {len(keys)} levels deep, "
                f"expected at most {_MOST_EVENTS} and {_DEEPEST}"
            )
        kind = type(event).__name__.removesuffix("Event")
        is_key = bool(mappings) and mappings[-1] and keys[-1] is None
        if kind in ("Scalar", "Alias", "MappingStart", "SequenceStart"):
            is_value = not is_key and None not in keys and len(keys) <= _LONGEST_PATH
            if is_value and not _is_null(event):
                yield ".".join(map(str, keys)) + "*" * (kind == "Alias")
        if kind in ("MappingStart", "SequenceStart"):
            keys.append(None)
            mappings.append(kind == "MappingStart")
            continue
        if kind in ("MappingEnd", "SequenceEnd"):
            keys.pop()
            mappings.pop()
            is_key = bool(mappings) and mappings[-1] and keys[-1] is None
        if keys:
            keys[-1] = str(getattr(event, "value", "")) if is_key else None


def _is_null(event: Any) -> bool:
    # yaml.org/type/null.html; a quoted scalar has a style.
    plain = getattr(event, "style", None) in (None, "")
    return plain and getattr(event, "value", None) in ("", "~", "null", "Null", "NULL")
