"""The decision table for the object at the product's key."""

from dataclasses import replace
from typing import Any

import pytest

from core.errors import InputRejected
from core.product import Encoding
from handler.crds.masks import MaskChoice
from handler.decision import Action, Provenance, action_for, target_for
from handler.events import OnExisting
from handler.s3.objects import S3Location, StoredObject

PLACE = S3Location("products", "dq_init/a_dq_init.fits")
SOURCE = StoredObject(S3Location("raw", "a"), '"e"', 5, {}, "v2", "2026-01-02T00:00:00Z")
CHOICE = MaskChoice(context="jwst_1.pmap", label="crds://m.fits", sha1="0" * 40)
WANTED = Provenance.of(SOURCE, CHOICE, None, Encoding.NATIVE, "cause")
OTHER_CAUSE = replace(WANTED, cause="another")
OTHER_MASK = replace(OTHER_CAUSE, mask="crds://n.fits")
OLDER = replace(OTHER_CAUSE, input_version="v1", input_modified="2026-01-01T00:00:00Z")
NEWER = replace(OTHER_CAUSE, input_version="v3", input_modified="2026-01-03T00:00:00Z")
OTHER_INPUT = replace(OTHER_CAUSE, input_key="b")
PINNED = replace(OTHER_MASK, pinned=True)
PINNED_OLDER = replace(OLDER, mask="crds://n.fits", pinned=True)
REJECTED = None


def stored(provenance: Provenance | None) -> StoredObject:
    metadata = provenance.to_metadata() if provenance else {"a": "person's"}
    return StoredObject(PLACE, '"p"', 9, metadata, "p1")


def decide(there: Any, wanted: Provenance, on_existing: OnExisting) -> Action:
    return action_for(stored(there), wanted, on_existing, lambda: False)


@pytest.mark.parametrize(
    ("there", "skip", "replaced", "error"),
    [
        pytest.param(WANTED, Action.KEEP, Action.KEEP, Action.KEEP, id="our own work"),
        pytest.param(OTHER_CAUSE, Action.KEEP, Action.BUILD, REJECTED, id="the same"),
        pytest.param(OTHER_MASK, Action.BUILD, Action.BUILD, REJECTED, id="another mask"),
        pytest.param(OLDER, Action.BUILD, Action.BUILD, REJECTED, id="an older version"),
        pytest.param(NEWER, Action.SUPERSEDED, Action.BUILD, REJECTED, id="a newer version"),
        pytest.param(PINNED, Action.PINNED, Action.BUILD, REJECTED, id="pinned"),
        pytest.param(PINNED_OLDER, Action.BUILD, Action.BUILD, REJECTED, id="pinned, older"),
        pytest.param(OTHER_INPUT, REJECTED, Action.BUILD, REJECTED, id="another input"),
        pytest.param(None, REJECTED, Action.BUILD, REJECTED, id="no product"),
    ],
)
def test_action_for_each_object_at_the_product_key(
    there: Any, skip: Any, replaced: Any, error: Any
) -> None:
    expected = {OnExisting.SKIP: skip, OnExisting.REPLACE: replaced, OnExisting.ERROR: error}
    for on_existing, action in expected.items():
        if action is REJECTED:
            advice = "replace replaces it" if on_existing is OnExisting.SKIP else "error forbids"
            message = rf"s3://products/dq_init/a_dq_init\.fits: .*; onExisting={advice}"
            with pytest.raises(InputRejected, match=message):
                decide(there, WANTED, on_existing)
        else:
            assert decide(there, WANTED, on_existing) is action


@pytest.mark.parametrize("on_existing", OnExisting)
def test_action_without_an_object_is_build(on_existing: OnExisting) -> None:
    assert action_for(None, WANTED, on_existing, lambda: True) is Action.BUILD


def test_request_that_pins_rebuilds_an_unpinned_product() -> None:
    """The rules may choose what the request names: N/A. Its intent is kept nevertheless."""
    wanted = replace(WANTED, pinned=True)
    assert decide(OTHER_CAUSE, wanted, OnExisting.SKIP) is Action.BUILD
    assert decide(replace(OTHER_CAUSE, pinned=True), wanted, OnExisting.SKIP) is Action.KEEP


@pytest.mark.parametrize("modified", [WANTED.input_modified, NEWER.input_modified])
@pytest.mark.parametrize(
    ("is_current", "action"), [(True, Action.BUILD), (False, Action.SUPERSEDED)]
)
def test_current_version_wins_over_a_later_one(
    is_current: bool, action: Action, modified: str
) -> None:
    """Of two versions of one second, and if the later one was deleted."""
    there = replace(NEWER, input_modified=modified)
    assert action_for(stored(there), WANTED, OnExisting.SKIP, lambda: is_current) is action


def test_newer_version_is_built_without_asking_s3() -> None:
    def ask() -> bool:
        pytest.fail("a request to S3 was not needed")

    assert action_for(stored(OLDER), WANTED, OnExisting.SKIP, ask) is Action.BUILD


def test_target_is_conditional_on_the_object_found() -> None:
    assert target_for(PLACE, None, WANTED).condition == {"IfNoneMatch": "*"}
    assert target_for(PLACE, stored(WANTED), WANTED).condition == {"IfMatch": '"p"'}
