"""The FITS keywords of the parameters that CRDS rules match on.

Rules speak of parameters by their path in the JWST data models. `crds` itself looks the keywords
up in the schemas of `stdatamodels`, which is no part of the function; this is the same table, for
every parameter that a rule could sensibly match a raw exposure on.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from astropy.io import fits

from core.errors import ReferenceUnavailable
from core.keywords import Keywords

__all__ = ["FITS_KEYWORDS", "UNDEFINED", "Value", "known_parameters", "matching_parameters"]

Value = str | int | float | bool

UNDEFINED = "UNDEFINED"
"""What CRDS takes a parameter for that the exposure lacks."""

FITS_KEYWORDS: Mapping[str, str] = MappingProxyType(
    {
        "META.APERTURE.NAME": "APERNAME",
        "META.APERTURE.PPS_NAME": "PPS_APER",
        "META.CALIBRATION_SOFTWARE_VERSION": "CAL_VER",
        "META.EXPOSURE.GROUPGAP": "GROUPGAP",
        "META.EXPOSURE.NFRAMES": "NFRAMES",
        "META.EXPOSURE.NGROUPS": "NGROUPS",
        "META.EXPOSURE.NINTS": "NINTS",
        "META.EXPOSURE.NOUTPUTS": "NOUTPUTS",
        "META.EXPOSURE.NSAMPLES": "NSAMPLES",
        "META.EXPOSURE.READPATT": "READPATT",
        "META.EXPOSURE.TYPE": "EXP_TYPE",
        "META.EXPOSURE.ZERO_FRAME": "ZEROFRAM",
        "META.INSTRUMENT.BAND": "BAND",
        "META.INSTRUMENT.CCC_STATE": "CCCSTATE",
        "META.INSTRUMENT.CHANNEL": "CHANNEL",
        "META.INSTRUMENT.CORONAGRAPH": "CORONMSK",
        "META.INSTRUMENT.DETECTOR": "DETECTOR",
        "META.INSTRUMENT.FILTER": "FILTER",
        "META.INSTRUMENT.FIXED_SLIT": "FXD_SLIT",
        "META.INSTRUMENT.FOCUS_POSITION": "FOCUSPOS",
        "META.INSTRUMENT.GRATING": "GRATING",
        "META.INSTRUMENT.LAMP_MODE": "OPMODE",
        "META.INSTRUMENT.LAMP_STATE": "LAMP",
        "META.INSTRUMENT.MODULE": "MODULE",
        "META.INSTRUMENT.NAME": "INSTRUME",
        "META.INSTRUMENT.PUPIL": "PUPIL",
        "META.INSTRUMENT.PUPIL_IMAGING_LENS": "PILIN",
        "META.OBSERVATION.DATE": "DATE-OBS",
        "META.OBSERVATION.TIME": "TIME-OBS",
        "META.SUBARRAY.FASTAXIS": "FASTAXIS",
        "META.SUBARRAY.INTERLEAVE_READS1": "MSTR_ILV",
        "META.SUBARRAY.MULTISTRIPE_READS1": "MSTR_RD1",
        "META.SUBARRAY.MULTISTRIPE_READS2": "MSTR_RD2",
        "META.SUBARRAY.MULTISTRIPE_SKIPS1": "MSTR_SK1",
        "META.SUBARRAY.MULTISTRIPE_SKIPS2": "MSTR_SK2",
        "META.SUBARRAY.NAME": "SUBARRAY",
        "META.SUBARRAY.NUM_SUPERSTRIPE": "SSTR_NST",
        "META.SUBARRAY.REPEAT_STRIPE": "MSTR_RPT",
        "META.SUBARRAY.SLOWAXIS": "SLOWAXIS",
        "META.SUBARRAY.SUPERSTRIPE_STEP": "SSTR_STP",
        "META.SUBARRAY.XSIZE": "SUBSIZE1",
        "META.SUBARRAY.XSTART": "SUBSTRT1",
        "META.SUBARRAY.YSIZE": "SUBSIZE2",
        "META.SUBARRAY.YSTART": "SUBSTRT2",
        "META.TELESCOPE": "TELESCOP",
        "META.VISIT.TSOVISIT": "TSOVISIT",
        "META.VISIT.TYPE": "VISITYPE",
    }
)


_FREE_TEXT = frozenset(
    {
        "META.CALIBRATION_SOFTWARE_VERSION",
        "META.OBSERVATION.DATE",
        "META.OBSERVATION.TIME",
    }
)
"""Parameters that hold no word of a list."""


def matching_parameters(
    keywords: Keywords, parameters: Iterable[str], rule: str
) -> dict[str, Value]:
    """Return what an exposure says of the parameters that a rule matches on.

    Parameters
    ----------
    keywords : `~core.keywords.Keywords`
        Those of the exposure's primary header.
    parameters : iterable of str
        The rule's own list, such as ``META.INSTRUMENT.DETECTOR``.
    rule : str
        Name of the rule file, for messages.

    Returns
    -------
    dict
        Parameter to value; `UNDEFINED` for one that the exposure lacks.

    Raises
    ------
    ReferenceUnavailable
        If the FITS keyword of a parameter is not known.
    InputRejected
        If a keyword holds a word that `jwst` does not know, for it is not in capitals.
    """
    header = keywords.header
    names = [parameter.upper() for parameter in parameters]
    for name in names:
        if name not in FITS_KEYWORDS:
            raise ReferenceUnavailable(
                f"{rule}: matches on {name}, whose FITS keyword is not known here"
            )
    for name in names:
        if name not in _FREE_TEXT and isinstance(header.get(FITS_KEYWORDS[name]), str):
            keywords.word(FITS_KEYWORDS[name])
    return {name: _value(header, FITS_KEYWORDS[name]) for name in names}


def known_parameters(header: fits.Header) -> dict[str, Value]:
    """Return every parameter that any rule may match on and that an exposure has.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        The exposure's primary header.

    Returns
    -------
    dict
        Parameter to value.
    """
    values = {name: _value(header, keyword) for name, keyword in FITS_KEYWORDS.items()}
    return {name: value for name, value in values.items() if value != UNDEFINED}


def _value(header: fits.Header, keyword: str) -> Value:
    value = header.get(keyword, UNDEFINED)
    return value if isinstance(value, str | int | float | bool) else UNDEFINED
