"""The demo, with generated exposures and with the user's own file and CRDS cache."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from astropy.io import fits

from infra.demo.demo import main
from infra.demo.local_aws import local_aws
from infra.demo.samples import write_cache
from tests.conftest import PROJECT
from tests.samples.exposures import write_exposure
from tests.samples.modes import MODES


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "80"}
    for name in list(environment):
        if name.startswith(("AWS_", "CRDS_")):
            del environment[name]
    return subprocess.run(
        [sys.executable, "-m", "infra.demo", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def demo_here(*arguments: str) -> None:
    """Run the demo in this process, with arguments that it rejects before it starts an AWS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["infra.demo", *arguments])
        main()


def test_own_exposure_and_cache_give_a_product(tmp_path: Path, sample_cache: Path) -> None:
    mode = next(mode for mode in MODES if mode.name == "niriss-ami")
    write_exposure(mode, tmp_path / "mine_uncal.fits")
    done = demo(tmp_path, "--file", "mine_uncal.fits", "--crds-path", str(sample_cache))
    assert done.returncode == 0, done.stderr
    assert "jwst_niriss_mask_9002.fits" in done.stdout
    assert "4x5x80x80" in done.stdout
    assert '"status": "Complete"' in done.stdout
    assert re.search(r"^1 exposure\. Products: 0\.[1-9] MB", done.stdout, re.MULTILINE)
    products = tmp_path / "demo-output" / "products"
    assert str(products) in done.stdout.replace("\n", "")
    assert fits.getdata(products / "mine_dq_init.fits", "PIXELDQ").shape == (80, 80)


def test_masks_of_the_demo_have_the_columns_that_jwst_needs(tmp_path: Path) -> None:
    write_cache(tmp_path)
    masks = list((tmp_path / "references").rglob("*.fits"))
    assert masks
    for mask in masks:
        columns = fits.getdata(mask, "DQ_DEF").columns.names
        assert columns == ["BIT", "VALUE", "NAME", "DESCRIPTION"]


@pytest.mark.slow
def test_bad_exposure_is_reported_and_the_exit_code_is_1(
    tmp_path: Path, sample_cache: Path
) -> None:
    mode = next(mode for mode in MODES if mode.name == "niriss-ami")
    write_exposure(mode, tmp_path / "mine_uncal.fits")
    with fits.open(tmp_path / "mine_uncal.fits", mode="update") as hdus:
        hdus[0].header["SUBSTRT1"] = 2000
    done = demo(tmp_path, "--file", "mine_uncal.fits", "--crds-path", str(sample_cache))
    assert done.returncode == 1
    assert "InputRejected" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_missing_mask_is_reported_and_earlier_products_stay(
    tmp_path: Path, sample_cache: Path
) -> None:
    mode = next(mode for mode in MODES if mode.name == "niriss-ami")
    write_exposure(mode, tmp_path / "mine_uncal.fits")
    mine = tmp_path / "demo-output" / "products" / "earlier_dq_init.fits"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"of the user")
    cache = tmp_path / "cache"
    shutil.copytree(sample_cache, cache)
    for mask in (cache / "references").rglob("jwst_niriss_mask_*.fits"):
        mask.unlink()
    done = demo(tmp_path, "--file", "mine_uncal.fits", "--crds-path", str(cache))
    assert done.returncode == 1
    assert "Failed" in done.stdout
    assert "jwst_niriss_mask" in done.stdout
    assert mine.read_bytes() == b"of the user"


def test_wrong_exposure_or_cache_is_reported_in_one_line(
    tmp_path: Path, sample_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty_uncal.fits").touch()
    (tmp_path / "x.fits").touch()
    (tmp_path / "folder_uncal.fits").mkdir()
    monkeypatch.chdir(tmp_path)
    good = str(sample_cache)
    for file, cache in (
        ("empty_uncal.fits", good),
        ("x.fits", good),
        ("folder_uncal.fits", good),
        ("none_uncal.fits", good),
        ("empty_uncal.fits", "nowhere"),
    ):
        with pytest.raises(SystemExit) as ended:
            demo_here("--file", file, "--crds-path", cache)
        assert len(str(ended.value.code).splitlines()) == 1


@pytest.mark.parametrize("arguments", [("--file", "x"), ("--crds-path", "x")])
def test_file_without_cache_and_vice_versa_are_rejected(
    arguments: tuple[str, str],
) -> None:
    with pytest.raises(SystemExit, match="go together"):
        demo_here(*arguments)


@pytest.mark.slow
def test_settings_of_the_shell_are_hidden_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_PROFILE": "absent",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_CA_BUNDLE": "/nowhere",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "CRDS_CONTEXT": "jwst_0001.pmap",
    }.items():
        monkeypatch.setenv(name, value)
    with local_aws() as running:
        assert running.client("s3").list_buckets()["Buckets"]
        assert boto3.client("s3").list_buckets()["Buckets"]
        assert "CRDS_CONTEXT" not in os.environ
    assert os.environ["AWS_PROFILE"] == "absent"


