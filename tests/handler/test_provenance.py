"""Provenance: equality, and metadata as S3 keeps them."""

from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.product import Encoding
from handler.crds.masks import MaskChoice
from handler.decision import Provenance, shortened
from handler.s3.objects import S3Location, StoredObject

SOURCE = StoredObject(
    S3Location("raw", "2023/a_uncal.fits"), '"e1"', 5, {}, "v1", "2026-01-01T00:00:00Z"
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=1024).filter(
    lambda text: len(text.encode()) <= 1024
)


def provenance(
    key: str = "2023/a_uncal.fits", mask: str = "crds://m.fits", cause: str = "c"
) -> Provenance:
    source = replace(SOURCE, location=S3Location("raw", key))
    choice = MaskChoice(context="jwst_1.pmap", label=mask, sha1="0" * 40)
    return Provenance.of(source, choice, None, Encoding.NATIVE, cause)


@given(key=TEXTS, mask=TEXTS, cause=TEXTS)
def test_metadata_fit_s3_and_can_be_read_again(key: str, mask: str, cause: str) -> None:
    made = provenance(key, mask, cause)
    metadata = made.to_metadata()
    assert all(value.isascii() and value == value.strip() for value in metadata.values())
    assert sum(len(name) + len(value) for name, value in metadata.items()) <= 2048
    read = Provenance.from_metadata(metadata)
    assert read == made
    assert (read.cause, read.crds_context) == (made.cause, made.crds_context)
    assert read.is_of_input("raw", key)


def test_context_cause_and_time_are_not_compared() -> None:
    other = replace(provenance(), crds_context="jwst_2.pmap", cause="d", input_modified="")
    assert other == provenance()


@pytest.mark.parametrize(
    "name",
    ["pinned", "input_bucket", "input_key", "input_etag", "input_version", "mask", "mask_sha1", "user_dq_etag", "science_encoding", "software_version"],
)  # fmt: skip
def test_every_other_field_is_compared(name: str) -> None:
    assert replace(provenance(), **{name: "other"}) != provenance()


@pytest.mark.parametrize("name", ["input-bucket", "input-key", "software-version"])
def test_metadata_without_input_are_not_provenance(name: str) -> None:
    metadata = provenance().to_metadata()
    del metadata[name]
    assert Provenance.from_metadata(metadata) is None


def test_missing_field_of_an_earlier_release_is_unequal() -> None:
    metadata = provenance().to_metadata()
    del metadata["mask-sha1"]
    earlier = Provenance.from_metadata(metadata)
    assert earlier is not None
    assert earlier != provenance()
    assert earlier.is_of_input("raw", "2023/a_uncal.fits")


@pytest.mark.parametrize("pinned", [True, False])
def test_pin_survives_in_metadata(pinned: bool) -> None:
    metadata = replace(provenance(), pinned=pinned).to_metadata()
    assert metadata["pinned"] == str(pinned).lower()
    read = Provenance.from_metadata(metadata)
    assert read is not None
    assert read.pinned is pinned


@pytest.mark.parametrize(
    ("changed", "pinned"),
    [({}, False), ({"mask": "s3://b/mine.fits"}, True), ({"user-dq-etag": "e"}, True), ({"mask": "N/A"}, False)],
)  # fmt: skip
def test_pin_of_an_earlier_release_is_derived(changed: dict[str, str], pinned: bool) -> None:
    metadata = {**provenance().to_metadata(), **changed}
    del metadata["pinned"]
    read = Provenance.from_metadata(metadata)
    assert read is not None
    assert read.pinned is pinned


def test_long_texts_differ_by_their_digest() -> None:
    first, second = shortened("x" * 600 + "a"), shortened("x" * 600 + "b")
    assert first != second
    assert len(first) < 120
    assert unquote(first).startswith("x" * 32)
