import logging
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from core.compat import Kind
from core.errors import InputRejected
from core.exposure import Exposure, Subarray
from core.fits.hdus import locate_in, reader_of
from core.fits.pixels import user_dq_image
from core.in_memory import render
from core.mask import Mask
from core.product import Encoding, HeaderValues, compose, product_name
from core.step import DataQuality, initialize
from tests.samples.exposures import int_times, primary_header
from tests.samples.modes import MODES

MODE = {mode.name: mode for mode in MODES}
SHAPE = (4, 3, 8, 64)


def raw(
    mode: str = "nircam-sub64p", shape: tuple[int, ...] = SHAPE, *more: Any, **header: Any
) -> bytes:
    primary = primary_header(MODE[mode])
    primary.update(header)
    sci = np.arange(np.prod(shape), dtype=np.uint32).astype(np.uint16).reshape(shape)
    hdus = [fits.PrimaryHDU(header=primary), fits.ImageHDU(sci, name="SCI"), *more]
    buffer = BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


def read(content: bytes) -> Exposure:
    return Exposure.from_hdus(locate_in(content, "x.fits"), "x.fits")


def covering(exposure: Exposure, flags: NDArray[np.uint32] | None) -> Mask | None:
    """Return a mask that is used whole."""
    if flags is None:
        return None
    return Mask("mask.fits", flags, "NIRCAM", exposure.subarray)


def step(content: bytes, flags: NDArray[np.uint32], **more: Any) -> DataQuality:
    exposure = read(content)
    return initialize(exposure, covering(exposure, flags), **more)


def product(
    content: bytes, encoding: Encoding = Encoding.NATIVE, mask: Any = None, **more: Any
) -> bytes:
    exposure = read(content)
    values = HeaderValues(
        "x_dq_init.fits", "2026-01-01T00:00:00.000", "14.0.3", "jwst_9001.pmap",
        None if mask is None else "crds://mask.fits",
    )  # fmt: skip
    quality = initialize(exposure, covering(exposure, mask), **more)
    return render(compose(exposure, quality, values, encoding), content)


def test_kind_follows_exp_type_and_sstr_nst() -> None:
    assert read(raw()).kind is Kind.RAMP
    assert read(raw("nircam-superstripe", (64, 2, 8, 64))).kind is Kind.SUPERSTRIPE
    assert read(raw("fgs1-track")).kind is Kind.GUIDER
    assert read(raw("fgs1-track", EXP_TYPE="FGS_FINEGUIDE")).kind is Kind.GUIDER
    assert read(raw("fgs1-track", EXP_TYPE="FGS_IMAGE")).kind is Kind.RAMP


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (raw(shape=(3, 8, 64)), "SCI has shape"),
        (raw().replace(b"EXTNAME = 'SCI", b"EXTNAME = 'SKY"), r"no SCI image among its HDUs \(PRIMARY, SKY\)"),
        (raw().replace(b"BZERO   =                32768", b"BZERO   =                   99"), "BZERO=99"),
        (raw("nircam-sub64p", SHAPE, fits.ImageHDU(np.zeros(SHAPE, np.uint16), name="SCI")), "2 HDUs are named SCI"),
        (raw(shape=(1, 1, 1, 9000)), "a data-quality plane of 1 x 9000 pixels, expected at most 8192"),
        (raw(EXP_TYPE=5), "EXP_TYPE is 5, expected a string"),
        (raw("fgs1-track", EXP_TYPE="fgs_track"), "EXP_TYPE is 'fgs_track', expected 'FGS_TRACK'"),
        (raw("fgs1-track", EXP_TYPE=" FGS_TRACK"), "EXP_TYPE is ' FGS_TRACK', expected 'FGS_TRACK'"),
        (raw(SSTR_NST=2.0), "SSTR_NST is 2.0, expected an integer"),
    ],
)  # fmt: skip
def test_invalid_exposure_is_rejected(content: bytes, message: str) -> None:
    with pytest.raises(InputRejected, match=message):
        read(content)


