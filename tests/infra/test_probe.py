"""The probe tells what a server does, by trying it."""

import json

import pytest

from infra.__main__ import main
from infra.demo.local_aws import PRODUCTS, LocalAws
from tests.conftest import empty_buckets, forget


@pytest.fixture(autouse=True)
def _anew(aws: LocalAws) -> None:
    empty_buckets(aws)
    forget()


def probed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, int]:
    with pytest.raises(SystemExit) as ended:
        main(["probe", *words])
    return capsys.readouterr().out, ended.value.code


def test_it_finds_what_moto_does_not_keep_and_leaves_nothing(
    aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, code = probed(capsys, f"s3://{PRODUCTS}/trial", "--json")
    kept = {row["promise"]: row["kept"] for row in json.loads(printed)}
    assert not kept.pop("copies are pinned to the object that was found"), printed
    assert not kept.pop("completion with If-Match replaces only what was found"), printed
    assert not kept.pop("what arrives with another CRC-32 is refused"), printed
    kept.pop("of completions at once one wins")  # moto lets one or more win, by chance
    assert [name for name, is_kept in kept.items() if not is_kept] == [], printed
    assert code == 1
    assert "Versions" not in aws.client("s3").list_object_versions(Bucket=PRODUCTS)


def test_it_says_for_people_what_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    printed, _ = probed(capsys, f"s3://{PRODUCTS}/trial")
    assert "NOT KEPT  copies are pinned to the object that was found" in printed
    assert "kept      PUT with If-None-Match creates, and never replaces" in printed


@pytest.mark.parametrize("place", ["products", "s3://no-such-bucket/x"])
def test_a_place_that_cannot_be_is_one_line(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["probe", place])
    said = capsys.readouterr().err.splitlines() + str(ended.value.code).splitlines()
    assert any(place in line for line in said)
    assert len(said) < 8
