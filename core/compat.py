"""The metadata of an exposure as its last HDU has them: a document of ASDF.

Keywords of the header say the same and win. The text is looked at, not parsed, which would cost
more than the rest of the step, unless the header lacks a keyword that decides something and is
mentioned there.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from core.errors import InputRejected
from core.fits.hdus import Hdu, Keywords, Reader, find_all

__all__ = [
    "KIND_SPECS",
    "OPENED",
    "Kind",
    "KindSpec",
    "check_asdf_agrees",
    "check_jwst_can_open",
    "kind_of",
    "without_metadata",
]

_GUIDER_TYPES = frozenset(
    {"FGS_ID-IMAGE", "FGS_ID-STACK", "FGS_ACQ1", "FGS_ACQ2", "FGS_TRACK", "FGS_FINEGUIDE"}
)


class Kind(StrEnum):
    """Which arrays the step makes, and which `jwst` data model the product is."""

    RAMP = "ramp"
    SUPERSTRIPE = "superstripe"
    GUIDER = "guider"


@dataclass(frozen=True)
class KindSpec:
    """What follows from an exposure's kind.

    Attributes
    ----------
    data_model : str
        DATAMODL of the product.
    image : str
        EXTNAME of the data-quality image.
    adds : frozenset of str
        EXTNAMEs of the arrays whose place is after SCI, whatever the input has of them.
    converts : frozenset of str
        EXTNAMEs of the arrays that `jwst` writes as float32.
    """

    data_model: str
    image: str
    adds: frozenset[str]
    converts: frozenset[str]


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
"""The table above."""


def kind_of(keywords: Keywords, superstripes: int) -> Kind:
    """Return the kind of an exposure.

    Parameters
    ----------
    keywords : `~core.fits.hdus.Keywords`
        Its primary header's.
    superstripes : int
        SSTR_NST; 0 where it is absent.

    Raises
    ------
    InputRejected
        If EXP_TYPE is not written as `jwst` knows it.
    """
    if keywords.word("EXP_TYPE") in _GUIDER_TYPES:
        return Kind.GUIDER
    return Kind.SUPERSTRIPE if superstripes > 0 else Kind.RAMP


_RAMP: dict[str, int | str] = {
    "ZEROFRAME": 3,
    "REFOUT": 4,
    "AVDRKCUR": 2,
    "GROUP": (
        "INTEGRATION_NUMBER GROUP_NUMBER END_DAY END_MILLISECONDS END_SUBMILLISECONDS "
        "GROUP_END_TIME NUMBER_OF_COLUMNS NUMBER_OF_ROWS NUMBER_OF_GAPS "
        "COMPLETION_CODE_NUMBER COMPLETION_CODE_TEXT BARY_END_TIME HELIO_END_TIME"
    ),
    "INT_TIMES": (
        "INTEGRATION_NUMBER INT_START_MJD_UTC INT_MID_MJD_UTC INT_END_MJD_UTC "
        "INT_START_BJD_TDB INT_MID_BJD_TDB INT_END_BJD_TDB"
    ),
    "INT_TIMES_STRIPE": (
        "INTEGRATION_NUMBER STRIPE_NUMBER INT_START_MJD_UTC INT_MID_MJD_UTC INT_END_MJD_UTC "
        "INT_START_BJD_TDB INT_MID_BJD_TDB INT_END_BJD_TDB"
    ),
    "MSA_TARG_ACQ": (
        "EXPOSURE_ID ORDER_NUMBER REFERENCE_STAR_NUMBER REFERENCE_STAR_NAME REFERENCE_STAR_RA "
        "REFERENCE_STAR_DEC REFERENCE_STAR_MAG CATALOG_NAME PLANNED_V2 PLANNED_V3 DESIRED_V2 "
        "DESIRED_V3 EXTRACT_COL_START EXTRACT_ROW_START REF_STAR_DETECTOR BACKGROUND_VALUE "
        "BOX_PEAK_VALUE BOX_PEAK_COL BOX_PEAK_ROW BOX_TOTAL_VALUE ITERATIONS "
        "FINAL_ITER_COL_DIFF FINAL_ITER_ROW_DIFF CORRECTED_COL CORRECTED_ROW "
        "IMAGE_CENTROID_COL IMAGE_CENTROID_ROW DETECTOR_CENTROID_COL DETECTOR_CENTROID_ROW "
        "SCI_X_CENTROID SCI_Y_CENTROID COL_SECOND_MOMENT ROW_SECOND_MOMENT COL_THIRD_MOMENT "
        "ROW_THIRD_MOMENT CONVERGENCE_STATUS FOUND_STATUS FOUND_V2 FOUND_V3 FOUND_MSA_X "
        "FOUND_MSA_Y LSF_REMOVED_STATUS LSF_REMOVED_REASON LSF_REMOVED_X LSF_REMOVED_Y "
        "FIT_OFFSET_V2 FIT_OFFSET_V3 X_REL Y_REL XROT_REL YROT_REL V2_NEW_FROM_FIT "
        "V3_NEW_FROM_FIT V2_FIT_RESIDUAL V3_FIT_RESIDUAL"
    ),
}
_SUPERSTRIPE = {name: value for name, value in _RAMP.items() if name != "AVDRKCUR"}

_GUIDER: dict[str, int | str] = {
    "PLANNED REFERENCE STARS": (
        "GUIDE_STAR_ORDER REFERENCE_ORDER REFERENCE_STAR_ID RA DEC ID_X ID_Y FGS_MAG "
        "FGS_MAG_UNCERT COUNT_RATE COUNT_RATE_UNCERT"
    ),
    "FLIGHT REFERENCE STARS": ("REFERENCE_STAR_ID ID_X ID_Y COUNT_RATE"),
    "POINTING": (
        "TIME JITTER DELTA_DDC_RA DELTA_DDC_DEC DELTA_APERTURE_PA DELTA_V1_RA DELTA_V1_DEC "
        "DELTA_V3_PA DELTA_J1_RA DELTA_J1_DEC DELTA_J3_PA HGA_MOTION"
    ),
    "FGS CENTROID PACKET": (
        "OBSERVATORY_TIME CENTROID_TIME GUIDE_STAR_POSITION_X GUIDE_STAR_POSITION_Y "
        "GUIDE_STAR_INSTRUMENT_COUNTS_PER_SEC SIGNAL_TO_NOISE_CURRENT_FRAME DELTA_SIGNAL "
        "DELTA_NOISE PSF_WIDTH_X PSF_WIDTH_Y DATA_QUALITY BAD_PIXEL_FLAG BAD_CENTROID_DQ_FLAG "
        "COSMIC_RAY_HIT_FLAG SW_SUBWINDOW_LOC_CHANGE_FLAG "
        "GUIDE_STAR_AT_DETECTOR_SUBWINDOW_BOUNDARY_FLAG SUBWINDOW_OUT_OF_FOV_FLAG"
    ),
    "TRACK SUBARRAY TABLE": ("OBSERVATORY_TIME X_CORNER Y_CORNER X_SIZE Y_SIZE"),
}

OPENED: Mapping[Kind, Mapping[str, int | frozenset[str]]] = MappingProxyType(
    {
        kind: {
            name: value if isinstance(value, int) else frozenset(value.split())
            for name, value in table.items()
        }
        for kind, table in (
            (Kind.RAMP, _RAMP),
            (Kind.SUPERSTRIPE, _SUPERSTRIPE),
            (Kind.GUIDER, _GUIDER),
        )
    }
)
"""Kind -> EXTNAME -> number of axes, or names of columns in any order and case.

