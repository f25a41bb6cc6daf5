"""What the `jwst` data models ask of arrays and tables that the step passes on as they are.

What the data models cannot open in an exposure they cannot open in its product: it is refused. The
rules are those of the schemas of `stdatamodels.jwst` 6.0.0 (level1b, ramp, int_times, group,
guider_raw).
"""

from collections.abc import Mapping
from types import MappingProxyType

from core.errors import InputRejected
from core.hdus import Hdu
from core.kinds import Kind

__all__ = ["check_opens"]

_AXES = {"ZEROFRAME": 3, "REFOUT": 4}

_TIMES = (
    "INTEGRATION_NUMBER INT_START_MJD_UTC INT_MID_MJD_UTC INT_END_MJD_UTC "
    "INT_START_BJD_TDB INT_MID_BJD_TDB INT_END_BJD_TDB"
)
_COLUMNS: Mapping[bool, Mapping[str, str]] = MappingProxyType(
    {
        False: {
            "INT_TIMES": _TIMES,
            "GROUP": (
                "INTEGRATION_NUMBER GROUP_NUMBER END_DAY END_MILLISECONDS END_SUBMILLISECONDS "
                "GROUP_END_TIME NUMBER_OF_COLUMNS NUMBER_OF_ROWS NUMBER_OF_GAPS "
                "COMPLETION_CODE_NUMBER COMPLETION_CODE_TEXT BARY_END_TIME HELIO_END_TIME"
            ),
        },
        True: {
            "PLANNED REFERENCE STARS": (
                "GUIDE_STAR_ORDER REFERENCE_ORDER REFERENCE_STAR_ID RA DEC ID_X ID_Y FGS_MAG "
                "FGS_MAG_UNCERT COUNT_RATE COUNT_RATE_UNCERT"
            ),
            "FLIGHT REFERENCE STARS": "REFERENCE_STAR_ID ID_X ID_Y COUNT_RATE",
            "POINTING": (
                "TIME JITTER DELTA_DDC_RA DELTA_DDC_DEC DELTA_APERTURE_PA DELTA_V1_RA DELTA_V1_DEC "
                "DELTA_V3_PA DELTA_J1_RA DELTA_J1_DEC DELTA_J3_PA HGA_MOTION"
            ),
            "FGS CENTROID PACKET": (
                "OBSERVATORY_TIME CENTROID_TIME GUIDE_STAR_POSITION_X GUIDE_STAR_POSITION_Y "
                "GUIDE_STAR_INSTRUMENT_COUNTS_PER_SEC SIGNAL_TO_NOISE_CURRENT_FRAME DELTA_SIGNAL "
                "DELTA_NOISE PSF_WIDTH_X PSF_WIDTH_Y DATA_QUALITY BAD_PIXEL_FLAG "
                "BAD_CENTROID_DQ_FLAG COSMIC_RAY_HIT_FLAG SW_SUBWINDOW_LOC_CHANGE_FLAG "
                "GUIDE_STAR_AT_DETECTOR_SUBWINDOW_BOUNDARY_FLAG SUBWINDOW_OUT_OF_FOV_FLAG"
            ),
            "TRACK SUBARRAY TABLE": "OBSERVATORY_TIME X_CORNER Y_CORNER X_SIZE Y_SIZE",
        },
    }
)
"""Whether the exposure is a guider's -> EXTNAME -> columns, in whatever order and case."""


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
        _check_axes(hdu, name)
        _check_columns(hdu, kind, name)


def _check_axes(hdu: Hdu, name: str) -> None:
    axes = _AXES.get(hdu.name)
    if axes is not None and hdu.shape and len(hdu.shape) != axes:
        raise InputRejected(f"{name}: {hdu.name} has {len(hdu.shape)} axes, expected {axes}")


def _check_columns(hdu: Hdu, kind: Kind, name: str) -> None:
    expected = _COLUMNS[kind is Kind.GUIDER].get(hdu.name)
    if expected is None or hdu.is_image:
        return
    found = {str(value).strip().upper() for value in hdu.header["TTYPE*"].values()}
    missing, more = set(expected.split()) - found, found - set(expected.split())
    if missing or more:
        raise InputRejected(
            f"{name}: {hdu.name} lacks the columns {sorted(missing)} and has {sorted(more)} "
            "besides, with which no jwst data model opens it"
        )
