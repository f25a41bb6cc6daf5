"""Every bad input has its class of error, a message, a Failed event, and no product."""

import gzip
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputRejected, ReferenceUnavailable, TransientFailure
from core.exposure import Exposure
from core.fits.hdus import locate
from core.product import Encoding, HeaderValues, compose
from core.step import initialize
from infra.demo.local_aws import MIRROR, RAW
from tests.conftest import SHARED, Harness
from tests.samples.exposures import write_exposure
from tests.samples.mirror import CONTEXT
from tests.samples.modes import MODES

MODE = {mode.name: mode for mode in MODES}
KEY = "2023/jw01_uncal.fits"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    folder = tmp_path_factory.mktemp("exposures")

    def read(mode: str) -> bytes:
        path = folder / f"{mode}.fits"
        if not path.exists():
            write_exposure(MODE[mode], path)
        return path.read_bytes()

    return read


def changed(content: bytes, **header: Any) -> bytes:
    """The same file with other keywords; None removes one."""
    with fits.open(BytesIO(content)) as hdus:
        for keyword, value in header.items():
            hdus[0].header[keyword] = value
            if value is None:
                del hdus[0].header[keyword]
        buffer = BytesIO()
        hdus.writeto(buffer)
    return buffer.getvalue()


def check_failed(function: Harness, error: type[Exception], message: str, **fields: Any) -> None:
    with pytest.raises(error, match=message) as raised:
        function.run(KEY, **fields)
    assert type(raised.value) is error, "state machines retry by the name of the class"
    (detail,) = function.announcements()
    assert detail["status"] == "Failed"
    assert detail["error"] == error.__name__
    assert detail["input"]["key"] == KEY
    assert detail["output"] is None
    assert function.products() == set()
    s3 = function.aws.client("s3")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=function.settings.output_bucket)


@pytest.mark.parametrize(
    ("mode", "damage", "message"),
    [
        ("nircam-sub64p", lambda _: b"", "is empty"),
        ("nircam-sub64p", lambda _: b"GIF89a" * 999, "not FITS"),
        ("nircam-sub64p", lambda c: c[:2000], "truncated"),
        ("nircam-sub64p", lambda c: c[:50_000], r"SCI.*truncated"),
        ("nircam-sub64p", lambda c: c[:-4000], "truncated"),
        ("nircam-sub64p", lambda c: c.replace(b"'SCI     '", b"'SKY     '"), "no SCI image"),
        ("nircam-sub64p", lambda c: c.replace(b"NAXIS4  =                    3", b"NAXIS4  =         999999999999"), "truncated"),
        ("nircam-sub64p", lambda c: c.replace(b"BZERO   =                32768", b"BZERO   =                  999"), "BZERO=999"),
        ("nircam-sub64p", lambda c: changed(c, SUBSTRT1=None), "lacks SUBSTRT1/2 or SUBSIZE1/2"),
        ("nircam-sub64p", lambda c: changed(c, SUBSTRT2=0), "SUBSTRT2=0.*expected SUBSTRT1 and SUBSTRT2"),
        ("nircam-sub64p", lambda c: changed(c, SUBSTRT1=1990), "where the mask has no pixels.*2053 of 2048"),
        ("nircam-sub64p", lambda c: changed(c, SUBSIZE1=65), "expected the size of the images in SCI"),
        ("nircam-dhs", lambda c: changed(c, MSTR_RD2=39), "read 160 rows|read .* rows, expected 164"),
        ("nircam-dhs", lambda c: changed(c, MSTR_SK1=None), "MSTR_SK1 is missing"),
        ("niriss-superstripe", lambda c: changed(c, SSTR_NST=7), "20 integrations, expected a multiple of SSTR_NST=7"),
        ("niriss-superstripe", lambda c: changed(c, SSTR_STP=400), "reads rows"),
        ("fgs1-acq1", lambda c: changed(c, SUBSTRT2=2000), "where the mask has no pixels"),
        ("nircam-sub64p", lambda c: changed(c, **{"DATE-OBS": None}), "DATE-OBS and TIME-OBS"),
        ("nircam-sub64p", lambda c: changed(c, **{"DATE-OBS": "yesterday"}), "'yesterday 12:34:56.789'"),
        ("nircam-sub64p", lambda c: changed(c, INSTRUME=None), "INSTRUME is missing"),
    ],
)  # fmt: skip
def test_bad_exposures(
    mode: str, damage: Any, message: str, function: Harness, good: Callable[[str], bytes]
) -> None:
    function.upload(damage(good(mode)), KEY)
    check_failed(function, InputRejected, message)


