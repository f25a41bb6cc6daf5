"""Entries of the ledger: values and digests."""

import json
import math
from typing import Any

import numpy as np
import pytest

from core.exposure import Exposure
from core.fits.hdus import locate
from core.flags import flagged_pixels, planes_sha256
from handler.ledger import CatalogueRow, Entry, is_usable
from handler.publish import planes_summary
from handler.s3.objects import S3Location, StoredObject

STORED = StoredObject(S3Location("b", "k"), '"e"', 1, {})
UNUSABLE = [
    math.inf,
    -math.inf,
    math.nan,
    2**63,
    -(10**400),
    "a\x1b[2Jb",
    "\udc80",
    "a\nb",
    None,
    [1],
]
USABLE = [True, 0, -(2**62), 1.5, "", "F140X", "größer"]


@pytest.mark.parametrize("value", UNUSABLE, ids=lambda value: type(value).__name__)
def test_unusable_value_is_dropped_from_an_older_entry(value: Any) -> None:
    row = {"parameters": {"A": value, "B": 1}, "window": None, "planes_sha256": "0"}
    content = json.dumps({"result": None, "catalogue": row, "failure": None})
    entry = Entry.from_json(content.encode(), STORED)
    assert entry.catalogue is not None
    assert entry.catalogue.parameters == {"B": 1}
    assert json.loads(entry.to_json())["catalogue"]["parameters"] == {"B": 1}


@pytest.mark.parametrize("value", USABLE, ids=str)
def test_usable_value_is_kept(value: Any) -> None:
    assert is_usable(value)
    entry = Entry(None, CatalogueRow({"A": value}, None, "0"), None, STORED)
    read = Entry.from_json(entry.to_json(), STORED)
    assert read.catalogue == entry.catalogue


def test_window_of_huge_numbers_is_none(exposure: bytes) -> None:
    at = exposure.index(b"SUBSTRT1=")
    huge = exposure[:at] + b"SUBSTRT1= 99999999999999999999".ljust(80) + exposure[at + 80 :]
    hdus = locate(lambda start, length: huge[start : start + length], len(huge), "x")
    found = Exposure.from_hdus(hdus, "x")
    image = np.zeros(found.plane_shape, np.uint32)
    assert planes_summary(found, image, pinned=False)[1].window is None


def test_digest_of_planes_depends_on_their_shape() -> None:
    """Pixels of one index are others in an array of another shape."""
    flags = np.arange(8, dtype=np.uint32)
    assert planes_sha256((2, 4), *flagged_pixels(flags)) != planes_sha256(
        (4, 2), *flagged_pixels(flags)
    )