ODD_GEOMETRY = [
    (raw(SUBSTRT1=0), "expected SUBSTRT1 and SUBSTRT2 to be at least 1"),
    (raw(SUBSTRT1=1.5), "SUBSTRT1 is 1.5, expected an integer"),
    (raw(SUBSTRT1=True), "SUBSTRT1 is True"),
    (
        raw("nircam-superstripe", (65, 2, 8, 64)),
        "65 integrations, expected a multiple of SSTR_NST=64",
    ),
]


@pytest.mark.parametrize(("content", "message"), ODD_GEOMETRY)
def test_invalid_geometry_with_a_mask_is_rejected(content: bytes, message: str) -> None:
    whole = Mask(
        "mask.fits", np.zeros((2048, 2048), np.uint32), "NIRCAM", Subarray(1, 1, 2048, 2048)
    )
    with pytest.raises(InputRejected, match=message):
        initialize(read(content), whole)


@pytest.mark.parametrize("content", [content for content, _ in ODD_GEOMETRY])
def test_invalid_geometry_without_a_mask_is_accepted(content: bytes) -> None:
    with fits.open(BytesIO(product(content))) as hdus:
        assert hdus["GROUPDQ"].data.shape == hdus["SCI"].data.shape
        assert not hdus["GROUPDQ"].data.any()


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i4", "u4", "i8", "f8"])
def test_science_pixels_of_any_type_are_kept_or_become_float32(kind: str) -> None:
    sci = (np.arange(np.prod(SHAPE)) % 100 - (0 if kind[0] == "u" else 50)).astype(kind)
    hdus = [
        fits.PrimaryHDU(header=primary_header(MODE["nircam-sub64p"])),
        fits.ImageHDU(sci.reshape(SHAPE), name="SCI"),
    ]
    buffer = BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    for encoding, expected in ((Encoding.NATIVE, kind), (Encoding.FLOAT32, "f4")):
        pixels = fits.getdata(BytesIO(product(buffer.getvalue(), encoding, FLAGS)), "SCI")
        assert pixels.dtype.str[1:] == expected
        assert np.array_equal(pixels, sci.reshape(SHAPE))


FLAGS = np.zeros((8, 64), np.uint32)
FLAGS[0, 0], FLAGS[1, 1] = 1 | 1 << 10, 1 << 11


def test_groupdq_gets_do_not_use_and_no_other_flag() -> None:
    quality = step(raw(), FLAGS)
    assert np.array_equal(quality.image, FLAGS)
    assert quality.groupdq_planes.sum() == quality.groupdq_planes[0, 0, 0] == 1


def test_user_flags_are_merged_and_set_in_groupdq() -> None:
    user = np.full((8, 64), 5, np.int16)
    before = FLAGS.copy()
    quality = step(raw(), FLAGS, user=user)
    assert np.array_equal(quality.image, FLAGS | 5)
    assert quality.groupdq_planes.all()
    assert np.array_equal(FLAGS, before)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -1.0, 2.0**32])
def test_user_flags_that_are_not_integers_are_rejected(value: float) -> None:
    user = np.zeros((8, 64))
    user[3, 4] = value
    with pytest.raises(InputRejected, match="user-supplied DQ: 1 pixels are not integers"):
        step(raw(), FLAGS, user=user)


def test_user_flags_of_another_shape_are_rejected() -> None:
    with pytest.raises(InputRejected, match=r"DQ is int32 of shape 8 x 65"):
        step(raw(), FLAGS, user=np.zeros((8, 65), np.int32))


def test_user_flags_are_in_the_first_two_hdus() -> None:
    def file(*hdus: Any) -> bytes:
        buffer = BytesIO()
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(buffer)
        return buffer.getvalue()

    image = fits.ImageHDU(FLAGS, name="OTHER")
    assert np.array_equal(user_dq_image(file(image), "u.fits"), FLAGS)
    with pytest.raises(InputRejected, match=r"u\.fits: no image among its first two HDUs"):
        user_dq_image(file(fits.BinTableHDU(int_times(1)), image), "u.fits")
    with pytest.raises(InputRejected, match=r"u\.fits: its image is tile-compressed"):
        user_dq_image(file(fits.CompImageHDU(FLAGS)), "u.fits")


