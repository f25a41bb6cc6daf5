"""Extensions that the jwst data models can open, and the ASDF document of an exposure."""

import gzip
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from core.compat import _DECIDING, MODEL_EXTENSIONS, Kind, check_asdf_agrees, check_jwst_can_open
from core.errors import InputRejected
from core.fits.hdus import locate_in, reader_of
from tests.samples.exposures import primary_header
from tests.samples.modes import MODES

ARRAYS = [
    (kind, name, n) for kind in Kind for name, n in MODEL_EXTENSIONS[kind].items() if type(n) is int
]
TABLES = [
    (kind, name, sorted(columns))
    for kind in Kind
    for name, columns in MODEL_EXTENSIONS[kind].items()
    if isinstance(columns, frozenset)
]
MODE = {mode.name: mode for mode in MODES}
HEAD = (
    b"#ASDF 1.0.0\n#ASDF_STANDARD 1.5.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n"
    b"--- !core/asdf-1.1.0\nasdf_library: !core/software-1.0.0 {name: asdf}\n"
)
WHOLE = HEAD + b"meta: {model_type: Level1bModel, exposure: {type: FGS_ACQ1}}\n...\n"
DECIDING = [
    "EXP_TYPE", "READPATT", "INSTRUME", "DETECTOR", "DATE-OBS", "TIME-OBS", "SUBARRAY",
    "SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2", "FASTAXIS", "SLOWAXIS", "MSTR_RD1",
    "MSTR_SK1", "MSTR_RD2", "MSTR_SK2", "MSTR_RPT", "MSTR_ILV", "SSTR_STP", "SSTR_NST",
]  # fmt: skip


def check_opens(hdu: Any, kind: Kind = Kind.RAMP) -> None:
    buffer = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    check_jwst_can_open(locate_in(buffer.getvalue(), "x.fits"), kind, "x.fits")


def table(name: str, columns: list[str]) -> fits.BinTableHDU:
    zeros = np.zeros(1, np.int32)
    return fits.BinTableHDU.from_columns(
        [fits.Column(column, "J", array=zeros) for column in columns], name=name
    )


def check_document(document: bytes | None, mode: str = "fgs1-acq1", **removed: Any) -> None:
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
    check_asdf_agrees(locate_in(content, "x.fits"), reader_of(content), "x.fits")


@pytest.mark.parametrize(("kind", "name", "axes"), ARRAYS)
def test_array_with_other_axes_is_rejected(kind: Kind, name: str, axes: int) -> None:
    check_opens(fits.ImageHDU(np.ones((1,) * axes), name=name), kind)
    check_opens(fits.ImageHDU(name=name), kind)
    for other in (axes - 1, axes + 1):
        with pytest.raises(InputRejected, match=f"{name} has {other} axes, expected {axes}"):
            check_opens(fits.ImageHDU(np.ones((1,) * other), name=name), kind)
    with pytest.raises(InputRejected, match=f"{name} is a table, expected an image"):
        check_opens(table(name, ["A"]), kind)


@pytest.mark.parametrize(("kind", "name", "columns"), TABLES)
def test_table_with_other_columns_is_rejected(kind: Kind, name: str, columns: list[str]) -> None:
    check_opens(table(name, columns), kind)
    check_opens(table(name, [column.lower() for column in columns[::-1]]), kind)
    with pytest.raises(InputRejected, match=f"{name} lacks {columns[-1]}, expected"):
        check_opens(table(name, columns[:-1]), kind)
    with pytest.raises(InputRejected, match=f"{name} also has MORE, expected"):
        check_opens(table(name, [*columns, "MORE"]), kind)
    with pytest.raises(InputRejected, match="is an image, expected a table"):
        check_opens(fits.ImageHDU(np.ones((1, 1)), name=name), kind)


def test_ascii_table_is_accepted_as_jwst_does() -> None:
    names = MODEL_EXTENSIONS[Kind.RAMP]["MSA_TARG_ACQ"]
    assert isinstance(names, frozenset)
    zeros = np.zeros(1, np.int32)
    columns = [fits.Column(name, "I10", array=zeros, ascii=True) for name in sorted(names)]
    check_opens(fits.TableHDU.from_columns(columns, name="MSA_TARG_ACQ"))
    with pytest.raises(InputRejected, match=f"MSA_TARG_ACQ lacks {sorted(names)[0]}, expected"):
        check_opens(fits.TableHDU.from_columns(columns[1:], name="MSA_TARG_ACQ"))


def test_table_of_another_kind_is_not_checked() -> None:
    check_opens(table("Flight Reference Stars", ["A"]), Kind.RAMP)
    check_opens(table("INT_TIMES", ["A"]), Kind.GUIDER)


def test_intact_document_is_not_parsed() -> None:
    check_document(WHOLE)
    check_document(HEAD + b"meta: [this is: no, YAML\n...\n")


