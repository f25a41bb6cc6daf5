"""Odd input, one case of each kind, for jwst and the function.

Every kind starts from a small exposure and a small mask that are right, and changes one thing in the
files. `python -m tests.conformance` puts them through both and writes the table.
"""

import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from astropy.io import fits
from numpy.typing import NDArray

from core.compat import MODEL_EXTENSIONS, Kind
from tests.conformance.cases import MODE, Case, write_case

__all__ = ["ODD", "Odd", "write_inputs", "write_odd"]

Change = Callable[[fits.HDUList], None]


@dataclass(frozen=True)
class Odd:
    """A kind of odd input.

    Attributes
    ----------
    what : str
        In words.
    case : `~tests.conformance.cases.Case`
        What is right, to begin with.
    exposure, mask, user_dq : callable
        Change one thing in an open file.
    content : callable
        Changes the exposure's bytes, last of all.
    on_purpose : str
        Why the outcomes differ, where they are meant to.
    """

    what: str
    case: Case
    exposure: Change | None = None
    mask: Change | None = None
    user_dq: Change | None = None
    content: Callable[[bytes], bytes] | None = None
    on_purpose: str = ""


def write_odd(odd: Odd, folder: Path) -> None:
    """Write the files of one kind."""
    write_case(odd.case, folder)
    files = {"exposure_uncal": odd.exposure, "mask": odd.mask, "user_dq": odd.user_dq}
    for name, change in files.items():
        if change is not None:
            path = folder / f"{name}.fits"
            with fits.open(BytesIO(path.read_bytes())) as hdus:
                change(hdus)
                hdus.writeto(path, overwrite=True, output_verify="ignore")
    if odd.content is not None:
        path = folder / "exposure_uncal.fits"
        path.write_bytes(odd.content(path.read_bytes()))


def write_inputs(odd: str, case: Mapping[str, Any], folder: Path) -> None:
    """Write the files of a golden case: a kind of odd input, or a case as JSON holds it."""
    if odd:
        write_odd(next(kind for kind in ODD if kind.what == odd), folder)
    else:
        write_case(Case(**case), folder)


