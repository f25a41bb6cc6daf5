"""Cases for jwst and the function: exposures, masks, user DQ, faults.

A case is a directory: ``exposure_uncal.fits``, ``mask.fits`` (unless CRDS would say N/A), perhaps
``user_dq.fits``, and ``case.json``, which says what it is.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from tests.samples.exposures import asdf_hdu, int_times, primary_header
from tests.samples.modes import MODES, Mode

__all__ = ["Case", "kind_of", "random_cases", "write_case"]

MODE = {mode.name: mode for mode in MODES}


class Stable:
    """A random generator with the same numbers in every version of numpy.

    numpy freezes the stream of `RandomState`, not that of `Generator`:
    https://numpy.org/neps/nep-0019-rng-policy.html
    """

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)
        self.gamma, self.poisson = self._state.gamma, self._state.poisson

    def integers(
        self, low: int, high: int | None = None, size: Any = None, dtype: Any = np.int64
    ) -> Any:
        """Return integers from `low` (or 0) to `high`, exclusive."""
        low, high = (0, low) if high is None else (low, high)
        return self._state.randint(low, high, size, dtype)

    def random(self, size: Any = None, dtype: Any = np.float64) -> Any:
        """Return numbers in [0, 1)."""
        drawn = self._state.random_sample(size)
        return drawn if size is None else drawn.astype(dtype)


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    name : str
        Unique; the directory's name.
    mode : str
        Row of the results' table.
    seed : int
        Of the pixels, the mask and the flags.
    header : dict
        Keywords of the exposure that differ from the mode's own; None removes one.
    shape : tuple of int
        Of SCI.
    mask : dict
        Of the mask: shape, subarray keywords (or none), style of DQ_DEF. None: as `by` says.
    extras : tuple of str
        What else there is: zeroframe, refout, int_times, pixeldq, groupdq, dq, err, ..., user_dq;
        ramp: SCI is as detectors fill, for the whole pipeline (else it is any numbers);
        checksums: every HDU has CHECKSUM and DATASUM; extver_0, extver_undefined: of SCI.
    dtype : str
        Of SCI.
    by : str
        How the mask is chosen: ``mask`` (the case's own), ``rules`` (CRDS) or ``none`` (N/A).
    """

    name: str
    mode: str
    seed: int
    header: dict[str, Any]
    shape: tuple[int, ...]
    mask: dict[str, Any] | None = None
    extras: tuple[str, ...] = ()
    dtype: str = "uint16"
    by: str = "mask"


def write_case(case: Case, folder: Path) -> None:
    """Write a case's files."""
    folder.mkdir(parents=True)
    rng = Stable(case.seed)
    _exposure(case, rng).writeto(folder / "exposure_uncal.fits")
    if case.mask is not None:
        _mask(case.mask, rng).writeto(folder / "mask.fits")
    if "user_dq" in case.extras or "user_dq_misshapen" in case.extras:
        planes = _plane_shape(case)
        if "user_dq_misshapen" in case.extras:
            planes = (*planes[:-1], planes[-1] + 1)
        flags = rng.integers(0, 1 << 31, size=planes, dtype=np.int32)
        fits.HDUList(
            [fits.PrimaryHDU(), fits.ImageHDU(flags & rng.integers(0, 1 << 31, planes))]
        ).writeto(folder / "user_dq.fits")
    (folder / "case.json").write_text(json.dumps(asdict(case)))


def kind_of(case: Case) -> str:
    """Return the kind of exposure that the headers of a case describe."""
    if str(case.header["EXP_TYPE"]).upper().startswith(("FGS_ID", "FGS_ACQ", "FGS_TR", "FGS_FI")):
        return "guider"
    if (case.header.get("SSTR_NST") or 0) > 0:
        return "superstripe"
    return "ramp" if case.header.get("MSTR_RD1") is None else "substripe"