def test_missing_exposure(function: Harness) -> None:
    check_failed(function, InputRejected, f"s3://{RAW}/{KEY}.*no such object")


def user_dq(data: Any) -> bytes:
    buffer = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data)]).writeto(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (user_dq(np.ones((64, 65), np.int32)), r"int32 of shape 64 x 65, expected integers of shape 64 x 64"),
        (user_dq(np.full((64, 64), 0.5)), "4096 pixels are not integers"),
        (b"no FITS at all", "not FITS: the header starts with"),
        (gzip.compress(b"SIMPLE", mtime=0), "is compressed, expected FITS; unpack it first"),
        (bytes(100 * 1024 * 1024), "expected a DQ image of at most 100663296"),
        (user_dq(None), "no image among its first two HDUs"),
        (None, "no such object"),
    ],
)  # fmt: skip
def test_bad_user_dq(
    content: bytes | None, message: str, function: Harness, good: Callable[[str], bytes]
) -> None:
    function.upload(good("nircam-sub64p"), KEY)
    if content is not None:
        function.upload(content, "user.fits")
    check_failed(function, InputRejected, message, userSuppliedDq=f"s3://{RAW}/user.fits")


MASK = "references/jwst/nircam/jwst_nircam_mask_9002.fits"


@pytest.fixture
def broken_mirror(
    sample_cache: Path, function: Harness, make_function: Any, tmp_path: Path
) -> Callable[..., Harness]:
    """A mirror with the NIRCam mask only, in which one object has been changed."""
    s3 = function.aws.client("s3")

    def breaking(key: str, change: Any, **config: Any) -> Harness:
        prefix = tmp_path.name.lower().replace("_", "-")
        names = [f"mappings/jwst/{CONTEXT}", "config/jwst/server_config", MASK]
        names += [f"mappings/jwst/jwst_nircam_{kind}" for kind in ("9001.imap", "mask_9001.rmap")]
        for name in names:
            content = (sample_cache / name).read_bytes()
            content = change(content) if name == key else content
            if content is not None:
                s3.put_object(Bucket=MIRROR, Key=f"{prefix}/{name}", Body=content)
        return make_function(prefix)

    return breaking


