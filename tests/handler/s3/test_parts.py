"""The part planner: S3's limits, the bytes of the product, and the number of uploaded bytes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.s3.assembly import CopiedPart, PartLimits, UploadedPart, plan_parts
from handler.s3.blocks import Extent
from handler.s3.objects import S3Location, StoredObject

MIB = 1024 * 1024
GIB = 1024 * MIB
LIMITS = PartLimits()


def stored(key: str, size: int = 0) -> StoredObject:
    return StoredObject(S3Location("bucket", key), '"etag"', size, {})


def uploaded(parts: list[UploadedPart | CopiedPart]) -> int:
    return sum(part.stop - part.start for part in parts if isinstance(part, UploadedPart))


def check_rules(
    extents: list[Extent],
    parts: list[UploadedPart | CopiedPart],
    limits: PartLimits = LIMITS,
) -> None:
    length = sum(extent.length for extent in extents)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts)][: len(parts)]
    assert (parts[-1].stop if parts else 0) == length
    assert len(parts) <= 10_000
    for part in parts[:-1]:
        assert part.stop - part.start >= limits.smallest
    for part in parts:
        assert 0 < part.stop - part.start <= limits.largest


@st.composite
def outputs(draw: st.DrawFn, unit: int) -> list[Extent]:
    """Draw extents of lengths around the limits: uploaded, of a file, of repeated planes."""
    extents = []
    for number in range(draw(st.integers(0, 9))):
        length = draw(st.one_of(st.integers(0, 3 * unit), st.integers(0, 40 * unit)))
        kind = draw(st.sampled_from(["made", "range", "planes"]))
        if kind == "made":
            extents.append(Extent(length))
        elif kind == "range":
            source = stored(f"object-{number}")
            extents.append(Extent(length, source, draw(st.integers(0, 5 * unit))))
        else:
            period = draw(st.integers(1, 20 * unit))
            repeats = max(2, -(-10 * unit // period) + 1)
            source = stored(f"block-{number}", repeats * period)
            extents.append(Extent(length, source, 0, period))
    return extents


@given(outputs(unit=MIB))
def test_every_plan_keeps_the_rules_of_s3(extents: list[Extent]) -> None:
    check_rules(extents, plan_parts(extents))


SMALL = PartLimits(5, 17, 10_000, upload=8, copy_rate=20, shortest_copy=5, longest_copy=16)


def objects_of(extents: list[Extent]) -> tuple[dict[str, bytes], bytes]:
    """Return the objects that the extents refer to, and the whole output."""
    rng = np.random.default_rng(len(extents))
    objects: dict[str, bytes] = {}
    output = b""
    for extent in extents:
        if extent.source is None:
            output += rng.bytes(extent.length)
        elif extent.period:
            pattern = rng.bytes(extent.period)
            key = extent.source.location.key
            objects[key] = pattern * (extent.source.size // extent.period)
            output += (pattern * (extent.length // extent.period + 1))[: extent.length]
        else:
            content = rng.bytes(extent.length)
            objects[extent.source.location.key] = rng.bytes(extent.start) + content + b"rest"
            output += content
    return objects, output


def least_possible(extents: list[Extent]) -> int:
    """Return the fewest uploaded bytes, by trying every choice of copies (short outputs only)."""
    kinds = [s.source is not None for s in extents for _ in range(s.length)]
    owner = [i for i, s in enumerate(extents) for _ in range(s.length)]
    length = len(kinds)
    best = {0: 0}  # position -> cost, all parts before it complete
    for start in range(length):
        if start not in best:
            continue
        for stop in range(start + 1, length + 1):
            if stop - start < SMALL.smallest and stop < length:
                continue
            cost = best[start] + stop - start
            best[stop] = min(best.get(stop, cost), cost)
            if kinds[start] and owner[start] == owner[stop - 1]:
                best[stop] = min(best[stop], best[start])
    return best[length]


@pytest.mark.slow
@settings(max_examples=400)
@given(outputs(unit=1))
def test_parts_give_the_output_and_upload_few_bytes(extents: list[Extent]) -> None:
    parts = plan_parts(extents, SMALL)
    check_rules(extents, parts, SMALL)
    objects, output = objects_of(extents)
    assembled = b"".join(
        output[part.start : part.stop]
        if isinstance(part, UploadedPart)
        else objects[part.source.location.key][part.first : part.first + part.stop - part.start]
        for part in parts
    )
    assert assembled == output
    found = [extent for extent in extents if extent.length]
    runs = sum(extent.source is not None for extent in found)  # one that saves little is uploaded
    assert uploaded(parts) <= least_possible(found) + SMALL.smallest * (1 + runs)


def full_frame(groups: int) -> list[Extent]:
    image = 2048 * 2048
    return [
        Extent(17_280),  # primary header
        Extent(2 * image * groups + 5760, stored("input"), 14_400),
        Extent(4 * image + 2880 + 2048),  # PIXELDQ, and GROUPDQ's header
        Extent(image * groups, stored("block", 16 * image), 0, image),
        Extent(1024),
        Extent(23_040, stored("input"), 17_280 + 2 * image * groups),
    ]


def test_full_frame_of_100_groups_uploads_only_its_planes() -> None:
    parts = plan_parts(full_frame(100))
    assert uploaded(parts) < 5 * MIB + 4 * 2048 * 2048 + 50_000
    copied = [part for part in parts if isinstance(part, CopiedPart)]
    of_block = [part for part in copied if part.source.location.key == "block"]
    assert max(part.stop - part.start for part in of_block) <= 15 * 2048 * 2048
    assert len([part for part in parts if isinstance(part, UploadedPart)]) == 3


@pytest.mark.parametrize(("groups", "parts"), [(2, 5), (11, 6), (100, 17), (500, 55)])
def test_requests_grow_with_the_square_root_of_the_size(groups: int, parts: int) -> None:
    """17 MB, 92 MB, 839 MB and 4 GB; create, complete and the ledger add three requests."""
    assert len(plan_parts(full_frame(groups))) <= parts


@given(st.integers(60, 40_000))
def test_size_of_copied_parts_is_the_cheapest(megabytes: int) -> None:
    """The cost is the requests and the wait for the longest copy, in requests."""
    length = megabytes * 1_000_000

    def cost(part: int) -> float:
        return -(-length // part) + LIMITS.requests_per_second * part / LIMITS.copy_rate

    chosen = LIMITS.copied_part(length)
    others = [length / n for n in range(1, 400) if 24 * MIB <= length / n <= 224 * MIB]
    cheapest = min([cost(int(part) + 1) for part in others], default=9e9)
    assert cost(chosen) <= 1.1 * cheapest + 1.01


def test_run_that_saves_few_bytes_is_uploaded() -> None:
    """A copy of ZEROFRAME would need a part of 5 MiB before it: two requests for 3 MB."""
    zeroframe = Extent(2 * 2048 * 2048, stored("input"), 90_000_000)
    parts = plan_parts([*full_frame(11), zeroframe, Extent(1024)])
    assert len(parts) == len(plan_parts(full_frame(11)))


def test_copied_parts_have_at_most_224_mib() -> None:
    parts = plan_parts([Extent(30 * GIB, stored("input"))])
    assert max(part.stop - part.start for part in parts) <= 224 * MIB
    assert uploaded(parts) == 0


def test_output_under_5_mib_is_one_upload() -> None:
    parts = plan_parts([Extent(3 * MIB), Extent(2 * MIB, stored("input")), Extent(10)])
    assert parts == [UploadedPart(0, 5 * MIB + 10)]


def test_long_upload_is_divided_into_parts_of_16_mib() -> None:
    parts = plan_parts([Extent(100 * MIB)])
    assert [part.stop - part.start for part in parts] == pytest.approx([100 / 6 * MIB] * 6, abs=1)


def test_upload_of_2_tb_has_at_most_10_000_parts() -> None:
    parts = plan_parts([Extent(2000 * GIB)])
    assert len(parts) <= 10_000
    assert all(a.stop == b.start for a, b in pairwise(parts))
