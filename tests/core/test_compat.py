"""The ASDF document of an exposure: whole, and nothing in it that the header should say."""

import gzip
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.compat import _DECIDING, OPENED, Kind, check_asdf_agrees, check_jwst_can_open
from core.errors import InputRejected
from core.fits.hdus import locate_in
from infra.demo.samples.exposures import primary_header
from infra.demo.samples.modes import MODES

ARRAYS = [(kind, name, n) for kind in Kind for name, n in OPENED[kind].items() if type(n) is int]
TABLES = [
    (kind, name, sorted(columns))
    for kind in Kind
    for name, columns in OPENED[kind].items()
    if isinstance(columns, frozenset)
]


def check(hdu: Any, kind: Kind = Kind.RAMP) -> None:
    buffer = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    check_jwst_can_open(locate_in(buffer.getvalue(), "x.fits"), kind, "x.fits")


def table(name: str, columns: list[str]) -> fits.BinTableHDU:
    made = [fits.Column(column, "J", array=np.zeros(1, np.int32)) for column in columns]
    return fits.BinTableHDU.from_columns(made, name=name)


@pytest.mark.parametrize(("kind", "name", "axes"), ARRAYS)
def test_array_with_other_axes_is_rejected(kind: Kind, name: str, axes: int) -> None:
    check(fits.ImageHDU(np.ones((1,) * axes), name=name), kind)
    check(fits.ImageHDU(name=name), kind)
    for other in (axes - 1, axes + 1):
        with pytest.raises(InputRejected, match=f"{name} has {other} axes, expected {axes}"):
            check(fits.ImageHDU(np.ones((1,) * other), name=name), kind)
    with pytest.raises(InputRejected, match=f"{name} is a table, expected an image"):
        check(table(name, ["A"]), kind)


@pytest.mark.parametrize(("kind", "name", "columns"), TABLES)
def test_table_with_other_columns_is_rejected(kind: Kind, name: str, columns: list[str]) -> None:
    check(table(name, columns), kind)
    check(table(name, [column.lower() for column in columns[::-1]]), kind)
    with pytest.raises(InputRejected, match=f"{name} lacks {columns[-1]}, expected"):
        check(table(name, columns[:-1]), kind)
    with pytest.raises(InputRejected, match=f"{name} also has MORE, expected"):
        check(table(name, [*columns, "MORE"]), kind)
    with pytest.raises(InputRejected, match="is an image, expected a table"):
        check(fits.ImageHDU(np.ones((1, 1)), name=name), kind)


def test_ascii_table_is_accepted_as_jwst_does() -> None:
    names = OPENED[Kind.RAMP]["MSA_TARG_ACQ"]
    assert isinstance(names, frozenset)
    zeros = np.zeros(1, np.int32)
    columns = [fits.Column(name, "I10", array=zeros, ascii=True) for name in sorted(names)]
    check(fits.TableHDU.from_columns(columns, name="MSA_TARG_ACQ"))
    with pytest.raises(InputRejected, match=f"MSA_TARG_ACQ lacks {sorted(names)[0]}, expected"):
        check(fits.TableHDU.from_columns(columns[1:], name="MSA_TARG_ACQ"))


def test_table_of_another_kind_is_not_checked() -> None:
    check(table("Flight Reference Stars", ["A"]), Kind.RAMP)
    check(table("INT_TIMES", ["A"]), Kind.GUIDER)


MODE = {mode.name: mode for mode in MODES}
HEAD = (
    b"#ASDF 1.0.0\n#ASDF_STANDARD 1.5.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n"
    b"--- !core/asdf-1.1.0\nasdf_library: !core/software-1.0.0 {name: asdf}\n"
)
WHOLE = HEAD + b"meta: {model_type: Level1bModel, exposure: {type: FGS_ACQ1}}\n...\n"


def checked(document: bytes | None, mode: str = "fgs1-acq1", **removed: Any) -> None:
    header = primary_header(MODE[mode])
    for keyword in removed:
        header.remove(keyword, ignore_missing=True)
    hdus: list[Any] = [fits.PrimaryHDU(header=header)]
    if document is not None:
        array = np.frombuffer(document, np.uint8)[None, :]
        column = fits.Column("ASDF_METADATA", format=f"{len(document)}B", array=array)
        hdus.append(fits.BinTableHDU.from_columns([column], name="ASDF"))
    buffer = BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    content = buffer.getvalue()
    located = locate_in(content, "x.fits")
    check_asdf_agrees(located, lambda start, length: content[start : start + length], "x.fits")


def test_a_whole_document_is_not_looked_into() -> None:
    checked(WHOLE)
    checked(HEAD + b"meta: [this is: no, YAML\n...\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (gzip.compress, "is damaged, compressed or incomplete"),
        (lambda d: d[:-5], "is damaged, compressed or incomplete"),
        (lambda d: b"x" + d, "is damaged, compressed or incomplete"),
        (lambda d: b"", "is damaged, compressed or incomplete"),
    ],
)
def test_a_damaged_document_is_refused(damage: Callable[[bytes], Any], message: str) -> None:
    with pytest.raises(InputRejected, match=message):
        checked(damage(WHOLE))