def flip(content: bytes) -> bytes:
    return content[:20_000] + bytes([content[20_000] ^ 1]) + content[20_001:]


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (MASK, lambda _: None, r"mask_9002\.fits.*no such object"),
        (MASK, lambda c: c[:-1], r"has [\d,]+ bytes, SHA-1 .*, expected [\d,]+ bytes"),
        (MASK, flip, "SHA-1 [0-9a-f]{40}, expected .* SHA-1 [0-9a-f]{40}; run dq-init mirror sync"),
        ("mappings/jwst/jwst_nircam_mask_9001.rmap", lambda _: None, "mask_9001.rmap.*no such object"),
        ("mappings/jwst/jwst_nircam_mask_9001.rmap", lambda c: c.replace(b"NRCB1", b"NRCB3"), "expected 726 bytes, SHA-1"),
        ("mappings/jwst/jwst_nircam_mask_9001.rmap", lambda c: c + b"\nimport os\n", "jwst_nircam_mask_9001.rmap"),
        ("mappings/jwst/jwst_nircam_9001.imap", lambda _: None, "9001.imap.*no such object"),
        (f"mappings/jwst/{CONTEXT}", lambda _: None, f"{CONTEXT}.*no such object"),
        ("config/jwst/server_config", lambda _: None, "server_config.*no such object"),
        ("config/jwst/server_config", lambda c: c[:100], "server_config: damaged"),
        ("config/jwst/server_config", lambda c: c.replace(b"'bad_files_list': []", b"'bad_files_list': ['jwst_nircam_mask_9002.fits']"), "mask_9002.fits: on the CRDS server's list of bad"),
        ("config/jwst/server_config", lambda c: c.replace(b"'bad_files_list': []", b"'bad_files_list': ['jwst_nircam_mask_9001.rmap']"), "mask_9001.rmap: on the CRDS server's list of bad"),
    ],
)  # fmt: skip
def test_bad_mirrors(
    key: str, change: Any, message: str, broken_mirror: Any, good: Callable[[str], bytes]
) -> None:
    function = broken_mirror(key, change)
    function.upload(good("nircam-sub64p"), KEY)
    check_failed(function, ReferenceUnavailable, message)
    assert not list(function.function.references.masks.cache.glob("*"))


def test_context_missing_from_the_mirror(function: Harness, good: Callable[[str], bytes]) -> None:
    function.upload(good("nircam-sub64p"), KEY)
    check_failed(
        function, ReferenceUnavailable, "does not list jwst_0001.pmap", context="jwst_0001.pmap"
    )


def test_rules_without_a_match(function: Harness, good: Callable[[str], bytes]) -> None:
    function.upload(changed(good("nircam-sub64p"), DETECTOR="NRCB4"), KEY)
    check_failed(function, ReferenceUnavailable, r"jwst_nircam_mask_9001.rmap: no mask for .*NRCB4")


def test_instrument_without_rules(function: Harness, good: Callable[[str], bytes]) -> None:
    function.upload(changed(good("nircam-sub64p"), INSTRUME="HST"), KEY)
    check_failed(function, ReferenceUnavailable, "has no rules for HST")


def test_missing_detector_counts_as_undefined(
    function: Harness, good: Callable[[str], bytes]
) -> None:
    function.upload(changed(good("nircam-sub64p"), DETECTOR=None), KEY)
    check_failed(function, ReferenceUnavailable, "META.INSTRUMENT.DETECTOR=UNDEFINED")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (user_dq(np.ones((64, 64), np.int32)), "no DQ array among its HDUs"),
        (b"no FITS at all", "not FITS: the header starts with"),
        (None, "no such object"),
    ],
)
def test_requested_mask_that_is_not_a_mask(
    content: bytes | None, message: str, function: Harness, good: Callable[[str], bytes]
) -> None:
    function.upload(good("nircam-sub64p"), KEY)
    if content is not None:
        function.upload(content, "mask.fits")
    check_failed(function, ReferenceUnavailable, message, mask=f"s3://{RAW}/mask.fits")


HEADERS = [path.read_bytes() for path in sorted((SHARED / "uncal-headers").glob("*.fits"))]
DAMAGES = st.tuples(
    st.sampled_from(["byte", "card", "value", "cut", "double"]),
    st.integers(0, 40_000),
    st.one_of(
        st.sampled_from(["-1", "0", "1", "99999999999", "1.5", "T", "'x'", "", "1 2", "= ="]),
        st.text(st.characters(max_codepoint=255), max_size=70),
    ),
)


