"""Every detector and readout mode of the telescope, as one case each.

Corners and sizes of subarrays come from the telescope's own aperture file (the SIAF, by `pysiaf`,
which lives in jwst's environment: ``with_jwst.py apertures``); NIRSpec's are not in it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.conformance.cases import Case
from tests.samples.masks import SampleMask
from tests.samples.mirror import Rules

__all__ = ["MASKS", "MATRIX_RULES", "matrix"]

_NIRCAM_X = ("NRCA1", "NRCA3", "NRCALONG", "NRCB2", "NRCB4")  # read from right to left
AXES = {
    **{
        f"NRC{d}": (1, -2)
        for d in (["A1", "A2", "A3", "A4", "ALONG", "B1", "B2", "B3", "B4", "BLONG"])
    },
    **dict.fromkeys(_NIRCAM_X, (-1, 2)),
    "NIS": (-2, -1),
    "NRS1": (2, 1),
    "NRS2": (-2, -1),
    "MIRIMAGE": (1, 2),
    "MIRIFULONG": (1, 2),
    "MIRIFUSHORT": (1, 2),
    "GUIDER1": (-2, -1),
    "GUIDER2": (2, -1),
}
INSTRUMENT = {"NRC": "NIRCAM", "NIS": "NIRISS", "NRS": "NIRSPEC", "MIR": "MIRI", "GUI": "FGS"}
DETECTOR = {"NRCA5": "NRCALONG", "NRCB5": "NRCBLONG", "MIRIM": "MIRIMAGE", "FGS1": "GUIDER1", "FGS2": "GUIDER2"}  # fmt: skip
TYPE = {"NIRCAM": "NRC_IMAGE", "NIRISS": "NIS_IMAGE", "NIRSPEC": "NRS_MSASPEC", "MIRI": "MIR_IMAGE", "FGS": "FGS_IMAGE"}  # fmt: skip
PATTERN = {"NIRCAM": "RAPID", "NIRISS": "NISRAPID", "NIRSPEC": "NRSRAPID", "MIRI": "FASTR1", "FGS": "FGSRAPID"}  # fmt: skip


def instrument_of(detector: str) -> str:
    return INSTRUMENT[detector[:3]]


def _full(detector: str) -> tuple[int, int]:
    return (1032, 1024) if detector.startswith("MIRI") else (2048, 2048)


MASKS = tuple(
    SampleMask(
        f"jwst_{instrument_of(detector).lower()}_mask_{8000 + number}.fits",
        instrument_of(detector),
        detector,
        size=_full(detector),
        rows=_full(detector)[1],
        own_bits=number % 3 != 0,
    )
    for number, detector in enumerate(AXES)
)
MASKS += (
    SampleMask("jwst_nirspec_mask_8101.fits", "NIRSPEC", "NRS1", "FULL", rows=3200),
    SampleMask("jwst_nirspec_mask_8102.fits", "NIRSPEC", "NRS2", "FULL", rows=3200),
    SampleMask("jwst_fgs_mask_8101.fits", "FGS", "GUIDER1", size=(2304, 2048)),
)


def _rules() -> Rules:
    place = ("META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME")
    more = {"nirspec": ("META.EXPOSURE.READPATT",), "fgs": ("META.EXPOSURE.TYPE",)}
    rules: dict[str, tuple[tuple[str, ...], dict[tuple[tuple[str, ...], str], int]]] = {}
    for mask in MASKS:
        instrument = mask.instrument.lower()
        parameters, choices = rules.setdefault(
            instrument, ((*place, *more.get(instrument, ())), {})
        )
        third = "NRSIRS2|NRSIRS2RAPID" if mask.rows == 3200 else "FGS_ID-STACK" if mask.size[0] == 2304 else "N/A"  # fmt: skip
        values = (mask.detector, mask.subarray, third)[: len(parameters)]
        choices[values, "2000-01-01 00:00:00"] = int(mask.name[-9:-5])
    return rules


MATRIX_RULES = _rules()


def _case(
    name: str, detector: str, area: tuple[int, ...], shape: tuple[int, ...] | None = None,
    extras: tuple[str, ...] = (), by: str = "rules", **header: Any,
) -> Case:  # fmt: skip
    instrument = instrument_of(detector)
    x, y, nx, ny = area
    base = {
        "INSTRUME": instrument, "DETECTOR": detector, "EXP_TYPE": TYPE[instrument],
        "READPATT": PATTERN[instrument], "SUBARRAY": "FULL", "SUBSTRT1": x, "SUBSTRT2": y,
        "SUBSIZE1": nx, "SUBSIZE2": ny, "ZEROFRAM": "zeroframe" in extras, "NOUTPUTS": 4, "TFRAME": 10.7, "TGROUP": 10.7, "FASTAXIS": AXES[detector][0], "SLOWAXIS": AXES[detector][1],
    }  # fmt: skip
    return Case(
        name, "nircam-sub64p", sum(name.encode()), base | header, shape or (1, 2, ny, nx), None, extras, by=by
    )  # fmt: skip


_DHS = (("SUB41STRIPE1_DHS", 1), ("SUB82STRIPE2_DHS", 2), ("SUB164STRIPE4_DHS", 4), ("SUB260STRIPE4_DHS", 4))  # fmt: skip
_SOSS = (("SUB17STRIPE_SOSS", 17), ("SUB60STRIPE_SOSS", 60), ("SUB204STRIPE_SOSS", 204), ("SUB680STRIPE_SOSS", 680))  # fmt: skip
_NIRSPEC = (("ALLSLITS", 1, 897, 2048, 256), ("SUB2048", 1, 1041, 2048, 32), ("SUB512", 897, 974, 512, 32),
            ("SUB512S", 897, 1000, 512, 16), ("SUB32", 1009, 1013, 32, 32), ("S200A1", 1, 1057, 2048, 64))  # fmt: skip
_GUIDER = {"FGS_ID-IMAGE": (13, 1, 2024, 2048), "FGS_ID-STACK": (1, 1, 2304, 2048), "FGS_ACQ1": (1018, 841, 128, 128),
           "FGS_ACQ2": (1067, 914, 32, 32), "FGS_TRACK": (1214, 197, 32, 32), "FGS_FINEGUIDE": (1226, 209, 8, 8)}  # fmt: skip


WHOLE_PIPELINE = "whole detector pipeline"
_TO_THE_END = (
    "full-nrca2", "nrcb1-sub64p", "nrca5-grism64-f322w2", "nis-sub256", "nrs1-sub512", "mirim-mask1065",
    "fgs1-sub128cntr", "nrca1-sub164stripe4_dhs", "sub204stripe_soss",
)  # fmt: skip
"""Cases that are also compared after the whole pipeline, with enough groups for a slope."""


def matrix(apertures: list[list[Any]]) -> Iterator[tuple[str, Case]]:
    """Yield (row of the table, case) of the whole matrix."""
    for row, case in _modes(apertures):
        yield row, case
        if case.name in _TO_THE_END:
            yield WHOLE_PIPELINE, _with_ramps(case)


def _with_ramps(case: Case) -> Case:
    nints, _, *image = case.shape
    exposed = {
        "NINTS": nints,
        "NGROUPS": 5,
        "NFRAMES": 1,
        "GROUPGAP": 0,
        "DRPFRMS1": 0,
        "DRPFRMS3": 0,
    }
    shape = (nints, 5, *image)
    return replace(
        case,
        name=f"ramp-{case.name}",
        header=case.header | exposed,
        shape=shape,
        extras=(*case.extras, "ramp"),
    )


def _modes(apertures: list[list[Any]]) -> Iterator[tuple[str, Case]]:
    for detector in AXES:
        nx, ny = _full(detector)
        extras = ("zeroframe",) if detector.startswith("NRC") else ("refout",) if nx == 1032 else ()
        yield (
            f"{instrument_of(detector)} full frame",
            _case(f"full-{detector.lower()}", detector, (1, 1, nx, ny), (1, 1, ny, nx), extras),
        )
    for _, sca, aperture, *area in apertures:
        detector = DETECTOR.get(sca, sca)
        name = aperture.lower().replace("_", "-")
        yield (
            f"{instrument_of(detector)} subarrays of the SIAF",
            _case(name, detector, tuple(area), SUBARRAY="SUB64"),
        )
    for name, *area in _NIRSPEC:
        for detector in ("NRS1", "NRS2"):
            yield (
                "NIRSPEC subarrays",
                _case(f"{detector}-{name}".lower(), detector, tuple(area), SUBARRAY=name),
            )
    for detector in ("NRS1", "NRS2"):
        yield "NIRSPEC IRS2", _case(
            f"irs2-{detector.lower()}", detector, (1, 1, 2048, 2048), (1, 1, 3200, 2048), READPATT="NRSIRS2RAPID",
            NRS_NORM=16, NRS_REF=4,
        )  # fmt: skip
    yield from _striped()
    for exposure_type, area in _GUIDER.items():
        for extras in ((), ("dq",), ("err", "user_dq")) if area[2] < 200 else ((),):
            yield "FGS guider types", _case(
                f"{exposure_type}-{'-'.join(extras)}".lower(), "GUIDER1", area, (2, 2, area[3], area[2]), extras,
                EXP_TYPE=exposure_type,
            )  # fmt: skip
    for extras in (("pixeldq",), ("groupdq",), ("pixeldq", "groupdq", "user_dq"), ("user_dq",), ("int_times",),
                   ("pixeldq_misshapen", "groupdq_misshapen")):  # fmt: skip
        for by in ("rules", "none"):
            yield "existing arrays, user DQ, no mask", _case(
                f"{'-'.join(extras)}-{by}", "NRCB1", (1851, 1817, 64, 64), (2, 3, 64, 64), extras, by,
                SUBARRAY="SUB64P",
            )  # fmt: skip


def _striped() -> Iterator[tuple[str, Case]]:
    for name, count in _DHS:
        reads2 = 64 if name.startswith("SUB260") else 40
        size = count * (1 + reads2)
        for detector, skips, interleave in (
            ("NRCA1", (1526, 85), 1),
            ("NRCA3", (1526, 85), 1),
            ("NRCALONG", (971, 0), 0),
        ):
            if 1 + skips[0] + count * (reads2 + skips[1]) > 2048:
                skips = (1300, 60)  # noqa: PLW2901  # values that fit the detector
            yield "NIRCAM DHS substripes", _case(
                f"{detector}-{name}".lower(), detector, (1, 1, 2048, size), (1, 2, size, 2048), SUBARRAY=name,
                MSTR_RD1=1, MSTR_SK1=skips[0], MSTR_RD2=reads2, MSTR_SK2=skips[1], MSTR_RPT=1,
                MSTR_ILV=interleave, SSTR_STP=0, SSTR_NST=0,
            )  # fmt: skip
    for name, width in _SOSS:
        count = 2040 // width
        yield "NIRISS SOSS superstripes", _case(
            name.lower(), "NIS", (2048, 1793, width + 4, 256), (count, 2, 256, width + 4), EXP_TYPE="NIS_SOSS",
            SUBARRAY=name, MSTR_RD1=4, MSTR_SK1=0, MSTR_RD2=width, MSTR_SK2=0, MSTR_RPT=1, MSTR_ILV=1,
            SSTR_STP=width, SSTR_NST=count,
        )  # fmt: skip
    for rows, stripes, reads1, repeats in ((8, 64, 1, 4), (8, 8, 0, 1)):
        yield "NIRCAM superstripes", _case(
            f"sub64p-supstp-{stripes}", "NRCB1", (1851, 1880, 64, rows), (2 * stripes, 3, rows, 64),
            SUBARRAY="SUB64P", MSTR_RD1=reads1, MSTR_SK1=0, MSTR_RD2=1 if repeats > 1 else 0, MSTR_SK2=0,
            MSTR_RPT=int(repeats > 1), MSTR_ILV=0, SSTR_STP=64 // stripes, SSTR_NST=stripes,
        )  # fmt: skip
