"""What the `jwst` data models must be able to open: axes of arrays, columns of tables.

What the data models cannot open in an exposure, they cannot open in its product, so it is rejected.
The table is that of the schemas of `stdatamodels` 6.0.0; ``make conformance`` checks that it is.
"""

from collections.abc import Mapping
from types import MappingProxyType

from core.errors import InputRejected
from core.hdus import Hdu
from core.kinds import Kind

__all__ = ["OPENED", "check_opens"]

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


def check_opens(hdus: tuple[Hdu, ...], kind: Kind, name: str) -> None:
    """Check that the `jwst` data models can open what the step passes on.

    Parameters
    ----------
    hdus : tuple of `~core.hdus.Hdu`
        Of the exposure.
    kind : `~core.kinds.Kind`
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
