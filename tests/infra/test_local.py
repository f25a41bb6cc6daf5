"""The command dq-init run: the step on files of this machine."""

import itertools
import json
import logging
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from astropy.io import fits

from core import EQUALS_JWST
from core.errors import InputRejected, ReferenceUnavailable, TransientFailure
from core.in_memory import dq_init
from core.mask import Mask
from core.product import Encoding, HeaderValues, product_name
from handler.crds.lean_import import CRDS_VERSION
from infra.__main__ import main
from infra.demo.local_aws import MIRROR, RAW, LocalAws
from infra.demo.samples import CONTEXT, Mode, sample_name, write_server_config
from infra.local import product, references, run
from tests.conftest import SHARED, Harness, empty_buckets
from tests.infra.crds_server import crds_server
from tests.products import undated
from tests.reference_step import check_product, expected_image
from tests.samples.exposures import write_exposure
from tests.samples.mirror import RULES, write_rules
from tests.samples.modes import MODES
from tests.scenarios.test_modes import real_exposure

MASK = "jwst_nircam_mask_9002.fits"
NEWER = "jwst_9002.pmap"


class Shell:
    """A folder with exposures, and the command in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def run(self, *words: object, code: int = 0) -> str:
        """Run the command, check its exit code, and return what it prints."""
        self.capsys.readouterr()
        references._open.cache_clear()
        references.read_mask.cache_clear()
        references.read_user_dq.cache_clear()
        references.s3_client.cache_clear()
        with pytest.raises(SystemExit) as ended:
            main(["run", *map(str, words)])
        said = self.capsys.readouterr()
        assert ended.value.code == code, said.err
        return said.out + said.err

    def files(self, folder: str = ".") -> set[str]:
        return {path.name for path in (self.folder / folder).iterdir()}


@pytest.fixture
def shell(
    exposure: bytes,
    sample_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    """A new folder with one exposure, x_uncal.fits, and the variable CRDS_PATH."""
    folder = tmp_path / "shell"
    folder.mkdir()
    (folder / "x_uncal.fits").write_bytes(exposure)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CRDS_PATH", str(sample_cache))
    monkeypatch.setenv("CRDS_CONTEXT", CONTEXT)
    return Shell(folder, capsys)


@pytest.fixture
def own_cache(sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the CRDS cache that the test may change."""
    shutil.copytree(sample_cache, tmp_path / "own_cache")
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "own_cache"))
    return tmp_path / "own_cache"


def in_memory(exposure: bytes, cache: Path, product: Path) -> bytes:
    """The product that core alone makes, with the mask that a product names."""
    label = fits.getval(product, "R_MASK")
    name = label.removeprefix("crds://")
    (path,) = (cache / "references" / "jwst").rglob(name)
    values = HeaderValues(product.name, "?" * 23, CRDS_VERSION, CONTEXT, label)
    mask = Mask.from_bytes(path.read_bytes(), name)
    return dq_init(exposure, mask, values)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_product_of_every_mode_equals_that_in_memory(
    mode: Mode, shell: Shell, sample_cache: Path
) -> None:
    name = Path(sample_name(mode))
    write_exposure(mode, name)
    assert "written" in shell.run(name)
    product = Path(product_name(name.name))
    expected = in_memory(name.read_bytes(), sample_cache, product)
    assert undated(product.read_bytes()) == undated(expected)
    assert "kept" in shell.run(name)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("mode_name", ["nircam-sub64p", "nircam-superstripe", "fgs1-acq2"])
def test_product_equals_the_functions(
    mode_name: str, encoding: Encoding, shell: Shell, function: Harness
) -> None:
    name = Path("y_uncal.fits")
    write_exposure(next(mode for mode in MODES if mode.name == mode_name), name)
    shell.run(name, "--encoding", encoding.value)
    function.upload(name, name.name)
    expected = function.product(function.with_settings(encoding=encoding).run(name.name))
    assert undated(Path("y_dq_init.fits").read_bytes()) == undated(expected)


def test_product_is_complete_and_readable(shell: Shell) -> None:
    os.umask(umask := os.umask(0))
    shell.run("x_uncal.fits")
    assert shell.files() == {"x_uncal.fits", "x_dq_init.fits"}
    assert Path("x_dq_init.fits").stat().st_mode & 0o777 == 0o666 & ~umask
    with fits.open("x_dq_init.fits") as hdus:
        assert hdus[0].header["FILENAME"] == "x_dq_init.fits"


def test_unchanged_product_is_kept(shell: Shell) -> None:
    shell.run("x_uncal.fits")
    before = Path("x_dq_init.fits").stat()
    assert shell.run("x_uncal.fits").startswith("kept")
    after = Path("x_dq_init.fits").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_force_rebuilds_an_unchanged_product(shell: Shell) -> None:
    shell.run("x_uncal.fits")
    inode = Path("x_dq_init.fits").stat().st_ino
    assert shell.run("x_uncal.fits", "--force").startswith("replaced")
    assert Path("x_dq_init.fits").stat().st_ino != inode