def damaged(content: bytes, damages: list[tuple[str, int, str]]) -> bytes:
    """A raw exposure, damaged in a few places: bytes, whole cards, or its end."""
    out = bytearray(content)
    for kind, place, text in damages:
        start, new = place - place % 80, text.encode("latin-1")
        match kind:
            case "byte":
                out[place : place + 1] = new[:1]
            case "card":
                out[start : start + 80] = new.ljust(80)
            case "value":
                out[start + 10 : start + 80] = new.rjust(20).ljust(70)
            case "cut":
                del out[place * 4 :]
            case "double":
                out[place:place] = out[place : place + 2880]
    return bytes(out)


def outcome(content: bytes) -> str:
    """The result of a file: a product of bounded size, or one of the three errors."""
    try:
        hdus = locate(lambda start, length: content[start : start + length], len(content), "x")
        exposure = Exposure.from_hdus(hdus, "x")
        values = HeaderValues("x_dq_init.fits", "2026-01-01", "1", CONTEXT, None)
        layout = compose(exposure, initialize(exposure, None), values, Encoding.FLOAT32)
        written = 0
        for piece in layout.pieces(100_000):
            source = piece.source
            wanted = content[source.start : source.start + source.length] if source else b""
            assert len(wanted) == (source.length if source else 0)
            piece.render(wanted, memoryview(bytearray(piece.length)))
            written += piece.length
        assert written == layout.length
        assert layout.length < 20 * len(content) + 1_000_000
    except (InputRejected, ReferenceUnavailable, TransientFailure) as exc:
        return type(exc).__name__
    return "product"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
@given(original=st.integers(0, 9), damages=st.lists(DAMAGES, min_size=1, max_size=6))
def test_damaged_exposure_is_processed_or_rejected(
    original: int, damages: list[tuple[str, int, str]], good: Callable[[str], bytes]
) -> None:
    own = [good(name) for name in ("nircam-sub64p", "nircam-superstripe", "fgs1-acq2")]
    originals = HEADERS + own
    assert outcome(damaged(originals[original % len(originals)], damages))


def with_pcount(content: bytes, name: str) -> bytes:
    """The same file with PCOUNT = 10 in an HDU of this name."""
    start = content.index(f"EXTNAME = '{name:8}'".encode())
    start = content.rindex(b"XTENSION=", 0, start)
    card = content.index(b"PCOUNT  =", start)
    return content[: card + 10] + b"10".rjust(20) + content[card + 30 :]


def images(**arrays: Any) -> bytes:
    buffer = BytesIO()
    extensions = [fits.ImageHDU(data, name=name) for name, data in arrays.items()]
    fits.HDUList([fits.PrimaryHDU(), *extensions]).writeto(buffer)
    return buffer.getvalue()


def test_own_pixeldq_with_pcount_is_rejected(
    function: Harness, good: Callable[[str], bytes]
) -> None:
    with fits.open(BytesIO(good("nircam-sub64p"))) as hdus:
        hdus.append(fits.ImageHDU(np.zeros((64, 64), np.uint32), name="PIXELDQ"))
        buffer = BytesIO()
        hdus.writeto(buffer)
    function.upload(with_pcount(buffer.getvalue(), "PIXELDQ"), KEY)
    check_failed(function, InputRejected, "PIXELDQ.*PCOUNT is 10")


def test_user_dq_with_pcount_is_rejected(function: Harness, good: Callable[[str], bytes]) -> None:
    function.upload(good("nircam-sub64p"), KEY)
    content = with_pcount(images(DQ=np.ones((64, 64), np.int32)), "DQ")
    function.upload(content, "flags.fits")
    check_failed(function, InputRejected, "PCOUNT is 10", userSuppliedDq=f"s3://{RAW}/flags.fits")


def test_mask_with_pcount_is_unavailable(function: Harness, good: Callable[[str], bytes]) -> None:
    function.upload(good("nircam-sub64p"), KEY)
    content = with_pcount(images(DQ=np.ones((2048, 2048), np.uint8)), "DQ")
    function.upload(content, "mask.fits")
    check_failed(function, ReferenceUnavailable, "PCOUNT is 10", mask=f"s3://{RAW}/mask.fits")