def test_user_flags_stored_as_floats_are_accepted() -> None:
    user = np.full((8, 64), 2.0**31 + 1)
    assert np.array_equal(step(raw(), FLAGS, user=user).image, FLAGS | (1 << 31 | 1))


def test_existing_flags_are_kept_but_not_set_in_groupdq() -> None:
    quality = step(raw(), FLAGS, existing=np.full((8, 64), 1, np.uint32))
    assert np.array_equal(quality.image, FLAGS | 1)
    assert quality.groupdq_planes.sum() == 1


@pytest.mark.parametrize("encoding", Encoding)
def test_existing_groupdq_is_merged(encoding: Encoding) -> None:
    present = np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)
    extra = fits.ImageHDU(present, name="GROUPDQ")
    extra.header["NOTE"] = "kept"
    with fits.open(BytesIO(product(raw("nircam-sub64p", SHAPE, extra), encoding, FLAGS))) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "PIXELDQ", "GROUPDQ"]
        assert np.array_equal(hdus["GROUPDQ"].data, present | (FLAGS & 1).astype(np.uint8))
        assert hdus["GROUPDQ"].header["NOTE"] == "kept"


def test_array_of_another_size_is_replaced_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    extra = fits.ImageHDU(np.ones((4, 3, 8, 65), np.uint8), name="GROUPDQ")
    with caplog.at_level(logging.WARNING):
        content = product(raw("nircam-sub64p", SHAPE, extra), mask=FLAGS)
    assert "GROUPDQ has shape 4 x 3 x 8 x 65, expected 4 x 3 x 8 x 64" in caplog.text
    assert fits.getdata(BytesIO(content), "GROUPDQ").shape == SHAPE


def test_skipped_step_keeps_an_array_of_another_size() -> None:
    extra = fits.ImageHDU(np.ones((4, 3, 8, 65), np.uint8), name="GROUPDQ")
    with fits.open(BytesIO(product(raw("nircam-sub64p", SHAPE, extra)))) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "PIXELDQ", "GROUPDQ"]
        assert hdus["GROUPDQ"].shape == (4, 3, 8, 65)
        assert hdus["GROUPDQ"].data.all()


def test_existing_groupdq_of_signed_bytes_is_merged() -> None:
    present = np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)
    extra = fits.ImageHDU(present.view(np.int8), name="GROUPDQ")
    content = product(raw("nircam-sub64p", SHAPE, extra), mask=FLAGS)
    assert np.array_equal(
        fits.getdata(BytesIO(content), "GROUPDQ"), present | (FLAGS & 1).astype(np.uint8)
    )


def test_array_without_data_counts_as_missing_and_extver_1_wins() -> None:
    empty = fits.ImageHDU(name="GROUPDQ")
    others = [fits.ImageHDU(np.full((8, 64), n, np.uint32), name="PIXELDQ", ver=n) for n in (2, 1)]
    exposure = read(raw("nircam-sub64p", SHAPE, empty, *others))
    found = exposure.existing_array("PIXELDQ", (8, 64))
    assert found is not None
    assert found.version == 1
    assert exposure.existing_array("GROUPDQ", SHAPE) is None


@pytest.mark.parametrize("shape", [(7, 64), (9, 64), (8, 63), (8, 65)])
def test_pixeldq_of_another_size_is_replaced_by_zeros(shape: tuple[int, int]) -> None:
    own = fits.ImageHDU(np.full(shape, 4, np.uint32), name="PIXELDQ")
    content = product(raw("nircam-sub64p", SHAPE, own), mask=FLAGS)
    assert np.array_equal(fits.getdata(BytesIO(content), "PIXELDQ"), FLAGS)