SCI and the data-quality arrays are checked where they are read (`core.exposure`).
"""


def check_jwst_can_open(hdus: tuple[Hdu, ...], kind: Kind, name: str) -> None:
    """Check that the `jwst` data models can open what the step passes on.

    Parameters
    ----------
    hdus : tuple of `~core.fits.hdus.Hdu`
        Of the exposure.
    kind : `~core.compat.Kind`
        Its kind.
    name : str
        Its name, for messages.

    Raises
    ------
    InputRejected
        If an array has another number of axes than its data model says, or a table other columns.
    """
    for hdu in hdus:
        expected = OPENED[kind].get(hdu.name)
        if expected is None or (hdu.is_image and not hdu.shape):
            continue
        if isinstance(expected, int):
            _check_axes(hdu, expected, name)
        else:
            _check_columns(hdu, expected, name)


def _check_axes(hdu: Hdu, axes: int, name: str) -> None:
    if not hdu.is_image:
        raise InputRejected(f"{name}: {hdu.name} is a table, expected an image of {axes} axes")
    if len(hdu.shape) != axes:
        raise InputRejected(f"{name}: {hdu.name} has {len(hdu.shape)} axes, expected {axes}")


def _check_columns(hdu: Hdu, expected: frozenset[str], name: str) -> None:
    if hdu.is_image:
        raise InputRejected(f"{name}: {hdu.name} is an image, expected a table")
    found = {str(value).strip().upper() for value in hdu.header["TTYPE*"].values()}
    for columns, fault in ((expected - found, "lacks"), (found - expected, "also has")):
        if columns:
            raise InputRejected(
                f"{name}: {hdu.name} {fault} {', '.join(sorted(columns))}, expected the "
                f"{len(expected)} columns that the jwst data models know"
            )


log = logging.getLogger(__name__)

_DECIDING: Mapping[str, str] = MappingProxyType(
    {
        "EXP_TYPE": "exposure.type",
        "READPATT": "exposure.readpatt",
        "INSTRUME": "instrument.name",
        "DETECTOR": "instrument.detector",
        "DATE-OBS": "observation.date",
        "TIME-OBS": "observation.time",
        "SUBARRAY": "subarray.name",
        "SUBSTRT1": "subarray.xstart",
        "SUBSTRT2": "subarray.ystart",
        "SUBSIZE1": "subarray.xsize",
        "SUBSIZE2": "subarray.ysize",
        "FASTAXIS": "subarray.fastaxis",
        "SLOWAXIS": "subarray.slowaxis",
        "MSTR_RD1": "subarray.multistripe_reads1",
        "MSTR_SK1": "subarray.multistripe_skips1",
        "MSTR_RD2": "subarray.multistripe_reads2",
        "MSTR_SK2": "subarray.multistripe_skips2",
        "MSTR_RPT": "subarray.repeat_stripe",
        "MSTR_ILV": "subarray.interleave_reads1",
        "SSTR_STP": "subarray.superstripe_step",
        "SSTR_NST": "subarray.num_superstripe",
    }
)
"""What decides kind, mask or geometry: keyword -> where the document has it, below ``meta``."""

_NODES = ("ScalarEvent", "AliasEvent", "MappingStartEvent", "SequenceStartEvent")
_MOST_EVENTS = 200_000
_DEEPEST = 100
_LONGEST_PATH = 3
"""Keys of a path that decides: meta, a section, a value."""
_DQ_ARRAYS = frozenset({"PIXELDQ", "GROUPDQ", "ERR", "DQ"})
_NUMBERED = re.compile(rb"(?<![\w.])fits:(\d+)(?![\d,])")
"""An HDU that the document names by its number: ``source: fits:2``."""
_NAMED = re.compile(rb"(?<![\w.])source: *['\"]?fits:([ -~]{1,68}?),(\d{1,9})")
"""An HDU that the document names by EXTNAME and EXTVER: ``source: fits:SCI,1``."""
_LARGEST_DOCUMENT = 4 * 1024 * 1024
_ASDF = b"#ASDF "
_END_OF_YAML = re.compile(rb"\r?\n\.\.\.(?:\r?\n|$)")
_START_OF_YAML = re.compile(rb"(?:^|\n)---")


def check_asdf_agrees(hdus: tuple[Hdu, ...], read: Reader, name: str) -> None:
    """Check that the document is whole, and says nothing that decides which the header does not.

    An exposure without a document is accepted, with a warning in the log.

    Parameters
    ----------
    hdus : tuple of `~core.fits.hdus.Hdu`
        Of the exposure.
    read : callable
        ``read(start, length)`` returns a byte range of the file.
    name : str
        Its name, for messages.

    Raises
    ------
    InputRejected
        If the document is damaged, kind, mask or geometry depend on a keyword that it has and the
        header lacks, or it names an HDU that the file lacks, or by a number that the product
        changes.
    """
    warning = without_metadata(hdus)
    if warning:
        log.warning("%s: %s", name, warning)
        return
    document = _document(find_all(hdus, "ASDF")[0], read, name)
    _check_numbers(hdus, document, name)
    _check_names(hdus, document, name)
    lacking = {keyword for keyword in _DECIDING if keyword not in hdus[0].header}
    _check_nothing_is_said_there_only(lacking, document, name)


def without_metadata(hdus: tuple[Hdu, ...]) -> str | None:
    """Return the warning about an exposure that has no ASDF extension; None if it has one."""
    if find_all(hdus, "ASDF"):
        return None
    return "no ASDF extension; jwst 3.0.0 opens it as a data model, but not by its file name"


def _document(hdu: Hdu, read: Reader, name: str) -> bytes:
    """The document's text; a reader that fetches what lies around a header has it already."""
    if hdu.data_length > _LARGEST_DOCUMENT:
        raise InputRejected(
            f"{name}: its ASDF HDU has {hdu.data_length} bytes, expected at most "
            f"{_LARGEST_DOCUMENT}"
        )
    text = read(hdu.data_start, hdu.data_length)
    if not text.startswith(_ASDF) or not _END_OF_YAML.search(text):
        raise InputRejected(
            f"{name}: its ASDF HDU starts with {text[:8]!r} and is damaged, compressed or breaks "
            "off: no jwst data model opens it"
        )
    return text


