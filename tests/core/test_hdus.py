import gzip
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from astropy.io import fits

from core.errors import InputRejected
from core.fits.hdus import Hdu, locate, locate_in


def fits_bytes() -> bytes:
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.arange(6000, dtype=np.uint16).reshape(2, 3, 10, 100), name="SCI"),
            fits.BinTableHDU(np.zeros(7, dtype=[("a", ">i4"), ("b", "S9")]), name="INT_TIMES"),
        ]
    )
    buffer = BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def located(content: bytes) -> tuple[Hdu, ...]:
    return locate_in(content, "x.fits")


def test_offsets_of_hdus_equal_those_of_astropy() -> None:
    content = fits_bytes()
    with fits.open(BytesIO(content)) as hdus:
        expected = [hdu.fileinfo() for hdu in hdus]
    found = located(content)
    assert [hdu.name for hdu in found] == ["PRIMARY", "SCI", "INT_TIMES"]
    for hdu, info in zip(found, expected, strict=True):
        assert (hdu.start, hdu.data_start) == (info["hdrLoc"], info["datLoc"])
        assert hdu.end == info["datLoc"] + info["datSpan"]
    assert found[1].shape == (2, 3, 10, 100)


def test_locate_reads_headers_only() -> None:
    content = fits_bytes()
    read = []

    def reader(start: int, length: int) -> bytes:
        read.append((start, start + length))
        return content[start : start + length]

    sci = locate(reader, len(content), "x.fits")[1]
    assert all(stop <= sci.data_start or start >= sci.end for start, stop in read)


def test_filler_after_the_last_hdu_is_ignored() -> None:
    assert len(located(fits_bytes() + bytes(2880))) == 3


def patched(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new.ljust(len(old))[: len(old)], 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "is empty"),
        (lambda content: b"II*\0" + bytes(5000), "not FITS"),
        (gzip.compress, r"is compressed, expected FITS; unpack it first \(gunzip\)"),
        (lambda content: content[:1000], "truncated: the file ends at byte 1000, expected an END card"),
        (lambda content: content[:7000], r"HDU 1 \(SCI\): truncated"),
        (lambda content: content[: content.index(b"INT_TIMES") + 100], "HDU 2: truncated"),
        (lambda content: content[:-2880], r"HDU 2 \(INT_TIMES\): truncated"),
        (lambda content: content + b"garbage" * 1000, "HDU 3: damaged, or something was appended"),
        (patched(b"BITPIX  =                   16", b"BITPIX  =                   17"), "BITPIX is 17"),
        (patched(b"NAXIS4  =                    2", b"NAXIS4  =                   -2"), "NAXIS4 is -2"),
        (patched(b"NAXIS4  =                    2", b"NAXIS4  = 'two'"), "NAXIS4 is 'two'"),
        (patched(b"NAXIS4  =                    2", b"NAXISX  =                    2"), "NAXIS4 is missing"),
        (patched(b"NAXIS4  =                    2", b"NAXIS4  =        9999999999999"), "truncated: 20160 bytes are left for its data"),
        (patched(b"NAXIS   =                    4", b"NAXIS   =            999999999"), "NAXIS is 999999999"),
        (patched(b"PCOUNT  =                    0", b"PCOUNT  =                   -9"), "PCOUNT is -9"),
    ],
)  # fmt: skip
def test_damaged_file_is_rejected_with_what_was_found(
    damage: Callable[[bytes], bytes], message: str
) -> None:
    with pytest.raises(InputRejected, match=message):
        located(damage(fits_bytes()))


def test_header_without_end_is_read_up_to_a_limit() -> None:
    card = b"SIMPLE  =                    T".ljust(80)
    read = []

    def reader(start: int, length: int) -> bytes:
        read.append(length)
        return (card * 36)[:length]

    with pytest.raises(InputRejected, match="no END card, expected it within"):
        locate(reader, 10**13, "x.fits")
    assert sum(read) < 2_000_000


@pytest.mark.slow
def test_many_large_headers_are_rejected_before_they_use_memory() -> None:
    # Each is within the limit of one header; together they took 286 MiB.
    header = fits.Header([(f"KEY{number}", "x" * 60) for number in range(9000)])
    content = fits.PrimaryHDU(header=header).header.tostring().encode()
    more = fits.ImageHDU(header=header).header.tostring().encode()
    with pytest.raises(InputRejected, match=r"4 HDUs and \d+ bytes of headers"):
        located(content + more * 20)


SCI_NAXIS4 = b"NAXIS4  =                    2"