def test_pixeldq_that_is_not_integers_gives_a_warning(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    own = np.full((8, 64), 4, np.float32)
    own[0, :3] = (np.nan, 2.5, -1)
    content = raw("nircam-sub64p", SHAPE, fits.ImageHDU(own, name="PIXELDQ"))
    found = read(content).existing_image(reader_of(content))
    assert "x.fits: PIXELDQ has 3 pixels that are not integers" in caplog.text
    assert not recwarn.list
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found, own.astype(">f4").astype(np.uint32))


def test_new_header_section_has_a_title() -> None:
    with fits.open(BytesIO(product(raw("nircam-sub64p", SHAPE), mask=FLAGS))) as hdus:
        cards = [(card.keyword, card.value) for card in hdus[0].header.cards]
    place = cards.index(("", "Reference file information"))
    assert [value for _, value in cards[place - 1 : place + 2 : 2]] == ["", ""]
    assert cards[place + 2][0] in {"CRDS_VER", "CRDS_CTX", "R_MASK"}


def test_array_with_another_extver_only_is_rejected() -> None:
    other = fits.ImageHDU(np.ones((8, 64), np.uint32), name="PIXELDQ", ver=2)
    with pytest.raises(InputRejected, match="PIXELDQ has EXTVER 2, expected 1"):
        read(raw("nircam-sub64p", SHAPE, other)).existing_array("PIXELDQ", (8, 64))
    only_science = fits.ImageHDU(np.ones(SHAPE, np.uint16), name="SCI", ver=2)
    content = raw("nircam-sub64p", SHAPE, only_science).replace(b"'SCI     '", b"'SKY     '", 1)
    with pytest.raises(InputRejected, match="SCI has EXTVER 2, expected 1"):
        read(content)


def test_pixeldq_with_another_number_of_axes_is_rejected() -> None:
    content = raw(
        "nircam-sub64p", SHAPE, fits.ImageHDU(np.ones((2, 8, 64), np.uint32), name="PIXELDQ")
    )
    with pytest.raises(
        InputRejected, match="existing PIXELDQ is an image of 3 axes, expected an image of 2 axes"
    ):
        read(content).existing_array("PIXELDQ", (8, 64))


def test_product_without_a_mask_has_zeros_and_status_skipped() -> None:
    content = raw(R_MASK="crds://old.fits")
    with fits.open(BytesIO(product(content))) as hdus:
        assert hdus[0].header["S_DQINIT"] == "SKIPPED"
        assert hdus[0].header["R_MASK"] == "N/A"
        assert not hdus["PIXELDQ"].data.any()
        assert not hdus["GROUPDQ"].data.any()


def test_float32_encoding_converts_science_arrays_only() -> None:
    zeroframe = fits.ImageHDU(np.full((4, 8, 64), 65535, np.uint16), name="ZEROFRAME")
    table = fits.BinTableHDU(int_times(3), name="INT_TIMES")
    content = raw("nircam-sub64p", SHAPE, zeroframe, table)
    with (
        fits.open(BytesIO(content)) as before,
        fits.open(BytesIO(product(content, Encoding.FLOAT32, FLAGS))) as after,
    ):
        for name in ("SCI", "ZEROFRAME"):
            assert after[name].data.dtype == np.dtype(">f4")
            assert np.array_equal(after[name].data, before[name].data)
            assert "BZERO" not in after[name].header
        assert after["INT_TIMES"].header.tostring() == before["INT_TIMES"].header.tostring()


def test_product_of_a_file_without_last_padding_is_padded() -> None:
    table = fits.BinTableHDU(int_times(3), name="INT_TIMES")
    content = raw("nircam-sub64p", SHAPE, table)[: -2880 + 3 * 52]
    out = product(content, mask=FLAGS)
    assert len(out) % 2880 == 0
    assert fits.getdata(BytesIO(out), "INT_TIMES")["integration_number"].tolist() == [1, 2, 3]


def test_guider_product_has_err_before_dq_and_keeps_its_err() -> None:
    present = fits.ImageHDU(np.full((4, 3, 8, 64), 2.5, np.float32), name="ERR")
    with fits.open(BytesIO(product(raw("fgs1-track", SHAPE, present), mask=FLAGS))) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "ERR", "DQ"]
        assert (hdus["ERR"].data == 2.5).all()


