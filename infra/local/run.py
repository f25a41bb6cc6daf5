"""Run the step on exposures: read, decide about an existing product, write."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from core.errors import (
    EXPECTED,
    InputRejected,
    ReferenceUnavailable,
    TransientFailure,
    error_class,
)
from core.exposure import Exposure
from core.flags import count_by_mnemonic, flagged_pixels
from core.layout import Layout
from core.product import Encoding, HeaderValues, compose, product_name
from core.step import DataQuality, initialize
from handler.crds.masks import MaskChoice
from handler.event import MnemonicCount
from infra.local.explain import explain
from infra.local.inputs import Input, open_input
from infra.local.product import is_same, values_of, write
from infra.local.references import (
    ReferenceSettings,
    choose_mask,
    open_references,
    read_user_dq,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The options of a run, equal for all of its exposures."""

    references: ReferenceSettings
    mask: str | None = None  # a path, an S3 URI or N/A, instead of the mask that the rules choose
    user_dq: str | None = None  # a path or an S3 URI
    encoding: Encoding = Encoding.NATIVE
    folder: Path = Path()
    suffix: str = "dq_init"
    force: bool = False  # rebuild products that are up to date, and replace other files
    check: bool = False  # explain each product, and write nothing

    def product_path(self, name: str) -> Path:
        """Return the path of an exposure's product."""
        return self.folder / product_name(name.rpartition("/")[2], self.suffix)


@dataclass
class Outcome:
    """The outcome of one exposure of a run, as ``--json`` prints it."""

    input: str
    output: str
    status: str = "failed"  # or written, replaced, kept, checked
    error: str | None = None  # name of the error class, if the status is failed
    reason: str | None = None  # message of the error
    mask: str | None = None  # R_MASK: crds://name, a path or an S3 URI; None: no mask
    context: str | None = None
    flags: dict[str, MnemonicCount] = field(default_factory=dict)
    unusable: float = 0.0  # DO_NOT_USE pixels divided by all pixels
    warnings: list[str] = field(default_factory=list)
    bytes: int = 0  # size of the product, if it was written
    seconds: float = 0.0
    check: dict[str, str] | None = None  # facts that --check prints


def process(name: str, options: Options) -> Outcome:
    """Run the step on one exposure, write its product if needed, and return the outcome."""
    path, started = options.product_path(name), time.perf_counter()
    outcome = Outcome(name, str(path))
    with collected_warnings() as outcome.warnings:
        try:
            with open_input(name) as source:
                try:
                    outcome.status = _process(source, path, options, outcome)
                except InputRejected:
                    source.check_unchanged()
                    raise
        except FAILURES as exc:
            outcome.error, outcome.reason = describe_failure(exc, path)
    outcome.seconds = round(time.perf_counter() - started, 3)
    return outcome


FAILURES = (*EXPECTED, OSError)
"""Errors that fail one file; the others are processed."""
EXIT_CODES = {
    InputRejected.__name__: 2,
    ReferenceUnavailable.__name__: 3,
    TransientFailure.__name__: 4,
}
"""Exit codes by error class; 1 is another failure, such as a full disk."""
_KILLED = "a process was killed, perhaps for lack of memory; run it again with fewer --jobs"
_WORST_FIRST = (2, 3, 1, 4)


def worst(codes: Collection[int]) -> int:
    """Return the first of the exit codes 2, 3, 1 and 4 that is in `codes`; 0 if none is."""
    return next((code for code in _WORST_FIRST if code in codes), 0)


def describe_failure(error: Exception, path: Path) -> tuple[str, str]:
    """Return the class name of an error of `FAILURES`, and the message to print."""
    if isinstance(error, OSError):
        subject = error.filename2 or error.filename or path  # of a rename: its target
        return type(error).__name__, f"{subject}: {error.strerror}; run it again when it is solved"
    return error_class(error).__name__, str(error)


def _process(source: Input, path: Path, options: Options, outcome: Outcome) -> str:
    """Run the step on an open exposure, write its product to `path`, return `Outcome.status`."""
    exposure = Exposure.read(source.read, source.size, source.name)
    choice, mask = choose_mask(exposure, options.mask, options.references)
    user = read_user_dq(options.user_dq) if options.user_dq else None
    if user is not None and mask is None:
        log.warning("%s: not used, because no mask is used; jwst skips the step", options.user_dq)
    quality = initialize(exposure, mask, exposure.existing_image(source.read), user)
    _summarize(choice, quality, outcome)
    if options.check:
        references = None if options.mask else open_references(options.references)
        outcome.check = explain(exposure, choice, references)

    values = HeaderValues(
        filename=path.name,
        date=datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds"),
        crds_version=choice.crds_version,
        crds_context=choice.context,
        mask=choice.label,
    )

    def layout_with(values: HeaderValues) -> Layout:
        return compose(exposure, quality, values, options.encoding)

    exists = os.path.lexists(path)
    if exists and not options.force:
        found = values_of(path, values, source.name)
        if not options.check and is_same(path, layout_with(found), source):
            return "kept"
    if options.check:
        return "checked"
    layout = layout_with(values)
    write(path, layout, source)
    outcome.bytes = layout.length
    return "replaced" if exists else "written"


def _summarize(choice: MaskChoice, quality: DataQuality, outcome: Outcome) -> None:
    outcome.mask, outcome.context = choice.label, choice.context
    counts = count_by_mnemonic(flagged_pixels(quality.image)[1])
    outcome.flags = {name: MnemonicCount(*count) for name, count in counts.items()}
    if unusable := outcome.flags.get("DO_NOT_USE"):
        outcome.unusable = unusable.pixels / quality.image.size


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (text := record.getMessage()) not in self.texts:
            self.texts.append(text)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Yield a list that gets the messages logged in the `with` block, WARNING and above, once."""
    collector, root, step = _Collector(), logging.getLogger(), logging.getLogger("core")
    level = step.level
    step.setLevel(logging.NOTSET)  # infra.__main__ silences it
    root.addHandler(collector)
    try:
        yield collector.texts
    finally:
        root.removeHandler(collector)
        step.setLevel(level)


def process_all(names: list[str], options: Options, jobs: int) -> Iterator[Outcome]:
    """Run the step on exposures in up to `jobs` processes; yield outcomes when complete."""
    jobs = min(jobs, len(names))
    if jobs == 1:
        yield from (process(name, options) for name in names)
        return
    # Not fork: threads and connections of this process would be copied.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, spawn, _start_worker)
    try:
        # The processes that this starts inherit the mask: they would print a traceback on Ctrl-C.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        futures = {pool.submit(process, name, options): name for name in names}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                name = futures[future]
                reason = f"{name}: {_KILLED}"
                path = str(options.product_path(name))
                yield Outcome(name, path, error=TransientFailure.__name__, reason=reason)
    except BrokenProcessPool as exc:  # while the exposures were submitted
        raise TransientFailure(_KILLED) from exc
    finally:
        pool.shutdown(cancel_futures=True)  # exposures that have started are completed


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the parent ends, then end this process, which would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
