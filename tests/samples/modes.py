"""The readout modes of the telescope, as the headers of raw exposures describe them.

Corners, sizes and axes are those of the instruments (JWST keyword dictionary, SIAF); stripe
keywords are those of the documented NIRCam DHS and NIRISS SOSS superstripe subarrays.
"""

from infra.demo.samples import Mode, stripes

__all__ = ["MODES", "Mode"]


def _guider(
    name: str, subarray: str, corner: tuple[int, int], shape: tuple[int, int, int, int]
) -> Mode:
    pattern = "ID" if name.startswith("ID-") else name
    return Mode(
        f"fgs1-{name.lower()}", "FGS", "GUIDER1", f"FGS_{name}", pattern, subarray,
        corner, (shape[3], shape[2]), (-2, -1), shape,
    )  # fmt: skip


_FULL = (2048, 2048)

MODES: tuple[Mode, ...] = (
    Mode(
        "nircam-full", "NIRCAM", "NRCA1", "NRC_IMAGE", "RAPID", "FULL",
        (1, 1), _FULL, (-1, 2), (1, 3, 2048, 2048), zeroframe=True,
    ),
    Mode(
        "nircam-sub64p", "NIRCAM", "NRCB1", "NRC_IMAGE", "RAPID", "SUB64P",
        (1851, 1817), (64, 64), (1, -2), (3, 5, 64, 64), zeroframe=True,
    ),
    Mode(
        "nircam-dhs", "NIRCAM", "NRCA1", "NRC_TSGRISM", "RAPID", "SUB164STRIPE4_DHS",
        (1, 1), (2048, 164), (-1, 2), (2, 4, 164, 2048),
        stripes=stripes(1, 1526, 40, 85, 1, 1, 0, 0),
    ),
    Mode(
        "nircam-superstripe", "NIRCAM", "NRCB1", "NRC_IMAGE", "RAPID", "SUB64P_SUPSTP002",
        (1851, 2046), (64, 8), (1, -2), (128, 3, 8, 64),
        stripes=stripes(1, 165, 1, 0, 1, 0, 1, 64),
    ),
    Mode(
        "niriss-full", "NIRISS", "NIS", "NIS_IMAGE", "NISRAPID", "FULL",
        (1, 1), _FULL, (-2, -1), (1, 1, 2048, 2048),
    ),
    Mode(
        "niriss-soss", "NIRISS", "NIS", "NIS_SOSS", "NISRAPID", "SUBSTRIP256",
        (1, 1793), (2048, 256), (-2, -1), (2, 4, 256, 2048),
    ),
    Mode(
        "niriss-ami", "NIRISS", "NIS", "NIS_AMI", "NISRAPID", "SUB80",
        (1045, 1), (80, 80), (-2, -1), (4, 5, 80, 80),
    ),
    Mode(
        "niriss-superstripe", "NIRISS", "NIS", "NIS_SOSS", "NISRAPID", "SUB204STRIPE_SOSS",
        (2048, 1793), (208, 256), (-2, -1), (20, 3, 256, 208),
        stripes=stripes(4, 0, 204, 0, 1, 1, 204, 10),
    ),
    Mode(
        "nirspec-irs2", "NIRSPEC", "NRS1", "NRS_MSASPEC", "NRSIRS2RAPID", "FULL",
        (1, 1), _FULL, (2, 1), (1, 1, 3200, 2048),
    ),
    Mode(
        "nirspec-s1600a1", "NIRSPEC", "NRS1", "NRS_BRIGHTOBJ", "NRSRAPID", "SUB2048",
        (1, 1041), (2048, 32), (2, 1), (5, 4, 32, 2048),
    ),
    Mode(
        "miri-full", "MIRI", "MIRIMAGE", "MIR_IMAGE", "FASTR1", "FULL",
        (1, 1), (1032, 1024), (1, 2), (2, 5, 1024, 1032), refout=True,
    ),
    Mode(
        "miri-brightsky", "MIRI", "MIRIMAGE", "MIR_IMAGE", "FASTR1", "BRIGHTSKY",
        (457, 51), (512, 512), (1, 2), (2, 6, 512, 512),
    ),
    _guider("ID-IMAGE", "2048X64", (13, 1), (1, 2, 2048, 2024)),
    _guider("ID-STACK", "2048X64", (1, 1), (1, 2, 2048, 2304)),
    _guider("ACQ1", "128X128", (1018, 841), (6, 2, 128, 128)),
    _guider("ACQ2", "32X32", (1067, 914), (5, 2, 32, 32)),
    _guider("TRACK", "32X32", (1214, 197), (192, 2, 32, 32)),
    _guider("FINEGUIDE", "8X8", (1226, 209), (384, 4, 8, 8)),
)  # fmt: skip
"""One mode of every kind."""
