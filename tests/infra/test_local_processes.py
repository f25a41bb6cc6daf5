"""The command dq-init run in processes of its own: killed, interrupted, at once, without rights."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit

import psutil
import pytest

from infra.demo.samples import CONTEXT
from tests.conftest import PROJECT
from tests.infra.crds_server import crds_server
from tests.products import undated
from tests.seeds import seeds

KILLS = seeds(2)
EXPOSURES = 24 if len(KILLS) < 10 else 100  # in ``make fuzz``
NOBODY = 65534


@pytest.fixture
def folder(exposure: bytes, sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with many exposures that every user may read, and the variable CRDS_PATH."""
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "raw"
        raw.mkdir()
        for number in range(EXPOSURES):
            (raw / f"{number}_uncal.fits").write_bytes(exposure)
        cache = Path(name) / "cache"
        shutil.copytree(
            sample_cache, cache, ignore=shutil.ignore_patterns("*_miri_*", "*_fgs_*.fits")
        )
        monkeypatch.setenv("CRDS_PATH", str(cache))
        monkeypatch.setenv("CRDS_CONTEXT", CONTEXT)
        monkeypatch.chdir(name)
        for path in (Path(name), cache):
            path.chmod(0o755)
        yield Path(name)


def start(*words: str, prepare: Callable[[], object] | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "infra", "run", *words],
        env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{PROJECT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,  # noqa: PLW1509
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]", code: int = 0) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out + err


def products(folder: Path) -> dict[str, bytes]:
    return {path.name: undated(path.read_bytes()) for path in folder.glob("*.fits")}


