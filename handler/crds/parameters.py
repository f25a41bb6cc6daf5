"""FITS keywords, types and words of the parameters that CRDS rules match on.

Rules name a parameter by its path in the JWST data models. `crds` finds the keyword in the schemas
of `stdatamodels`, which the function does not contain; these tables are taken from them.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from types import MappingProxyType

from astropy.io import fits

from core.errors import InputRejected, ReferenceUnavailable
from core.fits.hdus import Keywords

Value = str | int | float | bool
UNDEFINED = "UNDEFINED"  # the value that CRDS uses for a parameter that the exposure lacks

_INTEGERS = (
    "GROUPGAP NFRAMES NGROUPS NINTS NOUTPUTS NSAMPLES FASTAXIS MSTR_ILV MSTR_RD1 MSTR_RD2 "
    "MSTR_SK1 MSTR_SK2 SSTR_NST MSTR_RPT SLOWAXIS SSTR_STP SUBSIZE1 SUBSTRT1 SUBSIZE2 SUBSTRT2"
)
INTEGERS = frozenset(_INTEGERS.split())
NUMBERS = frozenset({"FOCUSPOS"})
LOGICALS = frozenset({"ZEROFRAM", "PILIN", "TSOVISIT"})

_WORDS = {
    "READPATT": (
        "ACQ1 ACQ2 ANY BRIGHT1 BRIGHT2 DEEP2 DEEP8 DHS3 DHS4 DHS5 DHS6 DHS7 FAST FASTGRPAVG "
        "FASTGRPAVG16 FASTGRPAVG32 FASTGRPAVG64 FASTGRPAVG8 FASTR1 FASTR100 FGS FGS60 FGS8370 "
        "FGS840 FGSRAPID FINEGUIDE ID MEDIUM2 MEDIUM8 MEDIUMDEEP2 MEDIUMDEEP8 N/A NIS NISRAPID "
        "NRS NRSIRS2 NRSIRS2RAPID NRSN16R4 NRSN32R8 NRSN8R2 NRSRAPID NRSRAPIDD1 NRSRAPIDD2 "
        "NRSRAPIDD6 NRSSLOW RAPID SHALLOW2 SHALLOW4 SLOW SLOWR1 TRACK"
    ),
    "EXP_TYPE": (
        "ANY FGS_ACQ1 FGS_ACQ2 FGS_DARK FGS_FINEGUIDE FGS_FOCUS FGS_ID-IMAGE FGS_ID-STACK "
        "FGS_IMAGE FGS_INTFLAT FGS_SKYFLAT FGS_TRACK MIR_4QPM MIR_CORONCAL MIR_DARKALL "
        "MIR_DARKIMG MIR_DARKMRS MIR_FLATIMAGE MIR_FLATIMAGE-EXT MIR_FLATMRS MIR_FLATMRS-EXT "
        "MIR_IMAGE MIR_LRS-FIXEDSLIT MIR_LRS-SLITLESS MIR_LYOT MIR_MRS MIR_TACONFIRM MIR_TACQ "
        "MIR_WFSS N/A NIS_AMI NIS_DARK NIS_EXTCAL NIS_FOCUS NIS_IMAGE NIS_LAMP NIS_SOSS "
        "NIS_TACONFIRM NIS_TACQ NIS_WFSS NRC_CORON NRC_DARK NRC_FLAT NRC_FOCUS NRC_GRISM "
        "NRC_IMAGE NRC_LED NRC_TACONFIRM NRC_TACQ NRC_TSGRISM NRC_TSIMAGE NRC_WFSC NRC_WFSS "
        "NRS_AUTOFLAT NRS_AUTOWAVE NRS_BRIGHTOBJ NRS_CONFIRM NRS_DARK NRS_FIXEDSLIT NRS_FOCUS "
        "NRS_IFU NRS_IMAGE NRS_LAMP NRS_MIMF NRS_MSASPEC NRS_MSATA NRS_TACONFIRM NRS_TACQ "
        "NRS_TASLIT NRS_VERIFY NRS_WATA"
    ),
    "BAND": (
        "ANY LONG LONG-MEDIUM LONG-SHORT MEDIUM MEDIUM-LONG MEDIUM-SHORT MULTIPLE N/A SHORT "
        "SHORT-LONG SHORT-MEDIUM"
    ),
    "CCCSTATE": ("CLOSED LOCKED OPEN UNKNOWN"),
    "CHANNEL": ("1 12 123 1234 2 234 3 34 4 ANY LONG N/A SHORT"),
    "CORONMSK": (
        "4QPM 4QPM_1065 4QPM_1140 4QPM_1550 LYOT LYOT_2300 MASK210R MASK335R MASK430R MASKA210R "
        "MASKA335R MASKA430R MASKALWB MASKASWB MASKLWB MASKSWB NONE"
    ),
    "DETECTOR": (
        "ANY GUIDER1 GUIDER2 MIRIFULONG MIRIFUSHORT MIRIMAGE MULTIPLE N/A NIS NRCA1 NRCA2 NRCA3 "
        "NRCA4 NRCALONG NRCB1 NRCB2 NRCB3 NRCB4 NRCBLONG NRS1 NRS2"
    ),
    "FILTER": (
        "ANY CLEAR F070LP F070W F090W F1000W F100LP F1065C F110W F1130W F1140C F115W F1280W "
        "F140M F140X F1500W F150W F150W2 F1550C F170LP F1800W F182M F187N F200W F2100W F210M "
        "F212N F2300C F250M F2550W F2550WR F277W F290LP F300M F322W2 F335M F356W F360M F380M "
        "F410M F430M F444W F460M F480M F560W F770W FLENS FND GR150C GR150R MULTIPLE N/A OPAQUE "
        "P750L WLP4"
    ),
    "FXD_SLIT": ("NONE S1600A1 S200A1 S200A2 S200B1 S400A1"),
    "GRATING": ("ANY G140H G140M G235H G235M G395H G395M MIRROR MULTIPLE N/A PRISM UNKNOWN"),
    "OPMODE": ("ANY BRIGHTOBJ FIXEDSLIT GRATING-ONLY IFU IMAGE MSASPEC N/A NONE"),
    "MODULE": ("A B MULTIPLE"),
    "INSTRUME": ("ANY FGS MIRI N/A NIRCAM NIRISS NIRSPEC TFI"),
    "PUPIL": (
        "ANY CLEAR CLEARP F090W F115W F140M F150W F158M F162M F164N F200W F323N F405N F466N "
        "F470N FLAT GDHS0 GDHS60 GR700XD GRISMC GRISMR GRISMV2 GRISMV3 MASKBAR MASKIPR MASKRND "
        "N/A NRM PINHOLES WLM8 WLP8"
    ),
    "SUBARRAY": (
        "128X128 2048X64 32X32 8X8 ALLSLITS BRIGHTSKY FULL FULLP FULL_IRS2 FULL_SUPSTP008 "
        "FULL_SUPSTP008P FULL_SUPSTP024 FULL_SUPSTP024P FULL_SUPSTP120 FULL_SUPSTP120P "
        "FULL_SUPSTP510 FULL_SUPSTP510P GENERIC MASK1065 MASK1140 MASK1550 MASK210R MASK335R "
        "MASK430R MASKA210R MASKA430R MASKBLWB MASKBSWB MASKLWB MASKLYOT MASKSWB N/A S200A1 "
        "S200A2 S200B1 S400A1 SLITLESSPRISM SLITLESSPRISM_IP SLITLESSPRISM_IPS SUB1024A "
        "SUB1024B SUB128 SUB128CNTR SUB128DIAG SUB128LL SUB128M4_PRISM SUB128_IP SUB160 SUB160P "
        "SUB160STRIPE4_DHS SUB164STRIPE4_DHS SUB17STRIPE_SOSS SUB2048 SUB204STRIPE_SOSS SUB256 "
        "SUB256M2_PRISM SUB256STRIPE4_DHS SUB260STRIPE4_DHS SUB32 SUB320 SUB320A335R "
        "SUB320A430R SUB320ALWB SUB320B335R SUB320B430R SUB320BLWB SUB32CNTR SUB32DIAG SUB32LL "
        "SUB32M16_PRISM SUB32TATS SUB32TATSGRISM SUB32TA_DHS SUB400P SUB400X256ALWB "
        "SUB40STRIPE1_DHS SUB41STRIPE1_DHS SUB512 SUB512S SUB60STRIPE_SOSS SUB64 SUB640 "
        "SUB640A210R SUB640ASWB SUB640B210R SUB640BSWB SUB64FP1A SUB64FP1B SUB64FP6A "
        "SUB64M8_PRISM SUB64P SUB64P_SUPSTP002 SUB64P_SUPSTP008 SUB64P_SUPSTP032 SUB64_IP "
        "SUB680STRIPE_SOSS SUB80 SUB80STRIPE2_DHS SUB82STRIPE2_DHS SUB8CNTR SUB8DIAG SUB8FP1A "
        "SUB8FP1B SUB8FP6A SUB8LL SUB96DHSPILA SUB96DHSPILB SUBAMPCAL SUBFSA210R SUBFSA335R "
        "SUBFSA430R SUBFSALWB SUBFSASWB SUBGRISM128 SUBGRISM256 SUBGRISM64 SUBIDSTRIPCENTER "
        "SUBIDSTRIPLL SUBNDA210R SUBNDA335R SUBNDA430R SUBNDALWBL SUBNDALWBS SUBNDASWBL "
        "SUBNDASWBS SUBNDB210R SUBNDB335R SUBNDB430R SUBNDBLWBL SUBNDBLWBS SUBNDBSWBL "
        "SUBNDBSWBS SUBPRISM SUBPRISM_IP SUBPRISM_IPS SUBS200A1 SUBS200A2 SUBS200B1 SUBS400A1 "
        "SUBSLIT SUBSTRIP256 SUBSTRIP80 SUBSTRIP96 SUBTAAMI SUBTASOSS SUBTUNE32CENTERG1 "
        "SUBTUNE32CENTERG2 SUBTUNE32LLG1 SUBTUNE32LLG2 WFSS128C WFSS128R WFSS64C WFSS64R"
    ),
    "VISITYPE": (
        "GENERIC PARALLEL_DARK_CALIBRATION PARALLEL_EXTERNAL_CALIBRATION PARALLEL_PURE "
        "PARALLEL_SLEW_CALIBRATION PRIME_STATION_KEEPING PRIME_TARGETED_FIXED "
        "PRIME_TARGETED_MOVING PRIME_UNTARGETED PRIME_WFSC_ROUTINE PRIME_WFSC_SENSING_CONTROL "
        "PRIME_WFSC_SENSING_ONLY PRIOR_MOMENTUM_UNLOAD"
    ),
}
WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {keyword: frozenset(words.split()) for keyword, words in _WORDS.items()}
)
"""Keyword to the words that it can hold; other keywords hold any text."""

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
    """Return the exposure's values of the parameters that a rule matches on."""
    values: dict[str, Value] = {}
    for name in (parameter.upper() for parameter in parameters):
        if name not in FITS_KEYWORDS:
            raise ReferenceUnavailable(
                f"{rule}: matches on {name}, expected a parameter of FITS_KEYWORDS; add it to "
                "handler/crds/parameters.py"
            )
        keyword = FITS_KEYWORDS[name]
        value = keywords.header.get(keyword)
        if value is None or isinstance(value, fits.card.Undefined):
            values[name] = UNDEFINED
            continue
        # jwst drops a value of another type, or a word in lower case, and chooses another mask.
        if not _has_type(keyword, value):
            expected = _type_name(keyword)
            raise InputRejected(f"{keywords.name}: {keyword} is {value!r}, expected {expected}")
        if keyword in WORDS:
            keywords.word(keyword)  # rejects a word in lower case
        values[name] = value
    return values


def unknown_words(keywords: Keywords, parameters: Iterable[str]) -> dict[str, str]:
    """Return the FITS keywords whose word is not in the schemas of `jwst`, and the words."""
    found = {}
    for name in parameters:
        keyword = FITS_KEYWORDS[name.upper()]
        value = keywords.header.get(keyword)
        if isinstance(value, str) and keyword in WORDS and value not in WORDS[keyword]:
            found[keyword] = value
    return found


def known_parameters(header: fits.Header) -> dict[str, Value]:
    """Return all parameters with valid types that an exposure has and a rule could match on."""
    return {
        name: value
        for name, keyword in FITS_KEYWORDS.items()
        if (value := header.get(keyword)) is not None and _has_type(keyword, value)
    }


def _has_type(keyword: str, value: object) -> bool:
    if keyword in LOGICALS:
        return isinstance(value, bool)
    if keyword in INTEGERS:
        return isinstance(value, int) and not isinstance(value, bool)
    if keyword in NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return isinstance(value, str)


def _type_name(keyword: str) -> str:
    if keyword in LOGICALS:
        return "a logical (T or F)"
    if keyword in INTEGERS:
        return "an integer"
    return "a finite number" if keyword in NUMBERS else "a string"