def _plane_shape(case: Case) -> tuple[int, ...]:
    image = tuple(case.shape[-2:])
    return (case.header["SSTR_NST"], *image) if kind_of(case) == "superstripe" else image


def _exposure(case: Case, rng: Stable) -> fits.HDUList:
    header = primary_header(MODE[case.mode])
    for keyword, value in case.header.items():
        if value is None:
            header.remove(keyword, ignore_missing=True)
        else:
            header[keyword] = value
    ramp = "ramp" in case.extras
    sci = _ramps(case.shape, rng) if ramp else rng.integers(0, 65536, size=case.shape)
    sci = sci.astype(case.dtype)
    hdus = fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(sci, name="SCI", ver=1)])
    if "extver_0" in case.extras:
        hdus["SCI"].header["EXTVER"] = 0
    if "extver_undefined" in case.extras:
        hdus["SCI"].header["EXTVER"] = None
    nints, ngroups, ny, nx = case.shape
    makers: dict[str, Callable[[], NDArray[Any]]] = {
        "zeroframe": lambda: rng.integers(0, 65536, (nints, ny, nx), dtype=np.uint16),
        "refout": lambda: rng.integers(
            0, 65536, (nints, ngroups, ny, max(nx // 4, 1)), dtype=np.uint16
        ),
        "pixeldq": lambda: rng.integers(0, 1 << 32, _plane_shape(case), dtype=np.uint32),
        "groupdq": lambda: rng.integers(0, 256, case.shape, dtype=np.uint8),
        "dq": lambda: rng.integers(0, 1 << 32, (ny, nx), dtype=np.uint32),
        "err": lambda: rng.random(case.shape, dtype=np.float32),
        "pixeldq_misshapen": lambda: rng.integers(0, 1 << 32, (ny + 1, nx), dtype=np.uint32),
        "groupdq_misshapen": lambda: rng.integers(
            0, 256, (nints, ngroups, ny, nx + 1), dtype=np.uint8
        ),
        "dq_misshapen": lambda: rng.integers(0, 1 << 32, (ny + 2, nx), dtype=np.uint32),
    }
    for extra in case.extras:
        if extra in makers:
            hdus.append(
                fits.ImageHDU(makers[extra](), name=extra.removesuffix("_misshapen").upper(), ver=1)
            )
    if "int_times" in case.extras:
        hdus.append(fits.BinTableHDU(int_times(nints), name="INT_TIMES", ver=1))
    hdus.append(asdf_hdu())
    if "checksums" in case.extras:
        for hdu in hdus:
            hdu.add_checksum()
    return hdus


def _ramps(shape: tuple[int, ...], rng: Stable) -> NDArray[Any]:
    """Return ramps with individual rates, cosmic rays and saturation."""
    rates = rng.gamma(1.0, 2000, shape[-2:])
    signal = rng.poisson(np.broadcast_to(rates, shape)).astype(np.float64)
    signal += 10_000 * (rng.random(shape) < 0.01)
    return np.clip(1000 + signal.cumsum(axis=1), 0, 65535)


STYLES = {
    "none": [],
    "empty": [],
    "own": [(0, 1, "DO_NOT_USE"), (1, 2, "DEAD"), (2, 4, "HOT"), (3, 8, "RC"), (4, 16, "RC"),
            (3, 8, "UNRELIABLE_SLOPE"), (5, 32, "LOW_QE"), (6, 64, "NOISY"), (7, 128, "REFERENCE_PIXEL")],
    "wide": [(0, 5, "DO_NOT_USE"), (1, 6, "DEAD"), (31, -(1 << 31), "OPEN"), (30, 1 << 30, "GOOD"), (9, 512, " HOT ")],
}  # fmt: skip


def _mask(spec: dict[str, Any], rng: Stable) -> fits.HDUList:
    shape = tuple(spec["shape"])
    dq = rng.integers(0, 1 << 32, shape, dtype=np.uint32)
    dq &= rng.integers(0, 1 << 32, shape, dtype=np.uint32)
    dq[rng.random(shape) < 0.5] = 0
    primary = fits.PrimaryHDU()
    primary.header.update({"TELESCOP": "JWST", "REFTYPE": "MASK", "DATAMODL": "MaskModel"})
    primary.header.update(spec["header"])
    hdus = [primary, fits.ImageHDU(dq, name="DQ")]
    if spec["style"] != "none":
        columns = np.dtype(
            [("BIT", ">i4"), ("VALUE", ">i4"), ("NAME", "S40"), ("DESCRIPTION", "S80")]
        )
        rows = [(bit, value, name, "") for bit, value, name in STYLES[spec["style"]]]
        hdus.append(fits.BinTableHDU(np.array(rows, dtype=columns), name="DQ_DEF"))
    return fits.HDUList(hdus)


def random_cases(count: int, seed: int) -> Iterator[Case]:
    """Yield cases with random geometry, masks and faults in each mode."""
    rng = Stable(seed)
    makers = (
        _random_window,
        _random_window,
        _random_stripes,
        _random_superstripes,
        _random_guider,
        _random_irs2,
    )
    for number in range(count):
        maker = makers[rng.integers(len(makers))]
        case = maker(rng, f"random-{seed}-{number:05d}")
        if rng.random() < 0.2:
            case = replace(case, extras=(*case.extras, "checksums"))
        yield _with_fault(rng, case) if rng.random() < 0.3 else case


def _subarray(corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    return {"SUBSTRT1": int(corner[0]), "SUBSTRT2": int(corner[1]),
            "SUBSIZE1": int(size[0]), "SUBSIZE2": int(size[1])}  # fmt: skip


def _pick(rng: Stable, *choices: Any) -> Any:
    return choices[rng.integers(len(choices))]


def _mask_spec(
    rng: Stable, instrument: str, area: dict[str, Any] | None, shape: tuple[int, int]
) -> dict[str, Any]:
    return {"shape": [int(n) for n in shape], "header": {"INSTRUME": instrument, **(area or {})},
            "style": _pick(rng, "none", "empty", "own", "own", "wide")}  # fmt: skip


def _seed(rng: Stable) -> int:
    return int(rng.integers(1 << 31))


def _random_window(rng: Stable, name: str) -> Case:
    """Return a window of a small detector; its mask covers the detector, a part, or the window."""
    mode = MODE[_pick(rng, "nircam-sub64p", "niriss-ami", "miri-brightsky", "nirspec-s1600a1")]
    x0, y0 = (int(n) for n in rng.integers(1, 6, 2))
    columns, rows = (int(n) for n in rng.integers(8, 60, 2))
    nx, ny = int(rng.integers(1, columns + 1)), int(rng.integers(1, rows + 1))
    x, y = x0 + int(rng.integers(0, columns - nx + 1)), y0 + int(rng.integers(0, rows - ny + 1))
    if rng.random() < 0.3:
        x, y, nx, ny = x0, y0, columns, rows
    shape = tuple(int(n) for n in (*rng.integers(1, 4, 2), ny, nx))
    area = _subarray((x0, y0), (columns, rows))
    if rng.random() < 0.15:  # the declared size differs from the array
        area["SUBSIZE1"] += int(rng.integers(-3, 4))
        area["SUBSIZE2"] += int(rng.integers(-3, 4))
    extras = [extra for extra in ("pixeldq", "groupdq", "user_dq") if rng.random() < 0.25]
    if mode.instrument == "NIRCAM":
        extras += ["zeroframe"] if rng.random() < 0.5 else []
    if mode.instrument == "MIRI":
        extras += ["refout"] if rng.random() < 0.5 else []
    header = {**_base(mode), **_subarray((x, y), (nx, ny))}
    return Case(name, mode.name, _seed(rng), header, shape, _mask_spec(rng, mode.instrument, area, (rows, columns)),
                tuple(extras), _pick(rng, "uint16", "uint16", "float32"))  # fmt: skip


def _base(mode: Mode) -> dict[str, Any]:
    return {"EXP_TYPE": mode.exposure_type, "FASTAXIS": mode.axes[0], "SLOWAXIS": mode.axes[1]}


def _random_stripes(rng: Stable, name: str) -> Case:
    """Return a substripe readout of a full detector."""
    mode = MODE["nircam-dhs"]
    slow = _pick(rng, 2, -2, 1, -1)
    fast = (2 if abs(slow) == 1 else 1) * _pick(rng, 1, -1)
    rd1, rd2 = int(rng.integers(0, 5)), int(rng.integers(1, 12))
    sk1, sk2 = int(rng.integers(0, 300)), int(rng.integers(0, 40))
    repeat, interleave = int(rng.integers(0, 2)), int(rng.integers(0, 2))
    blocks = int(rng.integers(1, 6))
    size = rd1 + rd2 + (blocks - 1) * (rd2 + (rd1 if repeat else 0))
    dhs = rng.random() < 0.4
    start = _start(rng)
    start = 2049 - start if slow < 0 and rng.random() < 0.9 else start
    return _striped_case(rng, name, mode, (fast, slow), start, size, {
        "MSTR_RD1": rd1, "MSTR_SK1": sk1, "MSTR_RD2": rd2, "MSTR_SK2": sk2, "MSTR_RPT": repeat,
        "MSTR_ILV": interleave, "SSTR_STP": 0, "SSTR_NST": 0,
        "SUBARRAY": "SUB164STRIPE4_DHS" if dhs else "SUB640"}, int(rng.integers(1, 3)))  # fmt: skip


def _start(rng: Stable) -> int:
    """Return the 1-based start row of a stripe, often one of the first."""
    return int(rng.integers(1, 4) if rng.random() < 0.3 else rng.integers(1, 600))


def _random_superstripes(rng: Stable, name: str) -> Case:
    """Return a superstripe readout: several images of one readout."""
    mode = MODE["niriss-superstripe"]
    slow = _pick(rng, 2, -2, 1, -1)
    fast = (2 if abs(slow) == 1 else 1) * _pick(rng, 1, -1)
    count, step = int(rng.integers(1, 9)), int(rng.integers(1, 20))
    rd1, rd2 = int(rng.integers(0, 5)), _pick(rng, 0, int(rng.integers(1, 12)), step)
    block = rd2 if rd2 > 0 else step
    repeat, interleave = int(rng.integers(0, 2)), int(rng.integers(0, 2))
    blocks = int(rng.integers(1, 4))
    size = rd1 + block + (blocks - 1) * (block + (rd1 if repeat else 0))
    start = _start(rng)
    start = 2049 - start if slow < 0 else start
    return _striped_case(rng, name, mode, (fast, slow), start, size, {
        "MSTR_RD1": rd1, "MSTR_SK1": int(rng.integers(0, 200)), "MSTR_RD2": rd2,
        "MSTR_SK2": int(rng.integers(0, 10)), "MSTR_RPT": repeat, "MSTR_ILV": interleave,
        "SSTR_STP": step, "SSTR_NST": count, "SUBARRAY": "SUB204STRIPE_SOSS"},
        count * int(rng.integers(1, 3)))  # fmt: skip


def _striped_case(
    rng: Stable, name: str, mode: Mode, axes: tuple[int, int], start: int, size: int,
    stripes: dict[str, Any], nints: int,
) -> Case:  # fmt: skip
    fast_size, fast_start = int(rng.integers(1, 12)), int(rng.integers(1, 8))
    fast_length = fast_start + fast_size + int(rng.integers(0, 8)) - 1
    image = (size, fast_size) if abs(axes[1]) == 2 else (fast_size, size)
    corner = (fast_start, start) if abs(axes[1]) == 2 else (start, fast_start)
    mask_shape = (2048, fast_length) if abs(axes[1]) == 2 else (fast_length, 2048)
    header = {"EXP_TYPE": mode.exposure_type, "FASTAXIS": axes[0], "SLOWAXIS": axes[1],
              **_subarray(corner, image[::-1]), **stripes}  # fmt: skip
    area = _subarray((1, 1), mask_shape[::-1])
    extras = tuple(
        extra for extra in ("pixeldq", "groupdq", "user_dq", "zeroframe") if rng.random() < 0.25
    )
    return Case(name, mode.name, _seed(rng), header, (nints, int(rng.integers(1, 4)), *image),
                _mask_spec(rng, mode.instrument, area, mask_shape), extras)  # fmt: skip


def _random_guider(rng: Stable, name: str) -> Case:
    mode = MODE[_pick(rng, *[mode.name for mode in MODES if mode.instrument == "FGS"])]
    ny, nx = (int(n) for n in rng.integers(1, 20, 2))
    y, x = (int(n) for n in rng.integers(1, 20, 2))
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 4)), ny, nx)
    extras = tuple(extra for extra in ("dq", "err", "user_dq") if rng.random() < 0.25)
    header = {**_base(mode), **_subarray((x, y), (nx, ny))}
    if rng.random() < 0.2:  # stripe keywords, which guiders do not use
        header |= {"MSTR_RD1": 0, "MSTR_SK1": 0, "MSTR_RD2": nx, "MSTR_SK2": 0, "MSTR_RPT": 0,
                   "MSTR_ILV": 0, "SSTR_STP": 1, "SSTR_NST": int(rng.integers(0, 3))}  # fmt: skip
    return Case(name, mode.name, _seed(rng), header, shape,
                _mask_spec(rng, "FGS", _subarray((1, 1), (40, 40)), (40, 40)), extras)  # fmt: skip