@pytest.mark.slow
def test_demo_never_deletes_the_users_exposure(tmp_path: Path, sample_cache: Path) -> None:
    mode = next(mode for mode in MODES if mode.name == "nircam-sub64p")
    mine = tmp_path / "demo-output" / "inputs" / "mine_uncal.fits"
    mine.parent.mkdir(parents=True)
    write_exposure(replace(mode, shape=(1, 1300, *mode.shape[2:])), mine)
    before = mine.read_bytes()
    assert len(before) > 10_000_000
    done = demo(
        tmp_path, "--file", str(mine.relative_to(tmp_path)), "--crds-path", str(sample_cache)
    )
    assert done.returncode == 0, done.stderr
    assert mine.read_bytes() == before


_SMALL_DEMO = """
from dataclasses import replace
from infra.demo import demo, samples
(small,) = (mode for mode in demo.MODES if mode.name == "nircam-sub64p")
demo.MODES = (small, replace(small, name="large", shape=(1, 1300, 64, 64)))
samples._MASKS = {"nircam": {"NRCB1": (2048, 2048)}}
demo.main()
"""


def small_demo(folder: Path) -> str:
    """Run the demo with one small and one large exposure; return what it prints."""
    # In a process of its own: moto keeps one AWS for a process, with what other tests left in it.
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_DEMO],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_demo_replaces_no_file_that_it_finds(tmp_path: Path) -> None:
    assert "1 of 2 in" in small_demo(tmp_path)
    output = tmp_path / "demo-output"
    (exposure,) = (output / "inputs").iterdir()
    rules = next((output / "crds_cache" / "mappings" / "jwst").glob("*.pmap"))
    mine = output / "inputs" / "mine_uncal.fits"
    for path in (exposure, rules, mine):
        path.write_bytes(b"changed by the user")
    output_again = small_demo(tmp_path)
    for path in (exposure, rules, mine):
        assert path.read_bytes() == b"changed by the user"
    assert "pmap: kept as it was" in output_again
    assert output_again.count("kept as it was") == 2, output_again
    assert not list(output.glob(".run-*"))


@pytest.mark.slow
def test_interrupted_demo_is_one_line(tmp_path: Path) -> None:
    code = (
        "import runpy, os, signal, threading\n"
        "import infra.demo.demo as demo\n"
        "demo.generate = lambda *_: os.kill(os.getpid(), signal.SIGINT) or __import__('time').sleep(5)\n"
        "runpy.run_module('infra.demo', run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("demo: interrupted")
    assert "Traceback" not in done.stderr


def made(*words: str, **environment: str) -> str:
    """Return the command that `make` would run."""
    target = ["make", "--dry-run", "-o", ".venv/demo", "demo", *words]
    kept = {k: v for k, v in os.environ.items() if k not in {"CRDS_PATH", "FILE", "MAKEFLAGS"}}
    done = subprocess.run(
        target, cwd=PROJECT, env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_make_demo_passes_a_cache_without_a_file_on() -> None:
    assert "--crds-path '/mine'" in made("CRDS_PATH=/mine"), "the program rejects it"
    assert "--file 'x' --crds-path '/mine'" in made("FILE=x", CRDS_PATH="/mine")
    assert "--crds-path" not in made(CRDS_PATH="/mine"), "CRDS_PATH of the shell is ignored"


def test_make_demo_accepts_a_name_with_a_quote() -> None:
    assert r"--file 'it'\''s_uncal.fits'" in made("FILE=it's_uncal.fits")