def _check_numbers(hdus: tuple[Hdu, ...], document: bytes, name: str) -> None:
    """Check that HDUs named by number keep it: the product has its new HDUs behind SCI."""
    names = [hdu.name for hdu in hdus]
    kept = names.index("SCI") + 1 if "SCI" in names else 1
    kept = next((place for place in range(kept) if names[place] in _DQ_ARRAYS), kept)
    moved = [number for found in _NUMBERED.findall(document) if (number := int(found[:9])) >= kept]
    if moved:
        raise InputRejected(
            f"{name}, ASDF: names HDU {moved[0]} by its number, which the product's new HDUs "
            "change; expected the number of an HDU before them, or a name"
        )


def _check_names(hdus: tuple[Hdu, ...], document: bytes, name: str) -> None:
    """Check that the file has every HDU that the document names; the data models need them all."""
    present = {(hdu.name, hdu.header.get("EXTVER", 1)) for hdu in hdus}
    for extension, version in _NAMED.findall(document):
        named = extension.decode().strip().upper(), int(version)
        if named not in present and named[0] != "PRIMARY":  # astropy: the primary HDU of any EXTVER
            raise InputRejected(
                f"{name}, ASDF: names {named[0]} with EXTVER {named[1]}, which the file lacks, "
                "expected an HDU of the file"
            )