def test_changed_exposure_replaces_its_product(shell: Shell, exposure: bytes) -> None:
    shell.run("x_uncal.fits")
    times = Path("x_uncal.fits").stat()
    changed = bytearray(exposure)
    changed[8640] ^= 1  # a pixel of SCI
    Path("x_uncal.fits").write_bytes(changed)
    os.utime("x_uncal.fits", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert shell.run("x_uncal.fits").startswith("replaced")
    assert shell.run("x_uncal.fits").startswith("kept")


@pytest.mark.parametrize("place", [100, 30_000, -3000])
def test_changed_product_is_replaced(place: int, shell: Shell) -> None:
    shell.run("x_uncal.fits")
    whole = Path("x_dq_init.fits").read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 1
    Path("x_dq_init.fits").write_bytes(damaged)
    shell.run("x_uncal.fits", code=0 if place != 100 else 2)
    shell.run("x_uncal.fits", "--force")
    assert undated(Path("x_dq_init.fits").read_bytes()) == undated(whole)


def test_other_mask_replaces_the_product(shell: Shell, sample_cache: Path) -> None:
    shell.run("x_uncal.fits")
    mask = sample_cache / "references/jwst/nircam/jwst_nircam_mask_9001.fits"
    said = shell.run("x_uncal.fits", "--override_mask", mask)
    assert "replaced" in said
    assert "the mask is of NIRCAM NRCA1" in said, (
        "a mask of another detector is used, with a warning"
    )
    assert fits.getval("x_dq_init.fits", "R_MASK") == str(mask)


def test_newer_context_with_the_same_mask_keeps_it(shell: Shell, own_cache: Path) -> None:
    shell.run("x_uncal.fits")
    write_rules(own_cache, NEWER)
    write_server_config(own_cache, NEWER)
    assert shell.run("x_uncal.fits", "--context", NEWER).startswith("kept")
    assert fits.getval("x_dq_init.fits", "CRDS_CTX") == CONTEXT


def test_newer_context_with_another_mask_replaces_it(shell: Shell, own_cache: Path) -> None:
    shell.run("x_uncal.fits")
    rules = {
        **RULES,
        "nircam": (RULES["nircam"][0], {(("NRCB1", "GENERIC"), "1999-01-01 00:00:00"): 9001}),
    }
    write_rules(own_cache, NEWER, rules)
    write_server_config(own_cache, NEWER)
    assert "replaced" in shell.run("x_uncal.fits", "--context", NEWER)
    assert fits.getval("x_dq_init.fits", "R_MASK") == "crds://jwst_nircam_mask_9001.fits"


@pytest.mark.parametrize("kind", ["text", "empty", "fits", "folder", "dangling link", "fifo"])
def test_file_of_another_program_is_not_replaced(kind: str, shell: Shell, exposure: bytes) -> None:
    path = Path("x_dq_init.fits")
    match kind:
        case "text" | "empty":
            path.write_text("precious" * (kind == "text"))
        case "fits":
            path.write_bytes(exposure)
        case "folder":
            path.mkdir()
        case "dangling link":
            path.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(path)
    before = path.lstat()
    said = shell.run("x_uncal.fits", code=2)
    assert "x_dq_init.fits" in said
    assert ("move the folder away" if kind == "folder" else "--force replaces it") in said
    after = path.lstat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert after.st_mtime_ns == before.st_mtime_ns
    if kind != "folder":
        shell.run("x_uncal.fits", "--force")
        assert fits.getval(path, "S_DQINIT") == "COMPLETE"


def test_exposure_is_not_replaced_by_its_product(shell: Shell) -> None:
    shell.run("x_uncal.fits")
    before = Path("x_dq_init.fits").read_bytes()
    for words in (("x_dq_init.fits",), ("x_dq_init.fits", "--force")):
        said = shell.run(*words, code=2)
        assert "x_dq_init.fits: would be replaced by the product of x_dq_init.fits" in said
    Path("y_dq_init.fits").symlink_to("x_uncal.fits")
    shell.run("x_uncal.fits", "--suffix", "uncal", "--force", code=2)
    said = shell.run("x_uncal.fits", Path("x_dq_init.fits").absolute(), "--force", code=2)
    assert "x_dq_init.fits: would be replaced by the product of x_uncal.fits" in said
    assert Path("x_dq_init.fits").read_bytes() == before


def test_symbolic_link_to_an_exposure_is_followed(
    shell: Shell, sample_cache: Path, exposure: bytes
) -> None:
    Path("y_uncal.fits").symlink_to("x_uncal.fits")
    shell.run("y_uncal.fits")
    expected = in_memory(exposure, sample_cache, Path("y_dq_init.fits"))
    assert undated(Path("y_dq_init.fits").read_bytes()) == undated(expected)


@pytest.mark.parametrize(
    "name", ["a b_uncal.fits", "x[1]_uncal.fits", "-x_uncal.fits", "*_uncal.fits"]
)
def test_file_names_are_taken_literally(name: str, shell: Shell) -> None:
    Path("x_uncal.fits").rename(name)
    shell.run("--output-dir", "out", "--", name)
    assert shell.files("out") == {product_name(name)}


@pytest.mark.parametrize("name", ["é_uncal.fits", "a\nb_uncal.fits", "\udc80_uncal.fits"])
def test_name_that_fits_headers_cannot_hold_is_rejected(name: str, shell: Shell) -> None:
    Path("x_uncal.fits").rename(name)
    said = shell.run(name, code=2)
    assert "FILENAME" in said
    assert len(said.splitlines()) == 2, "the name is escaped"
    assert shell.files() == {name}


def test_folders_and_patterns_name_many_exposures(
    shell: Shell, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRODUCTS", "out")
    for name in ("a/1_uncal.fits", "a/b/2_uncal.fits", "a/other.fits", "c3_uncal.fits"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(exposure)
    monkeypatch.setenv("HOME", str(shell.folder))
    said = shell.run("a", "c?_uncal.fits", "x_uncal.fits", "--output-dir", "~/$PRODUCTS")
    names = {f"{name}_dq_init.fits" for name in ("1", "2", "c3", "x")}
    assert shell.files("out") == names
    assert re.search(r"written +│ 4 +│", said)


def test_link_that_leads_to_itself_is_a_missing_file(shell: Shell) -> None:
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    assert "does not exist" in shell.run("a/x_uncal.fits", code=2)


def test_links_and_patterns_of_folders_name_each_file_once(shell: Shell) -> None:
    Path("night1/a").mkdir(parents=True)
    Path("x_uncal.fits").rename("night1/a/1_uncal.fits")
    Path("elsewhere").mkdir()
    Path("elsewhere/2_uncal.fits").write_bytes(Path("night1/a/1_uncal.fits").read_bytes())
    Path("night1/link").symlink_to("../elsewhere")
    Path("night1/a/loop").symlink_to("..")
    said = shell.run("night?", "./night1/a/1_uncal.fits", "elsewhere", "--output-dir", "out")
    assert shell.files("out") == {"1_dq_init.fits", "2_dq_init.fits"}
    assert re.search(r"written +│ 2 +│", said)


@pytest.mark.parametrize("words", [["nothing*_uncal.fits"], ["empty"], ["x_uncal.fits", "empty"]])
def test_pattern_or_folder_without_exposures_is_an_error(words: list[str], shell: Shell) -> None:
    Path("empty").mkdir()
    message = "matches no file" if "*" in words[-1] else "contains no *_uncal.fits"
    assert f"{words[-1]}: {message}" in shell.run(*words, code=2)
    assert shell.files() == {"x_uncal.fits", "empty"}


def test_link_without_target_in_a_folder_fails_by_name(shell: Shell) -> None:
    Path("y_uncal.fits").symlink_to("nowhere")
    os.mkfifo("z_uncal.fits")
    said = shell.run(".", "--output-dir", "out", code=2)
    assert "failed: y_uncal.fits: does not exist" in said
    assert "failed: z_uncal.fits: is not a regular file" in said
    assert shell.files("out") == {"x_dq_init.fits"}


def test_name_that_is_too_long_fails_alone(shell: Shell) -> None:
    name = f"{'y' * 300}_uncal.fits"
    said = shell.run(name, "x_uncal.fits", code=1)
    assert f"failed: {name}: File name too long" in said
    assert "x_dq_init.fits" in shell.files()


def test_two_exposures_with_one_product_are_an_error(shell: Shell) -> None:
    shutil.copytree(".", "other")
    said = shell.run("x_uncal.fits", "other", code=2)
    assert "would be the product of both x_uncal.fits and other/x_uncal.fits" in said
    assert shell.files() == {"x_uncal.fits", "other"}


def test_failure_stops_only_its_exposure(shell: Shell) -> None:
    Path("bad_uncal.fits").write_bytes(b"no FITS")
    said = shell.run("missing_uncal.fits", "bad_uncal.fits", "x_uncal.fits", code=2)
    assert "failed: missing_uncal.fits: does not exist, expected a FITS file" in said
    assert "failed: bad_uncal.fits, HDU 0: not FITS" in said
    assert "x_dq_init.fits" in shell.files()


@pytest.mark.parametrize("jobs", [1, 2])
def test_json_has_one_line_per_exposure(jobs: int, shell: Shell) -> None:
    Path("bad_uncal.fits").write_bytes(b"no FITS")
    said = shell.run("bad_uncal.fits", "x_uncal.fits", "--json", "--jobs", jobs, code=2)
    bad, good = sorted(map(json.loads, said.splitlines()), key=lambda line: line["input"])
    assert (bad["status"], bad["error"]) == ("failed", "InputRejected")
    assert good["status"] == "written"
    assert good["bytes"] == Path(good["output"]).stat().st_size
    assert good["mask"] == f"crds://{MASK}"
    dq = fits.getdata("x_dq_init.fits", "PIXELDQ")
    assert good["flags"]["DO_NOT_USE"]["pixels"] == np.count_nonzero(dq & 1)
    assert good["unusable"] == np.count_nonzero(dq & 1) / dq.size


@pytest.mark.parametrize(
    ("words", "cards"),
    [
        (("--skip",), ("SKIPPED", "N/A")),
        (("--skip=true",), ("SKIPPED", "N/A")),
        (("--save_results", "no", "--skip", "on"), ("SKIPPED", "N/A")),
        (("--skip=false", "--save_results=true"), ("COMPLETE", f"crds://{MASK}")),
        (("--override_mask=N/A",), ("SKIPPED", "N/A")),
    ],
)
def test_options_are_spelled_as_in_strun(
    words: tuple[str, ...], cards: tuple[str, str], shell: Shell
) -> None:
    shell.run("x_uncal.fits", *words, "--output_dir=out", "--suffix=mine")
    header = fits.getheader("out/x_mine.fits")
    assert (header["S_DQINIT"], header["R_MASK"]) == cards
    assert header["FILENAME"] == "x_mine.fits"


def test_exposure_after_a_flag_is_not_its_value(shell: Shell) -> None:
    assert "N/A" in shell.run("--skip", "x_uncal.fits")
    assert "kept" in shell.run("--save-results", "--skip", "--", "x_uncal.fits")
    assert "kept" in shell.run("x_uncal.fits", "--skip")


@pytest.mark.parametrize("name", ["latest", "build", "jwst-latest", "jwst-operational", CONTEXT])
def test_every_name_of_a_context_is_accepted(name: str, shell: Shell) -> None:
    said = shell.run("x_uncal.fits", "--context", name, code=3 if name == "build" else 0)
    assert "written" in said or "does not record the build context" in said


def test_mask_is_named_as_jwst_names_it(shell: Shell, sample_cache: Path) -> None:
    Path("inner").mkdir()
    shutil.copy(sample_cache / "references/jwst/nircam" / MASK, "m.fits")
    shell.run("x_uncal.fits", "--override-mask", "inner/../m.fits")
    assert fits.getval("x_dq_init.fits", "R_MASK") == str(shell.folder / "m.fits")


def test_warnings_are_silent_again_after_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("core"), "level", logging.ERROR)
    with run.collected_warnings() as texts:
        logging.getLogger("core.mask").warning("of a mask")
    assert texts == ["of a mask"]
    assert logging.getLogger("core").level == logging.ERROR


def test_same_warning_is_collected_once() -> None:
    with run.collected_warnings() as texts:
        for text in ("a", "b", "a"):
            logging.getLogger("core.mask").warning(text)
    assert texts == ["a", "b"]


def test_path_of_a_mask_that_r_mask_cannot_hold_is_named(shell: Shell, sample_cache: Path) -> None:
    shutil.copy(sample_cache / "references/jwst/nircam" / MASK, "é.fits")
    (line,) = shell.run("x_uncal.fits", "--override-mask", "é.fits", code=2).splitlines()
    assert "é.fits: R_MASK cannot hold this name" in line
    assert "copy the mask to a path of ASCII characters" in line


def test_user_supplied_dq_is_merged(shell: Shell) -> None:
    user = np.zeros((64, 64), np.uint32)
    user[5, 7] = 1 << 30
    fits.ImageHDU(user).writeto("user.fits")
    shell.run("x_uncal.fits", "--user_supplied_dq", "user.fits")
    dq = fits.getdata("x_dq_init.fits", "PIXELDQ")
    assert np.array_equal(np.argwhere(dq & 1 << 30), [[5, 7]])
    said = shell.run("x_uncal.fits", "--user_supplied_dq", "user.fits", "--skip")
    assert "warning: user.fits: not used, because no mask is used" in said


@pytest.mark.parametrize("option", ["--override-mask", "--user-supplied-dq"])
def test_wrong_file_of_an_option_ends_the_run(option: str, shell: Shell) -> None:
    Path("bad.fits").write_bytes(b"no FITS")
    assert "run: absent.fits: does not exist" in shell.run(
        "x_uncal.fits", option, "absent.fits", code=2
    )
    assert "expected s3://bucket/key" in shell.run("x_uncal.fits", option, "s3://bucket", code=2)
    shell.run("x_uncal.fits", option, "bad.fits", code=3 if "mask" in option else 2)
    assert shell.files() == {"x_uncal.fits", "bad.fits"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mirror", "s3://m", "--crds-path", "."), "exclude each other"),
        (("--suffix", "a/b"), "expected the end of a file name"),
        (("--jobs", "0"), "0 is not in the range"),
        (("--skip=maybe",), "'maybe' is not a valid boolean"),
        (("--context", "nonsense"), "'nonsense', expected latest, build or jwst_N.pmap"),
        (("--skip", "--context", "jwst-edit"), "expected latest, build or jwst_N.pmap"),
        (("s3://b",), "expected s3://bucket/key"),
        (("--override_mask", ""), "'--override-mask': is empty"),
        (("--user_supplied_dq", ""), "'--user-supplied-dq': is empty"),
    ],
)
def test_wrong_usage_is_one_line(words: tuple[str, ...], message: str, shell: Shell) -> None:
    (line,) = shell.run("x_uncal.fits", *words, code=2).splitlines()
    assert message in line


def test_missing_references_are_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRDS_PATH")
    assert "expected CRDS_PATH, --crds-path" in shell.run("x_uncal.fits", code=2)
    shell.run("x_uncal.fits", "--skip")
    assert fits.getval("x_dq_init.fits", "CRDS_CTX") == CONTEXT


# exit codes


def fail(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every exposure whose name begins with the name of an error's class fail so."""
    original = run.choose_mask

    def choose(exposure: Any, *rest: Any) -> Any:
        if Path(exposure.name).name.startswith(type(error).__name__):
            raise error
        return original(exposure, *rest)

    monkeypatch.setattr(run, "choose_mask", choose)


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((), 0),
        ((OSError(28, "No space left on device"),), 1),
        ((InputRejected("x"),), 2),
        ((ReferenceUnavailable("x"),), 3),
        ((TransientFailure("x"),), 4),
        ((TransientFailure("x"), OSError(28, "No space left on device")), 1),
        ((OSError(5, "Input/output error"), ReferenceUnavailable("x"), TransientFailure("x")), 3),
        ((ReferenceUnavailable("x"), InputRejected("x")), 2),
    ],
)
def test_exit_code_is_that_of_the_worst_failure(
    errors: tuple[Exception, ...], code: int, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in errors:
        shutil.copy("x_uncal.fits", f"{type(error).__name__}_uncal.fits")
        fail(error, monkeypatch)
    shell.run(".", "--output-dir", "out", code=code)
    assert "x_dq_init.fits" in shell.files("out")


# references


def test_missing_mask_without_a_server_is_named(shell: Shell, own_cache: Path) -> None:
    mask = own_cache / "references/jwst/nircam" / MASK
    mask.unlink()
    said = shell.run("x_uncal.fits", code=3)
    assert f"failed: x_uncal.fits: {mask}: does not exist" in said
    assert "run crds sync for the context, or use a CRDS server" in said
    assert shell.files() == {"x_uncal.fits"}


def test_mask_that_server_config_does_not_list_is_used(shell: Shell, own_cache: Path) -> None:
    mask = own_cache / "references/jwst/nircam" / MASK
    content = mask.read_bytes()
    mask.unlink()
    write_server_config(own_cache)
    assert f"{mask}: does not exist" in shell.run("x_uncal.fits", code=3)
    mask.write_bytes(content)
    assert MASK in shell.run("x_uncal.fits")


@pytest.mark.parametrize("folder", ["references/jwst/nircam", "mappings/jwst"])
def test_damaged_reference_is_rejected(folder: str, shell: Shell, own_cache: Path) -> None:
    path = own_cache / folder / (MASK if "references" in folder else "jwst_nircam_mask_9001.rmap")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert f"{path}: has" in shell.run("x_uncal.fits", code=3)


def test_flat_cache_is_read(shell: Shell, own_cache: Path) -> None:
    path = own_cache / "references/jwst/nircam" / MASK
    path.rename(own_cache / "references/jwst" / MASK)
    shell.run("x_uncal.fits")


def test_folder_without_a_crds_cache_is_an_error(shell: Shell, tmp_path: Path) -> None:
    assert "expected a CRDS cache" in shell.run("x_uncal.fits", "--crds-path", tmp_path, code=2)


def test_default_context_of_a_cache_is_its_operational_one(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRDS_CONTEXT")
    said = shell.run("x_uncal.fits")
    assert f"warning: the build context of jwst {EQUALS_JWST} is not known here" in said
    assert fits.getval("x_dq_init.fits", "CRDS_CTX") == CONTEXT


@pytest.mark.slow
def test_server_completes_an_empty_cache(
    shell: Shell, sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "empty"
    with crds_server(sample_cache) as server:
        server.builds["jwst", EQUALS_JWST] = CONTEXT
        environment = {"CRDS_PATH": str(cache), "CRDS_SERVER_URL": server.url}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("CRDS_CONTEXT")
        assert "build context" not in shell.run("x_uncal.fits")
        assert server.sent[MASK] == 1
    for name, value in environment.items():  # the server is gone
        monkeypatch.setenv(name, value)
    said = shell.run("x_uncal.fits", "--force", "--context", CONTEXT)
    assert "continuing with the CRDS cache" in said
    assert (cache / "references/jwst/nircam" / MASK).read_bytes() == (
        sample_cache / "references/jwst/nircam" / MASK
    ).read_bytes()


@pytest.mark.slow
def test_processes_share_the_downloads_of_a_server(
    shell: Shell,
    exposure: bytes,
    sample_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(4):
        Path(f"{number}_uncal.fits").write_bytes(exposure)
    with crds_server(sample_cache) as server:
        monkeypatch.setenv("CRDS_PATH", str(tmp_path / "empty"))
        monkeypatch.setenv("CRDS_SERVER_URL", server.url)
        shell.run(".", "--output-dir", "out", "--jobs", 2)
    assert len(shell.files("out")) == 5
    assert set(server.sent.values()) == {1}


@pytest.mark.slow
def test_server_that_sends_a_damaged_mask_is_an_error(
    shell: Shell, sample_cache: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_cache / "references/jwst/nircam" / MASK).unlink()
    with crds_server(sample_cache) as server:
        server.lies.add(MASK)
        monkeypatch.setenv("CRDS_SERVER_URL", server.url)
        assert MASK in shell.run("x_uncal.fits", code=3)
    assert shell.files() == {"x_uncal.fits"}
    assert not list(own_cache.rglob(MASK)), "jwst would use the file of the cache"


def flatten(cache: Path) -> Path:
    """Lay a CRDS cache out flat, and return the path of MASK in it."""
    references = cache / "references" / "jwst"
    for path in references.glob("*/*.fits"):
        path.rename(references / path.name)
    (cache / "config" / "jwst" / "ref_cache_subdir_mode").write_text("flat")
    return references / MASK


@pytest.mark.slow
def test_flat_cache_is_completed_flat_by_a_server(
    shell: Shell, sample_cache: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = flatten(own_cache)
    with crds_server(sample_cache) as server:
        monkeypatch.setenv("CRDS_SERVER_URL", server.url)
        shell.run("x_uncal.fits")
        assert not server.sent
        mask.unlink()
        shell.run("x_uncal.fits")
    assert list(own_cache.rglob(MASK)) == [mask]


@pytest.mark.slow
def test_read_only_cache_gets_no_download(
    shell: Shell, sample_cache: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDS_READONLY_CACHE", "1")
    with crds_server(sample_cache) as server:
        monkeypatch.setenv("CRDS_SERVER_URL", server.url)
        shell.run("x_uncal.fits")
        flatten(own_cache).unlink()
        assert "CRDS_READONLY_CACHE forbids a download" in shell.run("x_uncal.fits", code=3)
        monkeypatch.setenv("CRDS_PATH", str(shell.folder / "absent"))
        assert "CRDS_READONLY_CACHE forbids a download" in shell.run("x_uncal.fits", code=3)
    assert not server.sent
    assert "absent" not in shell.files()


@pytest.mark.slow
def test_server_without_a_cache_folder_is_an_error(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("CRDS_SERVER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CRDS_CLIENT_RETRY_COUNT", "1")
    assert "does not answer as a CRDS server" in shell.run("x_uncal.fits", code=3)


def test_serverless_url_of_crds_names_no_server(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDS_SERVER_URL", "https://crds-serverless-mode.stsci.edu")
    assert shell.run("x_uncal.fits").startswith(("written", "warning: jwst_nircam"))


@pytest.mark.parametrize("detector", ["NRCA1", "NRCA3"])
def test_real_header_and_rules_choose_the_real_mask(
    detector: str, shell: Shell, real_cache: Path
) -> None:
    source = SHARED / "uncal-headers" / "jw01075001001_03105_00009_nrca3_uncal.fits"
    exposure = real_exposure(source, (1, 1, 2048, 2048), DETECTOR=detector)
    Path("y_uncal.fits").write_bytes(exposure)
    words = ("y_uncal.fits", "--crds-path", real_cache, "--context", "jwst_0541.pmap")
    if detector == "NRCA3":  # the cache lacks its mask
        assert "jwst_nircam_mask_0" in shell.run(*words, code=3)
        return
    shell.run(*words)
    mask = real_cache / "references/jwst/nircam/jwst_nircam_mask_0033.fits"
    product = Path("y_dq_init.fits").read_bytes()
    check_product(exposure, product, expected_image(exposure, mask))


# S3


@pytest.fixture
def bucket(
    aws: LocalAws, mirrors: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    """A client of the embedded AWS, which has a mirror."""
    empty_buckets(aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return aws.client("s3")


def test_mirror_and_exposures_in_s3_give_the_same_product(
    shell: Shell, bucket: Any, exposure: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.run("x_uncal.fits", "--output-dir", "local")
    monkeypatch.delenv("CRDS_PATH")
    for key in ("night/x_uncal.fits", "night/log.txt", "nights/y_uncal.fits"):
        bucket.put_object(Bucket=RAW, Key=key, Body=exposure)
    shell.run(f"s3://{RAW}/night/", "--mirror", f"s3://{MIRROR}")
    assert shell.files() == {"x_uncal.fits", "x_dq_init.fits", "local"}
    local = Path("local/x_dq_init.fits").read_bytes()
    assert undated(Path("x_dq_init.fits").read_bytes()) == undated(local)
    assert "kept" in shell.run(f"s3://{RAW}/night/x_uncal.fits", "--mirror", f"s3://{MIRROR}")


def test_named_mask_in_s3_is_used(shell: Shell, bucket: Any) -> None:
    uri = f"s3://{MIRROR}/references/jwst/nircam/{MASK}"
    shell.run("x_uncal.fits", "--override-mask", uri)
    assert fits.getval("x_dq_init.fits", "R_MASK") == uri


def test_mirror_needs_no_home_folder(
    shell: Shell, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", without_home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    assert "written" in shell.run("x_uncal.fits", "--mirror", f"s3://{MIRROR}")
    assert list((tmp_path / "temporary" / "dq-init").iterdir())


def test_missing_object_is_an_input_error(shell: Shell, bucket: Any) -> None:
    assert f"s3://{RAW}/no_uncal.fits: " in shell.run(f"s3://{RAW}/no_uncal.fits", code=2)
    assert f"s3://{RAW}/no/: contains no *_uncal.fits" in shell.run(f"s3://{RAW}/no/", code=2)


def test_replaced_object_is_a_transient_failure(
    shell: Shell, bucket: Any, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{RAW}/x_uncal.fits"
    bucket.put_object(Bucket=RAW, Key="x_uncal.fits", Body=exposure)
    original = run.choose_mask

    def replace_it(*rest: Any) -> Any:
        bucket.put_object(Bucket=RAW, Key="x_uncal.fits", Body=exposure[:-1] + b"1")
        return original(*rest)

    monkeypatch.setattr(run, "choose_mask", replace_it)
    assert "replaced meanwhile" in shell.run(uri, code=4)
    assert shell.files() == {"x_uncal.fits"}


@pytest.mark.parametrize("uri", [f"s3://{RAW}/", f"s3://{RAW}/x_uncal.fits"])
def test_missing_credentials_end_the_run(
    uri: str, shell: Shell, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (line,) = shell.run(uri, "--skip", code=1).splitlines()
    assert line.startswith("run: no AWS credentials")


# --check


def test_check_explains_and_writes_nothing(shell: Shell) -> None:
    said = shell.run("x_uncal.fits", "--check", "--output-dir", "out")
    for line in (
        r"Product +out/x_dq_init.fits",
        r"Exposure +NIRCAM NRCB1 NRC_IMAGE, ramp: 3 integrations, 5 groups, 64 rows, 64 columns",
        f"Mask +{MASK}",
        r"Rule +jwst_nircam_mask_9001.rmap: DETECTOR NRCB1, SUBARRAY GENERIC, observed from 2022-01-01 00:00:00",
        f"Context +{CONTEXT}",
        r"Science window +x 1851 to 1914, y 1817 to 1880",
        r"Detector window +fast axis 1851 to 1914, slow axis 169 to 232",
    ):
        assert re.search(rf"^  {line}$", said, re.MULTILINE), line
    shell.run("x_uncal.fits")
    counts = {
        name: int(n) for name, n in re.findall(r"^  ([A-Z_]+) +(\d+) pixels", said, re.MULTILINE)
    }
    dq = fits.getdata("x_dq_init.fits", "PIXELDQ")
    assert counts["DEAD"] == np.count_nonzero(dq & 1024)
    assert shell.files() == {"x_uncal.fits", "x_dq_init.fits"}


def test_check_as_json_has_the_same_facts(shell: Shell) -> None:
    shell.run("x_uncal.fits")
    line = json.loads(shell.run("x_uncal.fits", "--check", "--json"))
    assert line["status"] == "checked"
    assert line["check"]["Science window"] == "x 1851 to 1914, y 1817 to 1880"


@pytest.mark.parametrize(
    ("mode_name", "science", "detector"),
    [
        (
            "nircam-superstripe",
            "x 1851 to 1914, y in stripes",
            "fast axis 1851 to 1914, slow axis in stripes",
        ),
        (
            "niriss-superstripe",
            "x in stripes, y 1793 to 2048",
            "fast axis 1 to 256, slow axis in stripes",
        ),
        ("fgs1-id-stack", "x 1 to 2304, y 1 to 2048", None),
    ],
)
def test_check_names_no_pixels_outside_the_detector(
    mode_name: str, science: str, detector: str | None, shell: Shell
) -> None:
    mode = next(mode for mode in MODES if mode.name == mode_name)
    write_exposure(replace(mode, shape=(mode.shape[0], 1, *mode.shape[2:])), Path("y_uncal.fits"))
    check = json.loads(shell.run("y_uncal.fits", "--check", "--json"))["check"]
    assert check["Science window"] == science
    assert check.get("Detector window") == detector


@pytest.mark.slow
def test_check_of_every_mode_names_one_rule(shell: Shell) -> None:
    for mode in MODES:
        write_exposure(
            replace(mode, shape=(mode.shape[0], 1, *mode.shape[2:])),
            Path(f"{mode.name}_uncal.fits"),
        )
    lines = shell.run(".", "--check", "--json").splitlines()
    rules = [json.loads(line)["check"]["Rule"] for line in lines]
    assert len(rules) == len(MODES) + 1
    assert all(rule.count("observed from") == 1 for rule in rules)


def test_check_of_a_named_mask_says_so(shell: Shell) -> None:
    said = shell.run("x_uncal.fits", "--check", "--skip")
    assert re.search(r"Rule +named by an option", said)


# faults of the machine


def test_copy_within_the_kernel_is_optional(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.run("x_uncal.fits", "--suffix", "one")
    calls = []

    def refused(*rest: Any) -> int:
        calls.append(rest)
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refused)
    shell.run("x_uncal.fits", "--suffix", "two")
    monkeypatch.delattr(os, "copy_file_range")
    shell.run("x_uncal.fits", "--suffix", "six")
    one, two, six = (undated(Path(f"x_{name}.fits").read_bytes()) for name in ("one", "two", "six"))
    assert calls
    assert one.replace(b"x_one", b"x_two") == two == six.replace(b"x_six", b"x_two")


@pytest.mark.parametrize("change", ["written", "truncated"])
def test_exposure_that_changes_meanwhile_is_not_published(
    change: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = run.choose_mask

    def disturb(*rest: Any) -> Any:
        with Path("x_uncal.fits").open("r+b") as file:
            file.truncate(20_000) if change == "truncated" else file.write(b"S")
        os.utime("x_uncal.fits")
        return original(*rest)

    monkeypatch.setattr(run, "choose_mask", disturb)
    assert "while it was read; run it again" in shell.run("x_uncal.fits", code=4)
    assert shell.files() == {"x_uncal.fits"}


def test_exposure_that_shrinks_at_any_read_fails_alike(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shell.folder / "x_uncal.fits"
    with fits.open(path, mode="append") as hdus:
        shape = hdus["SCI"].shape
        hdus.append(fits.ImageHDU(np.zeros(shape[2:], np.uint32), name="PIXELDQ"))
        hdus.append(fits.ImageHDU(np.zeros(shape, np.uint8), name="GROUPDQ"))
    whole, original, reads = path.read_bytes(), os.pread, itertools.count(1)
    shrinks_at = 0

    def pread(*arguments: Any) -> bytes:
        if next(reads) == shrinks_at:
            os.truncate(path, 3000)
        return original(*arguments)

    monkeypatch.setattr(os, "pread", pread)
    shell.run("x_uncal.fits", "--force")
    number = next(reads)
    assert number > 8
    for attempt in range(1, number):
        path.write_bytes(whole)
        reads, shrinks_at = itertools.count(1), attempt
        said = shell.run("x_uncal.fits", "--force", code=4)
        assert re.search("x_uncal.fits: was (truncated|changed) while it was read", said)


def test_leftover_of_a_killed_run_is_removed(shell: Shell) -> None:
    Path(".dq_init-1.partial").write_bytes(b"half")
    shell.run("x_uncal.fits")
    assert shell.files() == {"x_uncal.fits", "x_dq_init.fits"}


def test_named_pipe_like_a_leftover_is_left_alone(shell: Shell) -> None:
    os.mkfifo(".dq_init-x.partial")
    shell.run("x_uncal.fits")
    assert ".dq_init-x.partial" in shell.files()


def test_partial_file_of_a_running_process_is_left_alone(shell: Shell) -> None:
    with product._temporary_file(Path()) as (path, _):
        shell.run("x_uncal.fits")
        assert path.exists()
