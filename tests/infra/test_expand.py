"""The command dq-init expand, and a file over a virtual product."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import ClientError

from core.errors import InputRejected
from core.product import Encoding
from infra.__main__ import main
from infra.demo.local_aws import PRODUCTS, RAW, LocalAws
from infra.local import inputs, product
from infra.local.expand import open_virtual
from tests.conftest import PROJECT, Harness, empty_bucket
from tests.products import undated

KEY = "2023/x_uncal.fits"
ELSEWHERE = "exposures-without-versions"
NAME = "x_dq_init_virtual.fits"


@pytest.fixture
def virtual(
    function: Harness, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Harness, Path, bytes]:
    """A virtual product as a local file in the current folder, and the product it stands for."""
    monkeypatch.chdir(tmp_path)
    s3 = function.aws.client("s3")
    for module in ("inputs", "expand"):
        monkeypatch.setattr(f"infra.local.{module}.s3_client", lambda: s3)
    function = function.with_settings(encoding=Encoding.FLOAT32)
    function.upload(large, KEY)
    content = function.product(function.run(KEY, form="virtual"))
    (tmp_path / NAME).write_bytes(content)
    return function, tmp_path / NAME, function.product(function.run(KEY))


def expand(capsys: Any, *words: object, code: int = 0) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["expand", *map(str, words)])
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return said.out + said.err


def test_expanded_file_equals_the_assembled_product(virtual: Any, capsys: Any) -> None:
    _, path, expected = virtual
    assert expand(capsys, path, "--output-dir", "out").startswith("expanded")
    assert undated(Path("out/x_dq_init.fits").read_bytes()) == undated(expected)
    before = Path("out/x_dq_init.fits").stat().st_ino
    assert expand(capsys, path, "--output-dir", "out").startswith("kept")
    assert Path("out/x_dq_init.fits").stat().st_ino == before


@pytest.mark.slow
def test_folder_in_s3_is_expanded(virtual: Any, capsys: Any) -> None:
    _, _, expected = virtual
    lines = expand(capsys, f"s3://{PRODUCTS}/dq_init/", "--json").splitlines()
    (outcome,) = map(json.loads, lines)
    assert (outcome["status"], outcome["output"]) == ("expanded", "x_dq_init.fits")
    assert undated(Path("x_dq_init.fits").read_bytes()) == undated(expected)


@pytest.mark.slow
def test_replaced_exposure_is_named_with_both_versions(virtual: Any, capsys: Any) -> None:
    function, path, _ = virtual
    s3 = function.aws.client("s3")
    old = s3.head_object(Bucket=RAW, Key=KEY)["VersionId"]
    new = function.upload(b"other", KEY)
    assert expand(capsys, path).startswith("expanded"), "the old version can still be read"
    s3.delete_object(Bucket=RAW, Key=KEY, VersionId=old)
    Path("x_dq_init.fits").unlink()
    said = expand(capsys, path, code=2)
    assert f"{KEY}: version {old} does not exist; the current version ({new}, of 20" in said
    assert 'bytes; expected ETag "' in said
    assert not Path("x_dq_init.fits").exists()


@pytest.mark.slow
def test_exposure_deleted_meanwhile_is_named(
    virtual: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, path, _ = virtual
    s3, original = function.aws.client("s3"), product.write
    version = s3.head_object(Bucket=RAW, Key=KEY)["VersionId"]

    def write(*arguments: Any) -> None:
        s3.delete_object(Bucket=RAW, Key=KEY, VersionId=version)
        original(*arguments)

    monkeypatch.setattr("infra.local.expand.write", write)
    with open_virtual(path) as file:
        said = expand(capsys, path, code=2)
        assert "the current version does not exist; expected ETag" in said
        assert "retry" not in said
        with pytest.raises(InputRejected, match="the current version does not exist"):
            file.read()


@pytest.fixture
def elsewhere(virtual: Any, aws: LocalAws) -> Iterator[tuple[Harness, Path]]:
    """A virtual product of an exposure in a bucket without versions."""
    function, path, _ = virtual
    s3 = function.aws.client("s3")
    s3.create_bucket(Bucket=ELSEWHERE)
    content = s3.get_object(Bucket=RAW, Key=KEY)["Body"].read()
    s3.put_object(Bucket=ELSEWHERE, Key=KEY, Body=content)
    detail = function.run_event(
        {"bucket": ELSEWHERE, "key": KEY, "form": "virtual", "onExisting": "replace"}
    )
    path.write_bytes(function.product(detail))
    yield function, path
    empty_bucket(s3, ELSEWHERE)
    s3.delete_bucket(Bucket=ELSEWHERE)


@pytest.mark.slow
def test_exposure_of_a_bucket_without_versions(elsewhere: Any, capsys: Any) -> None:
    function, path = elsewhere
    assert expand(capsys, path).startswith("expanded")
    s3 = function.aws.client("s3")
    enabled = {"Status": "Enabled"}
    s3.put_bucket_versioning(Bucket=ELSEWHERE, VersioningConfiguration=enabled)
    s3.put_object(Bucket=ELSEWHERE, Key=KEY, Body=b"newer")
    assert expand(capsys, path, "--force").startswith("replaced"), "it is version null"
    s3.delete_object(Bucket=ELSEWHERE, Key=KEY, VersionId="null")
    said = expand(capsys, path, "--force", code=2)
    assert re.search(rf"{KEY}: the current version \(\S+, of \S+\) has ETag \S+ and 5 bytes;", said)


@pytest.mark.slow
def test_version_that_may_not_be_read_may_be_the_current_one(virtual: Any, capsys: Any) -> None:
    """So may be archives of others, which allow s3:GetObject only."""
    function, path, expected = virtual

    def deny(params: Any, **_: Any) -> None:
        if "VersionId" in params:
            raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")

    for operation in ("HeadObject", "GetObject"):
        inputs.s3_client().meta.events.register(f"provide-client-params.s3.{operation}", deny)
    assert expand(capsys, path).startswith("expanded")
    assert undated(Path("x_dq_init.fits").read_bytes()) == undated(expected)
    function.upload(b"newer", KEY)
    assert "s3:GetObjectVersion" in expand(capsys, path, "--force", code=4)


def test_requester_pays_bucket_is_read_if_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTER_PAYS_BUCKETS", f"other,{RAW}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = inputs.s3_client.__wrapped__()
    for bucket, payer in ((RAW, ["x-amz-request-payer"]), (PRODUCTS, [])):
        url = client.generate_presigned_url("head_object", {"Bucket": bucket, "Key": KEY})
        assert re.findall("x-amz-request-payer(?==requester)", url) == payer


@pytest.mark.slow
def test_complete_product_is_refused_before_it_is_read(virtual: Any, capsys: Any) -> None:
    _, path, expected = virtual
    path.write_bytes(expected)
    assert f"{NAME}: has no HDU LAYOUT, expected a virtual product" in expand(capsys, path, code=2)


@pytest.mark.slow
def test_damaged_pixels_are_replaced_only_by_force(virtual: Any, capsys: Any) -> None:
    _, path, expected = virtual
    expand(capsys, path)
    whole = Path("x_dq_init.fits")
    damaged = bytearray(whole.read_bytes())
    with fits.open(whole) as hdus:
        damaged[hdus["SCI"].fileinfo()["datLoc"] + 1000] ^= 255
    whole.write_bytes(damaged)
    assert expand(capsys, path).startswith("kept"), "pixels are not read"
    assert expand(capsys, path, "--force").startswith("replaced")
    assert undated(whole.read_bytes()) == undated(expected)


@pytest.mark.slow
def test_folder_contains_products_of_every_input_name(virtual: Any, capsys: Any) -> None:
    _, path, _ = virtual
    path.rename("y-dq_init_virtual.fits")  # of y-uncal.fits
    assert "expanded  y-dq_init.fits" in expand(capsys, ".")


@pytest.mark.slow
def test_other_file_is_replaced_only_by_force(virtual: Any, capsys: Any) -> None:
    _, path, expected = virtual
    Path("x_dq_init.fits").write_text("mine")
    assert "--force" in expand(capsys, path, code=2)
    assert Path("x_dq_init.fits").read_text() == "mine"
    assert expand(capsys, path, "--force").startswith("replaced")
    assert undated(Path("x_dq_init.fits").read_bytes()) == undated(expected)


@pytest.mark.slow
def test_failure_stops_only_its_file(virtual: Any, capsys: Any) -> None:
    Path("a_dq_init_virtual.fits").write_bytes(b"not FITS")
    said = expand(capsys, ".", code=2)
    assert "failed: a_dq_init_virtual.fits" in said
    assert "expanded  x_dq_init.fits" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_other_thing_at_the_output_fails_its_file(kind: str, virtual: Any, capsys: Any) -> None:
    _, path, expected = virtual
    path.with_name("a_dq_init_virtual.fits").write_bytes(path.read_bytes())
    output = Path("a_dq_init.fits")
    {"fifo": os.mkfifo, "link": lambda p: p.symlink_to("nowhere"), "folder": Path.mkdir}[kind](
        output
    )
    lines = [json.loads(line) for line in expand(capsys, ".", "--json", code=2).splitlines()]
    assert [line["status"] for line in lines] == ["failed", "expanded"]
    assert "a_dq_init.fits: exists and is not the complete product" in lines[0]["reason"]
    assert not output.is_file()
    assert undated(Path("x_dq_init.fits").read_bytes()) == undated(expected)


@pytest.mark.slow
def test_bad_bucket_and_full_name_fail_their_files(virtual: Any, capsys: Any) -> None:
    content = virtual[1].read_bytes()
    bad = content.replace(RAW.encode(), b"B A D".ljust(len(RAW)))
    assert bad != content
    Path("a_dq_init_virtual.fits").write_bytes(bad)
    Path("b_dq_init_virtual.fits").write_bytes(content)
    Path("b_dq_init.fits").mkdir()
    said = expand(capsys, ".", "--force", code=2)
    assert re.search(r"failed: s3://B A D/\S+: looking it up: .* Invalid bucket name", said)
    assert "failed: b_dq_init.fits: Is a directory; run it again when it is solved" in said
    assert "expanded  x_dq_init.fits" in said


@pytest.mark.slow
def test_output_of_two_products_or_an_input_is_refused(virtual: Any, capsys: Any) -> None:
    _, path, _ = virtual
    Path("other").mkdir()
    Path("other", NAME).write_bytes(path.read_bytes())
    said = expand(capsys, ".", "--force", code=2)
    assert f"x_dq_init.fits: would be the product of both other/{NAME} and {NAME}" in said
    renamed = path.rename("renamed.fits")
    before = renamed.read_bytes()
    assert "would be replaced by the product of" in expand(capsys, renamed, "--force", code=2)
    assert renamed.read_bytes() == before


@pytest.mark.slow
def test_file_over_a_virtual_product_reads_one_group(virtual: Any, tmp_path: Path) -> None:
    _, path, expected = virtual
    (tmp_path / "whole.fits").write_bytes(expected)
    received: list[int] = []

    def note(parsed: Any, **_: Any) -> None:
        received.append(int(parsed["ContentLength"]))

    inputs.s3_client().meta.events.register("after-call.s3.GetObject", note)
    with fits.open(open_virtual(path)) as opened, fits.open("whole.fits") as whole:
        group = opened["SCI"].section[0, 1]
        np.testing.assert_array_equal(group, whole["SCI"].data[0, 1])
        np.testing.assert_array_equal(opened["PIXELDQ"].data, whole["PIXELDQ"].data)
    stored = group.nbytes // 2  # float32, of 16 bits
    assert stored <= sum(received) < 2 * stored


@pytest.mark.slow
def test_documented_example_reads_a_group(virtual: Any, tmp_path: Path) -> None:
    text = (PROJECT / "docs/how-to" / "virtual.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102
    (tmp_path / "whole.fits").write_bytes(virtual[2])
    np.testing.assert_array_equal(names["group"], fits.getdata("whole.fits", "SCI")[0, 0])


@pytest.mark.slow
def test_view_shows_the_flags_of_a_virtual_product(virtual: Any, tmp_path: Path) -> None:
    _, path, expected = virtual
    (tmp_path / "x_dq_init.fits").write_bytes(expected)
    pages = []
    for name in (path.name, "x_dq_init.fits"):
        main(["view", name, "--out", name.removesuffix(".fits")])
        (page,) = Path(name.removesuffix(".fits")).glob("*.html")
        pages.append(page.read_text().replace("_virtual", ""))
    assert pages[0] == pages[1]