def _random_irs2(rng: Stable, name: str) -> Case:
    """Return an IRS2 case: 3200 rows declared as 2048 or otherwise, few columns."""
    mode = MODE["nirspec-irs2"]
    columns = int(rng.integers(1, 6))
    declared, of_mask = (_pick(rng, 2048, 2048, 2048, 3200, 2040) for _ in range(2))
    header = {**_base(mode), **_subarray((1, 1), (columns, declared))}
    rows = _pick(rng, 3200, 3200, 3200, 2048)
    mask = _mask_spec(rng, "NIRSPEC", _subarray((1, 1), (columns, of_mask)), (rows, columns))
    return Case(
        name, mode.name, _seed(rng), header, (1, int(rng.integers(1, 3)), 3200, columns), mask
    )


def _with_fault(rng: Stable, case: Case) -> Case:
    """Damage one thing."""
    header = dict(case.header)
    keywords = [keyword for keyword in header if keyword not in {"EXP_TYPE", "SUBARRAY"}]
    keyword = _pick(rng, *keywords)
    match _pick(rng, "remove", "shift", "shift", "misshapen", "mask", "user", "extver"):
        case "remove":
            header[keyword] = None
        case "shift":
            header[keyword] = int(header[keyword]) + int(_pick(rng, -3, -1, 1, 2, 100, -2048))
        case "misshapen":
            guider = case.header["EXP_TYPE"].upper().startswith("FGS_")
            names = ("dq_misshapen",) if guider else ("pixeldq_misshapen", "groupdq_misshapen")
            return replace(case, extras=(*[e for e in case.extras if "dq" not in e], *names))
        case "mask":
            mask = {**case.mask, "header": dict(case.mask["header"])} if case.mask else None
            if mask:
                key = _pick(rng, "SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")
                mask["header"][key] += int(_pick(rng, -1, 1, 3, -3))
            return replace(case, mask=mask)
        case "extver":
            extra = _pick(rng, "extver_0", "extver_undefined")
            return replace(case, extras=(*case.extras, extra))
        case "user":
            return replace(
                case, extras=(*[e for e in case.extras if e != "user_dq"], "user_dq_misshapen")
            )
    return replace(case, header=header)