def test_exposure_without_asdf_is_accepted_with_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    checked(None)
    assert "x.fits: no ASDF extension" in caplog.text


def test_what_only_the_document_says_is_refused() -> None:
    with pytest.raises(InputRejected, match="EXP_TYPE in the ASDF metadata only"):
        checked(WHOLE, EXP_TYPE=None)
    stripes = HEAD + b"meta:\n  subarray: {num_superstripe: 2, multistripe_reads1: null}\n...\n"
    with pytest.raises(InputRejected, match=": SSTR_NST in the ASDF metadata only"):
        checked(stripes)


def test_what_neither_says_is_no_fault_of_the_document() -> None:
    checked(HEAD + b"meta: {exposure: {type: null}}\n...\n", EXP_TYPE=None)
    checked(HEAD + b"meta: 5\n...\n", EXP_TYPE=None, SUBARRAY=None)
    checked(HEAD + b"other: !core/ndarray-1.0.0 {type: 1}\n...\n", EXP_TYPE=None)


def test_a_document_that_would_have_to_be_read_and_cannot_be_is_refused() -> None:
    with pytest.raises(InputRejected, match="cannot be read"):
        checked(HEAD + b"meta: {exposure: {type: A}\n...\n", EXP_TYPE=None)


DECIDING = [
    "EXP_TYPE",
    "READPATT",
    "INSTRUME",
    "DETECTOR",
    "DATE-OBS",
    "TIME-OBS",
    "SUBARRAY",
    "SUBSTRT1",
    "SUBSTRT2",
    "SUBSIZE1",
    "SUBSIZE2",
    "FASTAXIS",
    "SLOWAXIS",
    "MSTR_RD1",
    "MSTR_SK1",
    "MSTR_RD2",
    "MSTR_SK2",
    "MSTR_RPT",
    "MSTR_ILV",
    "SSTR_STP",
    "SSTR_NST",
]


def test_deciding_keywords_are_those_of_the_design() -> None:
    assert sorted(_DECIDING) == sorted(DECIDING)


@pytest.mark.parametrize("keyword", DECIDING)
def test_keyword_in_the_document_only_is_rejected(keyword: str) -> None:
    section, key = _DECIDING[keyword].split(".")
    with pytest.raises(InputRejected, match=f": {keyword} in the ASDF metadata only"):
        checked(HEAD + f"meta: {{{section}: {{{key}: 5}}}}\n...\n".encode(), **{keyword: None})


@pytest.mark.parametrize(
    "body",
    [
        b"a: &a {exposure: {type: A}}\nmeta: *a",
        b"a: &a {type: A}\nmeta: {exposure: *a}",
        b"a: &a {type: A}\nmeta: {exposure: {<<: *a}}",
        b"a: &a {meta: {exposure: {type: A}}}\n<<: *a",
    ],
    ids=["alias", "alias-of-section", "merge", "merge-at-the-root"],
)
def test_keyword_given_by_reference_is_rejected(body: bytes) -> None:
    with pytest.raises(InputRejected, match="EXP_TYPE in the ASDF metadata only"):
        checked(HEAD + body + b"\n...\n", EXP_TYPE=None)


def test_document_of_merges_is_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """240 kB of merges took 34 s when they were evaluated."""
    monkeypatch.setattr("yaml.constructor.SafeConstructor.flatten_mapping", None)
    keys = b",".join(b"k%d: 1" % number for number in range(2000))
    merges = b"".join(b"m%d: {<<: *a}\n" % number for number in range(2000))
    checked(HEAD + b"type: 1:59:59\na: &a {" + keys + b"}\n" + merges + b"...\n", EXP_TYPE=None)


@pytest.mark.parametrize(
    "body",
    [b"type: " + b"[" * 5000, b"type: " + b"[" * 101 + b"]" * 101, b"type: 1\n" + b"- a\n" * 3,
     b"type: [" + b"1," * 200_001 + b"1]"],
    ids=["open", "deep", "broken", "long"],
)  # fmt: skip
def test_document_without_bounds_is_rejected(body: bytes) -> None:
    with pytest.raises(InputRejected, match="ASDF metadata"):
        checked(HEAD + body + b"\n...\n", EXP_TYPE=None)


def test_document_that_numbers_a_moved_hdu_is_rejected() -> None:
    document = WHOLE.replace(b"meta:", b"a: !core/ndarray-1.0.0 {source: 'fits:2'}\nmeta:")
    with pytest.raises(InputRejected, match=r"x\.fits, ASDF: refers to HDU 2 by number"):
        checked(document)
    checked(document.replace(b"fits:2", b"fits:0"))
    checked(document.replace(b"fits:2", b"fits:ASDF,1"))


def test_document_that_names_a_missing_hdu_is_rejected() -> None:
    """jwst 3.0.0: KeyError, Extension ('SCI', 1) not found."""
    document = WHOLE.replace(b"meta:", b"a: !core/ndarray-1.0.0 {source: 'fits:SCI,1'}\nmeta:")
    with pytest.raises(InputRejected, match="refers to SCI with EXTVER 1, which the file lacks"):
        checked(document)
    checked(document.replace(b"SCI,1", b"ASDF,1"))
    checked(document.replace(b"SCI,1", b"PRIMARY,1"))
