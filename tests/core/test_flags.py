import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.flags import (
    PIXEL_FLAGS,
    FlagDefinition,
    count_by_mnemonic,
    flagged_pixels,
    translate,
)

DQ = np.array([[0, 1, 2], [3, 4, 1 << 31]], dtype=np.uint32)


def test_pixel_flags_are_32_in_the_standard_order() -> None:
    assert list(PIXEL_FLAGS.values()) == [1 << bit for bit in range(32)]
    known = {"DO_NOT_USE": 0, "JUMP_DET": 2, "DEAD": 10, "RC": 14, "REFERENCE_PIXEL": 31}
    assert {name: PIXEL_FLAGS[name] for name in known} == {k: 1 << v for k, v in known.items()}


def test_bits_without_definitions_are_standard_already() -> None:
    assert translate(DQ, []) is DQ


def test_rows_of_one_name_merge_and_one_bit_serves_several_rows() -> None:
    rows = [FlagDefinition(1, "RC"), FlagDefinition(4, "RC"), FlagDefinition(4, "HOT")]
    assert translate(DQ, rows).tolist() == [[0, 1 << 14, 0], [1 << 14, (1 << 14) | (1 << 11), 0]]


def test_negative_value_is_read_as_the_highest_bit() -> None:
    assert translate(DQ, [FlagDefinition(-(1 << 31), "DEAD")])[1, 2] == 1 << 10


def test_unknown_flag_name_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not translate(DQ, [FlagDefinition(1, "WEIRD"), FlagDefinition(2, "GOOD")]).any()
    assert [record.getMessage() for record in caplog.records] == [
        "mask: DQ_DEF names 'WEIRD', which is not a standard flag; ignored"
    ]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_count_by_mnemonic_equals_a_count_of_each_bit(values: list[int]) -> None:
    dq = np.array(values, dtype=np.uint32)
    expected = {name: sum(bool(v & bit) for v in values) for name, bit in PIXEL_FLAGS.items()}
    unusable = {
        name: sum(bool(v & bit and v & 1) for v in values) for name, bit in PIXEL_FLAGS.items()
    }
    assert count_by_mnemonic(flagged_pixels(dq)[1]) == {
        name: (n, unusable[name]) for name, n in expected.items() if n
    }
