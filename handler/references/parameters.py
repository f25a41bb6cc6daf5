"""The FITS keywords of the parameters that CRDS rules match on.

Rules speak of parameters by their path in the JWST data models. `crds` itself looks the keywords
up in the schemas of `stdatamodels`, which is no part of the function; this is the same table, for
every parameter that a rule could sensibly match a raw exposure on.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from types import MappingProxyType

from astropy.io import fits

from core.errors import InputRejected, ReferenceUnavailable
from core.keywords import Keywords
from handler.references.schema import INTEGERS, LOGICALS, NUMBERS, WORDS

__all__ = [
    "FITS_KEYWORDS",
    "UNDEFINED",
    "Value",
    "known_parameters",
    "matching_parameters",
    "unknown_words",
]

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
        If the value of a keyword has another type than in the schemas of `jwst`, or is a word
        that is not in capitals: `jwst` drops such a value, and so chooses another mask.
    """
    values = {}
    for name in (parameter.upper() for parameter in parameters):
        if name not in FITS_KEYWORDS:
            raise ReferenceUnavailable(
                f"{rule}: matches on {name}, whose FITS keyword is not known here"
            )
        values[name] = _checked(keywords, FITS_KEYWORDS[name])
    return values


def unknown_words(keywords: Keywords, parameters: Iterable[str]) -> dict[str, str]:
    """Return the words of an exposure that the schemas of `jwst` do not list.

    Parameters
    ----------
    keywords : `~core.keywords.Keywords`
        Those of the exposure's primary header.
    parameters : iterable of str
        Those that a rule matches on.

    Returns
    -------
    dict
        FITS keyword to word.
    """
    found = {}
    for name in parameters:
        keyword = FITS_KEYWORDS[name.upper()]
        value = keywords.header.get(keyword)
        if isinstance(value, str) and keyword in WORDS and value not in WORDS[keyword]:
            found[keyword] = value
    return found


def known_parameters(header: fits.Header) -> dict[str, Value]:
    """Return every parameter that any rule may match on and that an exposure has.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        The exposure's primary header.

    Returns
    -------
    dict
        Parameter to value, without values of another type than in the schemas of `jwst`.
    """
    return {
        name: value
        for name, keyword in FITS_KEYWORDS.items()
        if (value := header.get(keyword)) is not None and _is_of_type(keyword, value)
    }


def _checked(keywords: Keywords, keyword: str) -> Value:
    """Return a value after checking its type; `UNDEFINED` if there is none."""
    value = keywords.header.get(keyword)
    if value is None or isinstance(value, fits.card.Undefined):
        return UNDEFINED
    if not _is_of_type(keyword, value):
        raise InputRejected(f"{keywords.name}: {keyword} is {value!r}, expected {_type(keyword)}")
    if keyword in WORDS:
        keywords.word(keyword)  # rejects a word that is not in capitals
    checked: Value = value
    return checked


def _is_of_type(keyword: str, value: object) -> bool:
    if keyword in LOGICALS:
        return isinstance(value, bool)
    if keyword in INTEGERS:
        return isinstance(value, int) and not isinstance(value, bool)
    if keyword in NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return isinstance(value, str)


def _type(keyword: str) -> str:
    """Name the type of a keyword for a message."""
    if keyword in LOGICALS:
        return "a logical (T or F)"
    if keyword in INTEGERS:
        return "an integer"
    return "a finite number" if keyword in NUMBERS else "a string"
