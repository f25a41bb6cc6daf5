import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.fits.pixels import PixelFormat
from core.layout import ByteRange, Converted, Copied, Layout, Literal, Merged, Repeated, Segment

SOURCE = np.random.default_rng(7).integers(0, 256, 4096, dtype=np.uint8).tobytes()
UINT16 = PixelFormat(16, offset=True)


def repeated(planes: list[bytes], each: int, count: int) -> tuple[Repeated, bytes]:
    array = np.frombuffer(b"".join(planes), np.uint8).reshape(len(planes), -1)
    return Repeated(array, each, count), b"".join(plane * each for plane in planes) * count


@st.composite
def segments(draw: st.DrawFn) -> tuple[Segment, bytes]:
    """Draw a segment and the bytes that it renders to."""
    kind = draw(st.sampled_from(["literal", "copied", "repeated", "merged", "converted"]))
    start = draw(st.integers(0, 2000))
    if kind == "literal":
        content = draw(st.binary(max_size=50))
        return Literal(content), content
    if kind == "copied":
        length = draw(st.integers(0, 2000))
        return Copied(start, length), SOURCE[start : start + length]
    if kind == "converted":
        pixels = draw(st.integers(0, 200))
        stored = np.frombuffer(SOURCE[start : start + 2 * pixels], ">i2").astype(np.int32)
        return Converted(start, pixels, UINT16), (stored + 32768).astype(">f4").tobytes()
    size = draw(st.integers(1, 9))
    planes = draw(st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=4))
    planes_of, content = repeated(planes, draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    if kind == "repeated":
        return planes_of, content
    present = SOURCE[start : start + len(content)]
    expected = bytes(a | b for a, b in zip(present, content, strict=True))
    return Merged(start, PixelFormat(8), planes_of), expected


def rendered(layout: Layout, most: int) -> bytes:
    out = b""
    for piece in layout.pieces(most):
        assert piece.length <= most
        wanted = piece.source
        source = b"" if wanted is None else SOURCE[wanted.start : wanted.start + wanted.length]
        content = bytearray(piece.length)
        piece.render(source, memoryview(content))
        out += content
    return out


@given(st.lists(segments(), max_size=8), st.integers(4, 500))
def test_pieces_of_any_size_give_the_same_bytes(
    parts: list[tuple[Segment, bytes]], most: int
) -> None:
    layout = Layout.of([segment for segment, _ in parts])
    expected = b"".join(content for _, content in parts)
    assert layout.length == len(expected)
    assert rendered(layout, most) == expected


def test_adjacent_copied_ranges_are_joined() -> None:
    layout = Layout.of([Copied(0, 10), Copied(10, 5), Copied(20, 5), Literal(b""), Literal(b"b")])
    assert layout.segments == (Copied(0, 15), Copied(20, 5), Literal(b"b"))


def test_converted_segment_requests_whole_pixels() -> None:
    segment = Converted(100, 50, UINT16)
    assert segment.source(40, 20) == ByteRange(120, 10)
    assert segment.source(41, 20) == ByteRange(120, 12)


@given(st.integers(0, 199), st.integers(1, 200), st.integers(1, 300))
def test_part_of_converted_pixels_may_start_and_end_anywhere(
    start: int, length: int, most: int
) -> None:
    layout = Layout.of([Converted(0, 100, UINT16)])
    stop = min(start + length, layout.length)
    out = b""
    for piece in layout.pieces(most, start, stop):
        wanted = piece.source
        assert wanted is not None
        content = bytearray(piece.length)
        piece.render(SOURCE[wanted.start : wanted.start + wanted.length], memoryview(content))
        out += content
    stored = np.frombuffer(SOURCE[:200], ">i2").astype(np.int32)
    assert out == (stored + 32768).astype(">f4").tobytes()[start:stop]


def test_window_inside_one_plane_is_a_view() -> None:
    planes = np.arange(100, dtype=np.uint8).reshape(1, 100)
    window = Repeated(planes, 1000, 1).window(350, 40)
    assert np.shares_memory(window, planes)