def _window(extras: tuple[str, ...] = (), by: str = "mask", **header: Any) -> Case:
    """Return a NIRCam window of 8 x 6 pixels with a slightly larger mask; SUB64P for the rules."""
    mode = MODE["nircam-sub64p"]
    ny, nx = (64, 64) if by == "rules" else (6, 8)
    x, y = (1851, 1817) if by == "rules" else (3, 2)
    keywords = {
        "EXP_TYPE": mode.exposure_type, "FASTAXIS": 1, "SLOWAXIS": -2,
        "SUBSTRT1": x, "SUBSTRT2": y, "SUBSIZE1": nx, "SUBSIZE2": ny,
    }  # fmt: skip
    area = {"SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 16, "SUBSIZE2": 12}
    mask = {"shape": [12, 16], "header": {"INSTRUME": "NIRCAM", **area}, "style": "own"}
    return Case(
        "", mode.name, 7, {**keywords, **header}, (2, 3, ny, nx), mask if by == "mask" else None,
        extras, by=by,
    )  # fmt: skip


def _ruled() -> Case:
    """Return a window whose mask the rules select."""
    return _window(by="rules", SUBARRAY="SUB64P", DETECTOR="NRCB1")


def _guider(**header: Any) -> Case:
    mode = MODE["fgs1-acq1"]
    keywords = {
        "EXP_TYPE": "FGS_ACQ1", "FASTAXIS": -2, "SLOWAXIS": -1,
        "SUBSTRT1": 3, "SUBSTRT2": 2, "SUBSIZE1": 8, "SUBSIZE2": 6,
    }  # fmt: skip
    area = {"SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 16, "SUBSIZE2": 12}
    mask = {"shape": [12, 16], "header": {"INSTRUME": "FGS", **area}, "style": "own"}
    return Case("", mode.name, 8, {**keywords, **header}, (2, 2, 6, 8), mask)


def _superstripe(by: str = "mask", nints: int = 4, **header: Any) -> Case:
    mode = MODE["niriss-superstripe"]
    keywords = {
        "EXP_TYPE": mode.exposure_type, "FASTAXIS": 1, "SLOWAXIS": 2, "SUBARRAY": mode.subarray,
        "SUBSTRT1": 2, "SUBSTRT2": 1, "SUBSIZE1": 5, "SUBSIZE2": 4,
        "MSTR_RD1": 1, "MSTR_SK1": 9, "MSTR_RD2": 3, "MSTR_SK2": 0, "MSTR_RPT": 1, "MSTR_ILV": 0,
        "SSTR_STP": 3, "SSTR_NST": 2,
    }  # fmt: skip
    area = {"SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 9, "SUBSIZE2": 2048}
    mask = {"shape": [2048, 9], "header": {"INSTRUME": "NIRISS", **area}, "style": "own"}
    return Case(
        "", mode.name, 9, {**keywords, **header}, (nints, 2, 4, 5), mask if by == "mask" else None,
        by=by,
    )  # fmt: skip


def _set(**cards: Any) -> Change:
    def change(hdus: fits.HDUList) -> None:
        for keyword, value in cards.items():
            name = keyword.replace("DATE_OBS", "DATE-OBS")
            if value is None:
                del hdus[0].header[name]
            else:
                hdus[0].header[name] = value

    return change


def _pixels(name: str, make: Callable[[NDArray[Any]], NDArray[Any]]) -> Change:
    """Return a change of an array's format."""

    def change(hdus: fits.HDUList) -> None:
        hdus[name] = fits.ImageHDU(make(hdus[name].data), name=name, ver=1)

    return change


def _append(name: str, version: int, make: Callable[[fits.HDUList], NDArray[Any]]) -> Change:
    def change(hdus: fits.HDUList) -> None:
        hdus.insert(2, fits.ImageHDU(make(hdus), name=name, ver=version))

    return change


def _asdf(make: Callable[[bytes], bytes]) -> Change:
    """Return a change of the ASDF document."""

    def change(hdus: fits.HDUList) -> None:
        document = make(bytes(hdus["ASDF"].data[0][0]))
        array = np.frombuffer(document, dtype=np.uint8)[None, :]
        column = fits.Column("ASDF_METADATA", format=f"{len(document)}B", array=array)
        hdus["ASDF"] = fits.BinTableHDU.from_columns([column], name="ASDF")

    return change


def _only_in_asdf(path: str, keyword: str, value: Any) -> Change:
    """Return a change that moves a keyword from the header to the ASDF document."""

    def change(hdus: fits.HDUList) -> None:
        hdus[0].header.remove(keyword, ignore_missing=True)
        tree: dict[str, Any] = {"model_type": "Level1bModel", "telescope": "JWST"}
        group, name = path.split(".")
        tree[group] = {name: value}
        text = yaml.safe_dump({"meta": tree}, default_flow_style=None)
        head = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.5.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n--- !core/asdf-1.1.0\n"
        _asdf(lambda _: head + text.encode() + b"...\n")(hdus)

    return change


def _table(name: str, change: Callable[[list[str]], list[str]], ascii: bool = False) -> Change:  # noqa: A002
    """Return a change that adds a table of the ramp models with other columns."""
    expected = MODEL_EXTENSIONS[Kind.RAMP][name]
    assert isinstance(expected, frozenset)
    columns = [
        fits.Column(column, "I10" if ascii else "J", array=np.zeros(2, np.int32), ascii=ascii)
        for column in change(sorted(expected))
    ]
    maker = fits.TableHDU if ascii else fits.BinTableHDU

    def insert(hdus: fits.HDUList) -> None:
        hdus.insert(2, maker.from_columns(columns, name=name, ver=1))

    return insert


def _int_times(change_names: Callable[[list[str]], list[str]]) -> Change:
    def change(hdus: fits.HDUList) -> None:
        table = hdus["INT_TIMES"].data
        names = change_names(list(table.names))
        columns = [
            fits.Column(name, "D", array=np.zeros(len(table))) if name not in table.names
            else fits.Column(name, table.columns[name].format, array=table[name])
            for name in names
        ]  # fmt: skip
        hdus["INT_TIMES"] = fits.BinTableHDU.from_columns(columns, name="INT_TIMES", ver=1)

    return change


def _gzip(content: bytes) -> bytes:
    """Compress by gzip without a time stamp."""
    return gzip.compress(content, mtime=0)


def _compress(hdus: fits.HDUList) -> None:
    hdus["SCI"] = fits.CompImageHDU(
        hdus["SCI"].data.reshape(-1, *hdus["SCI"].shape[-2:])[0], name="SCI"
    )


def _several() -> Iterator[Odd]:
    window = _window()
    yield Odd("two HDUs named SCI", window, _append("SCI", 2, lambda h: h["SCI"].data))
    yield Odd("SCI with EXTVER 2 only", window, lambda h: h["SCI"].header.set("EXTVER", 2))
    for version in (0, None, -1):
        yield Odd(
            f"SCI with EXTVER {'undefined' if version is None else version}",
            window,
            lambda h, v=version: h["SCI"].header.__setitem__("EXTVER", v),
        )
    yield Odd("SCI without EXTVER", window, lambda h: h["SCI"].header.remove("EXTVER"))
    yield Odd(
        "two HDUs named PIXELDQ, EXTVER 2 first", _window(("pixeldq",)),
        lambda h: h.insert(2, fits.ImageHDU(h["PIXELDQ"].data ^ 1, name="PIXELDQ", ver=2)),
    )  # fmt: skip
    yield Odd(
        "PIXELDQ and GROUPDQ without data", _window(("pixeldq", "groupdq")),
        lambda h: [h.__setitem__(n, fits.ImageHDU(name=n, ver=1)) for n in ("PIXELDQ", "GROUPDQ")] and None,
    )  # fmt: skip
    yield Odd(
        "PIXELDQ and GROUPDQ without data, no mask", _window(("pixeldq", "groupdq"), by="none"),
        lambda h: [h.__setitem__(n, fits.ImageHDU(name=n, ver=1)) for n in ("PIXELDQ", "GROUPDQ")] and None,
    )  # fmt: skip
    yield Odd(
        "PIXELDQ with EXTVER 2 only",
        _window(("pixeldq",)),
        lambda h: h["PIXELDQ"].header.set("EXTVER", 2),
    )


def _not_opened() -> Iterator[Odd]:
    window = _window()
    yield Odd("ASDF that is no ASDF", window, _asdf(lambda d: b"nonsense" * 50))
    yield Odd("ASDF whose document breaks off", window, _asdf(lambda d: d[: len(d) - 20]))
    yield Odd("ASDF that is gzip", window, _asdf(_gzip))
    yield Odd(
        "ASDF whose YAML is broken",
        window,
        _asdf(lambda d: d.replace(b"{model_type", b"{model_type: {")),
    )
    yield Odd("no ASDF at all", window, lambda h: h.pop(-1) and None)
    yield Odd(
        "ZEROFRAME of four axes", _window(("zeroframe",)),
        _pixels("ZEROFRAME", lambda a: a[:, None]),
    )  # fmt: skip
    yield Odd(
        "INT_TIMES that lacks a column", _window(("int_times",)), _int_times(lambda n: n[:-1])
    )
    yield Odd(
        "INT_TIMES with a column too many",
        _window(("int_times",)),
        _int_times(lambda n: [*n, "more"]),
    )
    yield Odd(
        "INT_TIMES with columns of other names",
        _window(("int_times",)),
        _int_times(lambda n: [*n[:-1], "other"]),
    )
    yield Odd(
        "INT_TIMES in another order, in small letters",
        _window(("int_times",)),
        _int_times(lambda n: [*n[1:], n[0]]),
    )
    yield Odd(
        "GROUP that lacks columns",
        window,
        lambda h: h.insert(
            2,
            fits.BinTableHDU(
                np.zeros(3, [("integration_number", ">i4"), ("group_number", ">i2")]),
                name="GROUP",
                ver=1,
            ),
        ),
    )
    yield Odd(
        "Flight Reference Stars that lacks a column", _guider(),
        lambda h: h.insert(2, fits.BinTableHDU(np.zeros(1, [("reference_star_id", "S2"), ("id_x", ">f8")]), name="Flight Reference Stars", ver=1)),
    )  # fmt: skip
    for name in ("MSA_TARG_ACQ", "INT_TIMES_STRIPE"):
        yield Odd(name, window, _table(name, list))
        yield Odd(f"{name} that lacks a column", window, _table(name, lambda n: n[:-1]))
        yield Odd(f"{name} with a column too many", window, _table(name, lambda n: [*n, "MORE"]))
        yield Odd(f"{name} as ASCII table", window, _table(name, list, ascii=True))
        yield Odd(f"{name} that is an image", window, _append(name, 1, lambda h: h["SCI"].data[0]))
    for axes in (2, 3, 4):
        yield Odd(
            f"AVDRKCUR of {axes} axes",
            window,
            _append("AVDRKCUR", 1, lambda h, n=axes: h["SCI"].data[(0,) * (4 - n)].astype("f4")),
        )
    yield Odd(
        "REFOUT that is a table",
        window,
        lambda h: h.insert(2, fits.BinTableHDU(np.zeros(2, [("a", ">f4")]), name="REFOUT", ver=1)),
    )
    yield Odd(
        "ZEROFRAME without data",
        window,
        lambda h: h.insert(2, fits.ImageHDU(name="ZEROFRAME", ver=1)),
    )
    yield Odd(
        "REFOUT of two axes",
        window,
        lambda h: h.insert(2, fits.ImageHDU(np.zeros((3, 4), "u2"), name="REFOUT", ver=1)),
    )


def _pixel_types() -> Iterator[Odd]:
    window = _window()
    for kind in ("u1", "i2", "i4", "u4", "i8", "f8"):
        yield Odd(
            f"SCI of {np.dtype(kind).name}",
            window,
            _pixels("SCI", lambda a, k=kind: (a // 2 if k != "u1" else a % 250).astype(k)),
        )
    yield Odd(
        "ZEROFRAME of int32",
        _window(("zeroframe",)),
        _pixels("ZEROFRAME", lambda a: a.astype("i4")),
    )
    yield Odd("GROUPDQ of int8", _window(("groupdq",)), _pixels("GROUPDQ", lambda a: a.view("i1")))
    yield Odd(
        "GROUPDQ of int16", _window(("groupdq",)), _pixels("GROUPDQ", lambda a: a.astype("i2"))
    )
    yield Odd(
        "GROUPDQ of float32", _window(("groupdq",)), _pixels("GROUPDQ", lambda a: a.astype("f4"))
    )
    yield Odd("PIXELDQ of int32", _window(("pixeldq",)), _pixels("PIXELDQ", lambda a: a.view("i4")))
    yield Odd(
        "PIXELDQ of float64", _window(("pixeldq",)), _pixels("PIXELDQ", lambda a: a.astype("f8"))
    )
    yield Odd(
        "mask of float32, whole numbers",
        window,
        mask=_pixels("DQ", lambda a: (a & 255).astype("f4")),
    )
    yield Odd(
        "mask of float32, half numbers",
        window,
        mask=_pixels("DQ", lambda a: (a & 255) + np.float32(0.5)),
    )
    yield Odd("mask of int64", window, mask=_pixels("DQ", lambda a: a.astype("i8")))
    user = _window(("user_dq",))
    yield Odd("user DQ of float64, whole numbers", user, user_dq=lambda h: _user(h, "f8"))
    yield Odd("user DQ of float64, half numbers", user, user_dq=lambda h: _user(h, "f8", 0.5))
    yield Odd("user DQ of int16", user, user_dq=lambda h: _user(h, "i2"))


def _keywords() -> Iterator[Odd]:
    window = _window()
    for keyword, value in (
        ("SUBSTRT1", 3.0),
        ("SUBSIZE2", 6.0),
        ("SUBSTRT1", 3.5),
        ("SUBSTRT1", "3"),
    ):
        yield Odd(f"{keyword} = {value!r}", window, _set(**{keyword: value}))
    yield Odd("SSTR_NST = 2.0", _superstripe(), _set(SSTR_NST=2.0))
    yield Odd("MSTR_RD1 = 1.0", _superstripe(), _set(MSTR_RD1=1.0))
    yield Odd("FASTAXIS = 1.0", _superstripe(), _set(FASTAXIS=1.0))
    yield Odd("SUBSTRT1 = 3.0, no mask", _window(by="none"), _set(SUBSTRT1=3.0))
    yield Odd("INSTRUME = ' NIRCAM', mask named in the request", window, _set(INSTRUME=" NIRCAM"))
    for keyword, value in (
        ("INSTRUME", " NIRCAM"), ("INSTRUME", "nircam"), ("DETECTOR", "nrcb1"), ("DETECTOR", " NRCB1"),
        ("SUBARRAY", "sub64p"), ("SUBARRAY", " SUB64P"), ("SUBARRAY", "NO_SUCH"), ("EXP_TYPE", "nrc_image"), ("EXP_TYPE", "NO_SUCH"),
        ("READPATT", "rapid"),
    ):  # fmt: skip
        yield Odd(f"{keyword} = {value!r}", _ruled(), _set(**{keyword: value}))
    for keyword, value in (
        ("NGROUPS", "3"),
        ("NGROUPS", 3.0),
        ("NINTS", "2"),
        ("TSOVISIT", "true"),
    ):
        yield Odd(f"{keyword} = {value!r}", _ruled(), _set(**{keyword: value}))
    for keyword in ("EXP_TYPE", "SUBARRAY", "DETECTOR", "READPATT"):
        yield Odd(f"no {keyword}", _ruled(), _set(**{keyword: None}))
    yield Odd("EXP_TYPE = 'fgs_acq1'", _guider(), _set(EXP_TYPE="fgs_acq1"))
    yield Odd("EXP_TYPE = ' FGS_ACQ1'", _guider(), _set(EXP_TYPE=" FGS_ACQ1"))


def _only_in_metadata() -> Iterator[Odd]:
    yield Odd(
        "EXP_TYPE of a guider only in ASDF",
        _guider(),
        _only_in_asdf("exposure.type", "EXP_TYPE", "FGS_ACQ1"),
    )
    for path, keyword, value in (
        ("instrument.name", "INSTRUME", "NIRCAM"), ("instrument.detector", "DETECTOR", "NRCB1"),
        ("subarray.name", "SUBARRAY", "SUB64P"), ("exposure.readpatt", "READPATT", "RAPID"),
        ("subarray.xstart", "SUBSTRT1", 1851), ("observation.date", "DATE-OBS", "2023-03-01"),
    ):  # fmt: skip
        yield Odd(f"{keyword} only in ASDF", _ruled(), _only_in_asdf(path, keyword, value))
    yield Odd(
        "SSTR_NST only in ASDF",
        _superstripe(),
        _only_in_asdf("subarray.num_superstripe", "SSTR_NST", 2),
    )
    yield Odd(
        "MSTR_RD1 only in ASDF",
        _superstripe(),
        _only_in_asdf("subarray.multistripe_reads1", "MSTR_RD1", 1),
    )


def _geometry() -> Iterator[Odd]:
    window = _window()
    yield Odd(
        "superstripe mask with SUBSTRT1 only",
        _superstripe(),
        mask=_set(SUBSTRT2=None, SUBSIZE1=None, SUBSIZE2=None),
    )
    yield Odd(
        "superstripe mask with SUBSTRT1 and SUBSTRT2 only",
        _superstripe(),
        mask=_set(SUBSIZE1=None, SUBSIZE2=None),
    )
    yield Odd(
        "superstripe mask without corner",
        _superstripe(),
        mask=_set(SUBSTRT1=None, SUBSTRT2=None, SUBSIZE1=None, SUBSIZE2=None),
    )
    yield Odd(
        "superstripe mask with SUBSTRT2 only",
        _superstripe(),
        mask=_set(SUBSTRT1=None, SUBSIZE1=None, SUBSIZE2=None),
    )
    yield Odd("window mask with corner only", window, mask=_set(SUBSIZE1=None, SUBSIZE2=None))
    yield Odd("superstripe, 5 integrations of 2 stripes", _superstripe(nints=5))
    yield Odd("superstripe, 5 integrations of 2 stripes, no mask", _superstripe("none", nints=5))
    yield Odd("corner of 0, no mask", _window(by="none", SUBSTRT1=0))
    yield Odd(
        "no subarray keywords, no mask",
        _window(by="none"),
        _set(SUBSTRT1=None, SUBSIZE1=None, SUBSTRT2=None, SUBSIZE2=None),
    )


def _compressed() -> Iterator[Odd]:
    window = _window()
    yield Odd("exposure that is gzip", window, content=_gzip)
    yield Odd("SCI that is tile-compressed", window, _compress)


def _user(hdus: fits.HDUList, kind: str, more: float = 0) -> None:
    hdus[1] = fits.ImageHDU((hdus[1].data % 1000 + more).astype(kind))


_DROPPED = "jwst drops such a value, and may choose another mask unsaid"
_ONLY_THERE = "headers decide; what is said elsewhere only is refused, never overlooked"
_KEPT = "keywords pass through unchanged; jwst drops it"
_ON_PURPOSE = {
    'two HDUs named SCI': 'which one is meant is not known',
    **{f'SCI with EXTVER {version}': 'the first SCI of a raw exposure is 1' for version in ('2 only', '-1')},
    **dict.fromkeys(('MSA_TARG_ACQ', 'INT_TIMES_STRIPE'), 'tables pass through unchanged'),
    **{f'{name} as ASCII table': 'tables pass through unchanged; jwst writes binary ones'
       for name in ('MSA_TARG_ACQ', 'INT_TIMES_STRIPE')},
    **{f'{keyword} = {value!r}': 'keywords pass through unchanged; jwst drops it'
       for keyword, value in (('NGROUPS', '3'), ('NGROUPS', 3.0), ('NINTS', '2'), ('TSOVISIT', 'true'))},
    'two HDUs named PIXELDQ, EXTVER 2 first': 'EXTVER 1 is meant; jwst takes what stands first',
    'PIXELDQ with EXTVER 2 only': 'the first PIXELDQ is 1; jwst takes what stands first',
    'PIXELDQ and GROUPDQ without data, no mask': 'written as zeros; jwst leaves them empty, and reads zeros',
    'ASDF whose YAML is broken': 'the document is not parsed: that would cost more than the step',
    'INT_TIMES in another order, in small letters': 'tables pass through unchanged',
    'ZEROFRAME without data': 'what has no pixels passes through; jwst drops it',
    'mask of float32, half numbers': 'no flags; jwst cuts the fractions off',
    'user DQ of float64, half numbers': 'no flags; jwst cuts the fractions off',
    'SUBSTRT1 = 3.0, no mask': 'keywords pass through unchanged; jwst drops it',
    "INSTRUME = ' NIRCAM', mask named in the request": 'keywords pass through unchanged; jwst drops it',
    "EXP_TYPE = ' FGS_ACQ1'": 'jwst drops it and makes a ramp of a guider exposure',
    'exposure that is gzip': 'nothing is decompressed: it would be read as a whole',
    **{f"{keyword} = {value!r}": _DROPPED for keyword, value in (
        ("SUBARRAY", "sub64p"), ("SUBARRAY", " SUB64P"), ("EXP_TYPE", "nrc_image"), ("READPATT", "rapid"),
    )},
    **{f"{keyword} = 'NO_SUCH'": _KEPT for keyword in ("SUBARRAY", "EXP_TYPE")},
    **{f"{keyword} only in ASDF": _ONLY_THERE for keyword in (
        "EXP_TYPE of a guider", "INSTRUME", "DETECTOR", "SUBARRAY", "READPATT", "SUBSTRT1", "DATE-OBS",
        "SSTR_NST", "MSTR_RD1",
    )},
}  # fmt: skip

ODD = tuple(
    replace(
        odd,
        case=replace(odd.case, name=f"odd-{number:02d}"),
        on_purpose=_ON_PURPOSE.get(odd.what, ""),
    )
    for number, odd in enumerate(
        chain(
            _several(),
            _not_opened(),
            _pixel_types(),
            _keywords(),
            _only_in_metadata(),
            _geometry(),
            _compressed(),
        )
    )
)
"""All kinds of odd input."""