def _check_nothing_is_said_there_only(lacking: set[str], document: bytes, name: str) -> None:
    mentioned = {
        keyword for keyword in lacking if _DECIDING[keyword].rpartition(".")[2].encode() in document
    }
    if not mentioned:  # in most exposures: nothing to parse for
        return
    values = _values(document, name)
    only_there = sorted(keyword for keyword in mentioned if _has_value(values, _DECIDING[keyword]))
    if only_there:
        raise InputRejected(
            f"{name}: {', '.join(only_there)} in the ASDF metadata only, expected in the header"
        )


def _has_value(values: set[str], path: str) -> bool:
    """Return whether the document gives a value: itself, or by an alias or a merge on its way."""
    parts = f"meta.{path}".split(".")
    above = [".".join(parts[:depth]) for depth in range(len(parts))]
    merges = {f"{way}.<<".lstrip(".") for way in above}
    by_reference = {f"{way}*" for way in [*above, *merges]} | merges
    return not values.isdisjoint({f"meta.{path}", f"meta.{path}*"} | by_reference)


def _values(document: bytes, name: str) -> set[str]:
    """Return the paths, such as ``meta.exposure.type``, at which the document has values.

    A path that ends in ``*`` has an alias. The document's events are read one by one and nothing is
    built of them: merges, aliases and numbers are not evaluated, so a small document cannot take
    much time or memory.
    """
    start, end = _START_OF_YAML.search(document), _END_OF_YAML.search(document)
    if start is None or end is None:
        raise InputRejected(f"{name}: its ASDF HDU has no YAML document")
    # Without its first line, which holds the document's tag.
    body = document[start.end() : end.start()].partition(b"\n")[2]
    import yaml  # noqa: PLC0415  # rarely needed, and slow to import

    events = yaml.parse(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return set(_paths(events, name))
    except (yaml.YAMLError, ValueError) as exc:
        raise InputRejected(f"{name}: its ASDF metadata cannot be read: {exc}") from exc


def _paths(events: Iterable[Any], name: str) -> Iterator[str]:
    """Yield the path of every value that is not null, as far as such paths can matter."""
    keys: list[str | None] = []  # the key that each open collection is at; None before a key
    mappings: list[bool] = []  # whether each open collection is a mapping
    for number, event in enumerate(events):
        if number > _MOST_EVENTS or len(keys) > _DEEPEST:
            raise InputRejected(
                f"{name}: ASDF metadata of {number} keys and values, {len(keys)} levels deep, "
                f"expected at most {_MOST_EVENTS} and {_DEEPEST}"
            )
        kind = type(event).__name__
        is_key = bool(mappings) and mappings[-1] and keys[-1] is None
        is_value = kind in _NODES and not is_key and None not in keys
        if is_value and len(keys) <= _LONGEST_PATH and not _is_null(event):
            yield ".".join(map(str, keys)) + "*" * (kind == "AliasEvent")
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            keys.append(None)
            mappings.append(kind == "MappingStartEvent")
            continue
        if kind in ("MappingEndEvent", "SequenceEndEvent"):
            keys.pop()
            mappings.pop()
            is_key = bool(mappings) and mappings[-1] and keys[-1] is None
        if keys:
            keys[-1] = str(getattr(event, "value", "")) if is_key else None


def _is_null(event: Any) -> bool:
    """Return whether a node is YAML's null (yaml.org/type/null.html)."""
    plain = getattr(event, "style", None) in (None, "")
    return plain and getattr(event, "value", None) in ("", "~", "null", "Null", "NULL")