def with_card(content: bytes, before: bytes, card: bytes) -> bytes:
    """Insert a card before another one; remove a blank card of the padding."""
    place = content.index(before)
    end = content.index(b"END" + b" " * 77, place) + 80
    return content[:place] + card.ljust(80) + content[place:end] + content[end + 80 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (patched(b"SIMPLE  =                    T", b"SIMPLE  =                    F"), "SIMPLE is False"),
        (patched(b"PCOUNT  =                    0", b"PCOUNT  =                   10"), r"x.fits, HDU 1 \(SCI\): PCOUNT is 10"),
        (patched(b"GCOUNT  =                    1", b"GCOUNT  =                    2"), r"HDU 1 \(SCI\): .* GCOUNT 2"),
        (lambda c: with_card(c, SCI_NAXIS4, SCI_NAXIS4), "NAXIS4 occurs 2 times"),
        (lambda c: with_card(c, SCI_NAXIS4, b"BITPIX  =                    8"), "BITPIX occurs 2 times"),
        (lambda c: with_card(c, SCI_NAXIS4, b"BZERO   =                    0"), "BZERO occurs 2 times"),
        (lambda c: with_card(c, SCI_NAXIS4, b"HIERARCH BITPIX = 8"), "BITPIX occurs 2 times"),
        (lambda c: with_card(c, SCI_NAXIS4, b"END x"), "END is followed by b'x'"),
        (patched(b"TFIELDS =", b"HIST\0RY ="), "expected them in values and comments only"),
        (lambda c: with_card(c, SCI_NAXIS4, b"OBSERVER= 'A\n'"), "Unparsable card .OBSERVER"),
        (lambda c: with_card(c, SCI_NAXIS4, b"OBSERVER= 'A\0'"), "Unparsable card .OBSERVER"),
        (patched(b"BZERO   =                32768", b"BZERO   =                'SCI'"), "BZERO is 'SCI', expected a num"),
        (patched(b"BSCALE  =                    1", b"BSCALE  =                     "), "BSCALE is .*, expected a number"),
    ],
)  # fmt: skip
def test_structure_against_the_fits_standard_is_rejected(
    damage: Callable[[bytes], bytes], message: str
) -> None:
    with pytest.raises(InputRejected, match=message):
        located(damage(fits_bytes()))


@pytest.mark.parametrize(
    "slip",
    [
        lambda c: c.replace(b"END" + b" " * 77, b"END" + b"\0" * 77),
        lambda c: with_card(c, b"EXTNAME", b"HISTORY made by Andr\xe9\nand others"),
        lambda c: with_card(c, b"EXTNAME", b"OBSERVER= 'A'   / Andr\xe9"),
        lambda c: with_card(c, b"EXTNAME", b"OBSERVER= 'A'   / a\ttab"),
        lambda c: with_card(c, b"EXTNAME", b"OBSERVER= 'Andr\xe9'"),
        lambda c: c + b"garbage",
    ],
    ids=["nul-padding", "history", "comment", "tab", "value", "trailing-bytes"],
)
def test_slips_that_astropy_tolerates_are_tolerated(slip: Callable[[bytes], bytes]) -> None:
    found = located(slip(fits_bytes()))
    assert [(hdu.name, hdu.data_start) for hdu in found] == [
        (hdu.name, hdu.data_start) for hdu in located(fits_bytes())
    ]


@pytest.mark.parametrize(
    ("card", "version"),
    [("", 1), ("1", 1), ("1.0", 1), ("2", 2), ("0", 1), ("'1'", None), ("1E999", None)],
)
def test_extver_is_read_as_the_data_models_read_it(card: str, version: int | None) -> None:
    line = f"EXTVER  = {card}".encode() if card else b"COMMENT"
    assert located(with_card(fits_bytes(), b"EXTNAME", line))[1].version == version


def test_extname_that_is_not_text_names_nothing() -> None:
    content = fits_bytes().replace(b"EXTNAME = 'SCI     '", b"EXTNAME =          5")
    assert located(content)[1].name == ""


def test_more_hdus_than_any_exposure_has_are_rejected() -> None:
    # Each is one block, so the limit on the bytes of headers is not reached.
    content = fits.PrimaryHDU().header.tostring().encode()
    more = fits.ImageHDU(name="A").header.tostring().encode()
    assert len(located(content + more * 511)) == 512
    with pytest.raises(InputRejected, match="513 HDUs"):
        located(content + more * 512)


def test_image_of_999_axes_is_located() -> None:
    axes = b"".join(f"NAXIS{axis:<3}= {10**60 if axis < 999 else 0}".encode().ljust(80) for axis in range(1, 1000))  # fmt: skip
    cards = [b"XTENSION= 'IMAGE   '", b"BITPIX  = 8", b"NAXIS   = 999", axes, b"PCOUNT  = 0"]
    header = b"".join(card.ljust(80) for card in [*cards, b"GCOUNT  = 1", b"END"])
    content = fits_bytes() + header.ljust(-(-len(header) // 2880) * 2880)
    assert len(located(content)[3].shape) == 999
    with pytest.raises(InputRejected, match="truncated: 0 bytes are left"):
        located(content.replace(b"NAXIS999= 0", b"NAXIS999= 9"))