@pytest.mark.parametrize(
    "damage",
    [gzip.compress, lambda d: d[:-5], lambda d: b"x" + d, lambda d: b""],
    ids=["gzip", "truncated", "shifted", "empty"],
)
def test_damaged_document_is_rejected(damage: Callable[[bytes], Any]) -> None:
    with pytest.raises(InputRejected, match="is damaged, compressed or incomplete"):
        check_document(damage(WHOLE))


def test_asdf_without_a_yaml_document_is_rejected() -> None:
    with pytest.raises(InputRejected, match="the ASDF extension has no YAML document"):
        check_document(b"#ASDF 1.0.0\nmeta: {exposure: {type: FGS_ACQ1}}\n...\n", EXP_TYPE=None)


def test_exposure_without_asdf_is_accepted_with_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_document(None)
    assert "x.fits: no ASDF extension" in caplog.text


def test_value_in_the_document_only_is_rejected() -> None:
    with pytest.raises(InputRejected, match="EXP_TYPE in the ASDF metadata only"):
        check_document(WHOLE, EXP_TYPE=None)
    stripes = HEAD + b"meta:\n  subarray: {num_superstripe: 2, multistripe_reads1: null}\n...\n"
    with pytest.raises(InputRejected, match=": SSTR_NST in the ASDF metadata only"):
        check_document(stripes)


def test_keyword_missing_from_header_and_document_is_accepted() -> None:
    check_document(HEAD + b"meta: {exposure: {type: null}}\n...\n", EXP_TYPE=None)
    check_document(HEAD + b"meta: 5\n...\n", EXP_TYPE=None, SUBARRAY=None)
    check_document(HEAD + b"other: !core/ndarray-1.0.0 {type: 1}\n...\n", EXP_TYPE=None)


def test_unreadable_document_that_is_needed_is_rejected() -> None:
    with pytest.raises(InputRejected, match="metadata are damaged"):
        check_document(HEAD + b"meta: {exposure: {type: A}\n...\n", EXP_TYPE=None)


def test_deciding_keywords_are_those_of_the_design() -> None:
    assert sorted(_DECIDING) == sorted(DECIDING)


@pytest.mark.parametrize("keyword", DECIDING)
def test_keyword_in_the_document_only_is_rejected(keyword: str) -> None:
    section, key = _DECIDING[keyword].split(".")
    with pytest.raises(InputRejected, match=f": {keyword} in the ASDF metadata only"):
        check_document(
            HEAD + f"meta: {{{section}: {{{key}: 5}}}}\n...\n".encode(), **{keyword: None}
        )


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
        check_document(HEAD + body + b"\n...\n", EXP_TYPE=None)


def test_yaml_merges_of_the_document_are_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    # 240 kB of merges took 34 s when they were evaluated.
    monkeypatch.setattr("yaml.constructor.SafeConstructor.flatten_mapping", None)
    keys = b",".join(b"k%d: 1" % number for number in range(2000))
    merges = b"".join(b"m%d: {<<: *a}\n" % number for number in range(2000))
    check_document(
        HEAD + b"type: 1:59:59\na: &a {" + keys + b"}\n" + merges + b"...\n", EXP_TYPE=None
    )


@pytest.mark.parametrize(
    "body",
    [b"type: " + b"[" * 5000, b"type: " + b"[" * 101 + b"]" * 101, b"type: 1\n" + b"- a\n" * 3,
     b"type: [" + b"1," * 200_001 + b"1]"],
    ids=["open", "deep", "broken", "long"],
)  # fmt: skip
def test_document_without_bounds_is_rejected(body: bytes) -> None:
    with pytest.raises(InputRejected, match="ASDF metadata"):
        check_document(HEAD + body + b"\n...\n", EXP_TYPE=None)


def test_reference_to_a_renumbered_hdu_is_rejected() -> None:
    document = WHOLE.replace(b"meta:", b"a: !core/ndarray-1.0.0 {source: 'fits:2'}\nmeta:")
    with pytest.raises(InputRejected, match=r"x\.fits, ASDF: refers to HDU 2 by number"):
        check_document(document)
    check_document(document.replace(b"fits:2", b"fits:0"))
    check_document(document.replace(b"fits:2", b"fits:ASDF,1"))


def test_reference_to_a_missing_hdu_is_rejected() -> None:
    # jwst 3.0.0: KeyError, Extension ('SCI', 1) not found.
    document = WHOLE.replace(b"meta:", b"a: !core/ndarray-1.0.0 {source: 'fits:SCI,1'}\nmeta:")
    with pytest.raises(
        InputRejected, match="refers to SCI with EXTVER 1, expected an existing HDU"
    ):
        check_document(document)
    check_document(document.replace(b"SCI,1", b"ASDF,1"))
    check_document(document.replace(b"SCI,1", b"PRIMARY,1"))