def wait_for_product(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.fits")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_run_leaves_whole_products_and_resumes(folder: Path) -> None:
    started = time.monotonic()
    finish(start("raw", "--output-dir", "expected"))
    longest = (time.monotonic() - started) / 2  # with two processes
    expected, out = products(folder / "expected"), folder / "out"
    rng = random.Random(1)
    for kill in KILLS:
        jobs = "12"[kill % 2]
        shutil.rmtree(out, ignore_errors=True)
        process = start("raw", "--output-dir", "out", "--jobs", jobs)
        wait_for_product(out)
        time.sleep(rng.random() * longest)
        process.kill()
        process.communicate(timeout=60)  # ends when the last process has closed its output
        assert products(out).items() <= expected.items(), "a product is partial"
        said = finish(start("raw", "--output-dir", "out", "--jobs", jobs))
        assert "kept" in said
        assert products(out) == expected
        assert not list(out.glob(".*")), "leftovers of the killed run"


@pytest.fixture
def slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a run last some seconds: every product waits for its disk."""
    code = "import os, time\nfsync = os.fsync\nos.fsync = lambda fd: (time.sleep(0.2), fsync(fd))\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        yield


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_run_leaves_whole_products(jobs: str, folder: Path, slow_disk: None) -> None:
    process = start("raw", "--output-dir", "out", "--jobs", jobs)
    wait_for_product(folder / "out")
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches all processes of a terminal
    said = finish(process, code=1)
    assert said.splitlines()[-1] == "run: interrupted; run the same command again to resume"
    assert "Traceback" not in said
    assert not list((folder / "out").glob(".*"))
    finish(start("raw", "--output-dir", "out"))
    assert len(products(folder / "out")) == EXPOSURES


@pytest.mark.slow
def test_killed_worker_fails_what_is_not_written(folder: Path, slow_disk: None) -> None:
    (folder / "raw" / "00_uncal.fits").write_text("damaged")
    process = start("raw", "--output-dir", "out", "--jobs", "2")
    wait_for_product(folder / "out")
    children = psutil.Process(process.pid).children()
    next(child for child in children if "spawn_main" in " ".join(child.cmdline())).kill()
    said = finish(process, code=2)  # 00_uncal.fits is rejected
    assert "uncal.fits: a process was killed, perhaps for lack of memory" in said
    assert "TransientFailure" in said, "a table ends the report"
    (folder / "raw" / "00_uncal.fits").unlink()
    finish(start("raw", "--output-dir", "out"))
    assert len(products(folder / "out")) == EXPOSURES


def test_two_runs_at_once_write_the_same_products(folder: Path) -> None:
    both = [start("raw", "--output-dir", "out", "--force") for _ in range(2)]
    for process in both:
        finish(process)
    finish(start("raw", "--output-dir", "expected"))
    assert products(folder / "out") == products(folder / "expected")
    assert not list((folder / "out").glob(".*"))


@pytest.mark.slow
def test_full_disk_leaves_nothing(folder: Path) -> None:
    def limit() -> None:
        setrlimit(RLIMIT_FSIZE, (100_000, 100_000))

    said = finish(start("raw/1_uncal.fits", "--output-dir", "out", prepare=limit), code=1)
    assert "1_dq_init.fits: File too large; run it again" in said
    assert not list((folder / "out").iterdir())


WITHOUT_RIGHTS = """
import encodings.idna, http.client, os, sys  # while the files can be read
import infra.local.__main__
from infra.__main__ import main
os.seteuid(65534)
main(sys.argv[1:])
"""


def as_nobody(*words: str) -> "subprocess.CompletedProcess[str]":
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    command = [sys.executable, "-c", WITHOUT_RIGHTS, "run", *words]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_read_only_cache_and_exposures_are_enough(folder: Path) -> None:
    (folder / "out").mkdir()
    os.chown(folder / "out", NOBODY, NOBODY)
    done = as_nobody("raw/1_uncal.fits", "--output-dir", "out")
    assert done.returncode == 0, done.stderr
    assert set(products(folder / "out")) == {"1_dq_init.fits"}


@pytest.mark.slow
def test_read_only_cache_cannot_keep_a_missing_mask(
    folder: Path, sample_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crds_server(sample_cache) as server:
        monkeypatch.setenv("CRDS_SERVER_URL", server.url)
        done = as_nobody("raw/1_uncal.fits", "--check")
        assert done.returncode == 0, done.stderr
        (folder / "cache/references/jwst/nircam/jwst_nircam_mask_9002.fits").unlink()
        done = as_nobody("raw/1_uncal.fits", "--check")
    assert done.returncode == 3
    said = "failed: raw/1_uncal.fits: jwst_nircam_mask_9002.fits: cannot be kept in the CRDS cache"
    assert said in done.stderr, done.stderr
    assert "(Permission denied); make the folder writable, or add the file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_unreadable_exposure_and_folder_are_failures(folder: Path) -> None:
    (folder / "out").mkdir()
    done = as_nobody("raw/1_uncal.fits", "--output-dir", "out")
    assert (done.returncode, "Permission denied" in done.stderr) == (1, True)
    os.chown(folder / "out", NOBODY, NOBODY)
    (folder / "raw" / "1_uncal.fits").chmod(0)
    done = as_nobody("raw/1_uncal.fits", "--output-dir", "out")
    assert done.returncode == 1
    assert "raw/1_uncal.fits: Permission denied" in done.stderr


@pytest.mark.slow
def test_folder_that_cannot_be_listed_ends_the_run(folder: Path) -> None:
    (folder / "raw" / "inner").mkdir(0o300)
    done = as_nobody("raw", "--check")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "run: raw/inner: cannot be listed (Permission denied), expected a readable folder"
    ]
    (folder / "raw").chmod(0o600)
    done = as_nobody("raw/1_uncal.fits", "--check")
    assert done.returncode == 1
    assert "failed: raw/1_uncal.fits: Permission denied" in done.stderr


@pytest.mark.slow
def test_folder_that_cannot_be_read_gets_the_product(folder: Path) -> None:
    (folder / "out").mkdir(0o300)
    os.chown(folder / "out", NOBODY, NOBODY)
    done = as_nobody("raw/1_uncal.fits", "--output-dir", "out")
    assert done.returncode == 0, done.stderr
    assert set(products(folder / "out")) == {"1_dq_init.fits"}


@pytest.mark.slow
def test_terminal_shows_lines_progress_and_a_table(folder: Path) -> None:
    (folder / "raw" / "broken_uncal.fits").write_text("damaged")
    command = f"{sys.executable} -m infra run raw --output-dir out 2> failures"
    words = ["script", "--quiet", "--return", "--command", command, "/dev/null"]
    if not shutil.which("script"):
        pytest.skip("util-linux's script is not installed")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert "\\x1b" not in done.stdout, "the colours are escaped"
    assert "100%" in done.stdout
    assert done.stdout.count("written   out/") == EXPOSURES
    assert "failed" not in done.stdout, "it belongs to standard error"
    assert "failed: raw/broken_uncal.fits" in Path("failures").read_text()


@pytest.mark.slow
def test_one_file_imports_no_package_that_it_does_not_need(folder: Path) -> None:
    code = (
        "import sys; from infra.__main__ import main\n"
        "try: main(['run', 'raw/1_uncal.fits'])\n"
        "finally: print([name for name in "
        "('boto3', 'rich', 'jinja2', 'matplotlib', 'duckdb', 'asdf') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