@pytest.mark.parametrize(
    "wrong",
    [
        fits.BinTableHDU(int_times(3), name="ERR"),
        fits.ImageHDU(np.zeros((4, 3, 8, 64), np.float32), name="ERR", ver=2),
    ],
)
@pytest.mark.parametrize("others", [(), (fits.ImageHDU(np.zeros(SHAPE, np.float32), name="ERR"),)])
def test_err_of_a_guider_that_would_be_lost_is_rejected(wrong: Any, others: Any) -> None:
    with pytest.raises(InputRejected, match="its ERR is a table or has EXTVER other than 1"):
        product(raw("fgs1-track", SHAPE, *others, wrong), mask=FLAGS)


def test_stale_checksums_are_dropped_from_the_primary_header() -> None:
    header = fits.getheader(BytesIO(product(raw(CHECKSUM="x", DATASUM="0"), mask=FLAGS)))
    assert "CHECKSUM" not in header
    assert "DATASUM" not in header


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jw01_nrca1_uncal.fits", "jw01_nrca1_dq_init.fits"),
        ("jw01_nrca1.fits", "jw01_nrca1_dq_init.fits"),
        ("a_uncal_b_uncal.fits", "a_uncal_b_dq_init.fits"),
        ("x_ramp.fits", "x_dq_init.fits"),
        ("x_dq_init.fits", "x_dq_init.fits"),
        ("x-uncal.fits", "x-dq_init.fits"),
        ("x_residual_fringe.fits", "x_dq_init.fits"),
        ("x_RAMP.fits", "x_RAMP_dq_init.fits"),
        ("ramp.fits", "ramp_dq_init.fits"),
        ("_uncal.fits", "_uncal_dq_init.fits"),
        ("x_uncal_ramp.fits", "x_uncal_dq_init.fits"),
        ("x_rate.v2.fits", "x_rate.v2_dq_init.fits"),
    ],
)
def test_product_name_replaces_the_suffix_as_jwst_does(name: str, expected: str) -> None:
    assert product_name(name) == expected


@pytest.mark.parametrize(("version", "written"), [(-1, "-1"), (None, "undefined")])
def test_sci_of_another_extver_is_rejected(version: int | None, written: str) -> None:
    sci = fits.ImageHDU(np.ones(SHAPE, np.uint16), name="SCI")
    sci.header["EXTVER"] = version
    content = raw("nircam-sub64p", SHAPE, sci).replace(b"'SCI     '", b"'SKY     '", 1)
    with pytest.raises(InputRejected, match=f"SCI has EXTVER {written}, expected 1"):
        read(content)


def test_checksums_of_rewritten_extensions_are_dropped() -> None:
    own = fits.ImageHDU(np.zeros((8, 64), np.uint32), name="PIXELDQ")
    buffer = BytesIO()
    with fits.open(BytesIO(raw("nircam-sub64p", SHAPE, own))) as hdus:
        hdus.writeto(buffer, checksum=True)
    content = product(buffer.getvalue(), Encoding.FLOAT32, FLAGS)
    with fits.open(BytesIO(content)) as hdus:
        for name in ("PRIMARY", "SCI", "PIXELDQ", "GROUPDQ"):
            assert not {"CHECKSUM", "DATASUM"} & set(hdus[name].header), name


def test_plane_of_too_many_pixels_is_rejected() -> None:
    with pytest.raises(InputRejected, match="4097 x 4097 pixels, expected at most 8192"):
        read(raw(shape=(1, 1, 4097, 4097)))


def test_extname_of_an_extension_in_the_primary_is_rejected() -> None:
    with pytest.raises(InputRejected, match="EXTNAME of the primary header is 'PIXELDQ'"):
        read(raw(EXTNAME="PIXELDQ"))
    read(raw(EXTNAME="RAW"))  # names no extension that jwst looks up
