"""The page docs/releases.md and the reasons in it."""

from tests.conformance.releases import PAGE, REASONS, page, unexplained


def _result(release: str, difference: str) -> dict[str, object]:
    found = {difference: {"cases": 1, "example": ""}}
    return {"release": release, "modes": [{"mode": "any", "differences": found}]}


def test_reason_holds_until_the_release_that_fixed_it() -> None:
    reason = next(reason for reason in REASONS if reason.until == "2.0.0")
    difference = "ramp: refused by jwst alone: this release has no parameter user_supplied_dq"
    assert unexplained(_result("1.20.2", difference)) == []
    assert unexplained(_result(reason.until, difference)) == [f"any: {difference}"]


def test_difference_of_pixels_has_no_reason() -> None:
    difference = "ramp: native data model: pixeldq"
    assert unexplained(_result("1.20.2", difference)) == [f"any: {difference}"]


def test_releases_page_equals_the_results() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.conformance.releases"
