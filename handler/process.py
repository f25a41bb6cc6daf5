"""Process one exposure: plan (reads only), build, publish.

Everything known so far is in a `Job`, so that a failure is published with it. The result is
published last: if the bus is down, a retry finds the product and only publishes.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import __version__
from core.errors import EXPECTED, InputRejected, TransientFailure, error_class
from core.exposure import Exposure
from core.fits.pixels import user_dq_image
from core.layout import Layout, Literal
from core.product import NO_MASK, Form, HeaderValues, compose, expanded_name
from core.step import initialize
from core.virtual import Source, pack, read_flags
from handler.crds.masks import MaskChoice
from handler.decision import Action, Provenance, action_for, shortened, state_of, target_for
from handler.event import (
    ExposureSummary,
    Findings,
    FlagSummary,
    ObjectSummary,
    ProcessingEvent,
    ReferenceSummary,
    Status,
    Usage,
)
from handler.events import Attempt, ExposureRequest, Mode
from handler.ledger import CatalogueRow, Entry
from handler.publish import (
    exposure_summary,
    logger,
    object_summary,
    planes_summary,
    product_summary,
    publish_event,
    publish_failed_event,
)
from handler.s3.assembly import SMALLEST_SOURCE, Assembly
from handler.s3.errors import is_denied
from handler.s3.objects import HEADERS, ObjectReader, ObjectStore, S3Location, StoredObject
from handler.s3.write import Target, multipart
from handler.services import Services

_LARGEST_USER_DQ = 96 * 1024 * 1024  # of superstripes 64 MiB; twice this fits into 512 MB
_SURELY_MULTIPART = 16 * 1024 * 1024  # bytes of an exposure whose product has several parts


@dataclass
class Job:
    """One exposure, and everything known about it so far."""

    request: ExposureRequest
    attempt: Attempt
    store: ObjectStore  # counts the bytes of this job
    input: ObjectSummary
    started: float = field(default_factory=time.perf_counter)

    # for the event
    output: ObjectSummary | None = None
    summary: ExposureSummary | None = None
    reference: ReferenceSummary | None = None
    flags: FlagSummary | None = None
    skipped: str | None = None  # reason
    # for the ledger
    product: S3Location | None = None
    entry: Entry = field(default_factory=Entry)
    previous: ProcessingEvent | None = None  # the event of this result, if it was published before
    row: CatalogueRow | None = None

    # set by plan for build
    action: Action = field(init=False)
    source: ObjectReader = field(init=False)
    exposure: Exposure = field(init=False)
    user_dq: ObjectReader | None = None
    mask: MaskChoice = field(init=False)
    provenance: Provenance = field(init=False)
    target: Target = field(init=False)


def process(request: ExposureRequest, services: Services, attempt: Attempt) -> ProcessingEvent:
    """Process a request: build the product if needed, publish the result, return its event.

    A failure is recorded, published if it is final (see `publish_failure`), and raised.
    """
    job = _start(request, services, attempt)
    try:
        try:
            plan(job, services)
            if job.action is Action.BUILD:
                build(job, services)
        except InputRejected:
            # An earlier attempt may have written the product, and the exposure be gone since.
            if not find_own_product(job, services):
                raise
    except Exception as exc:
        publish_failure(job, exc, services)
        raise
    return publish(job, services)


def report_exhausted(
    request: ExposureRequest, services: Services, attempt: Attempt
) -> ProcessingEvent:
    """Publish the result of a request whose attempts are over; build nothing.

    The event that is returned is Failed unless the product is up to date or the request skipped.
    Raises `TransientFailure` if AWS fails, except for a denied read, which is published as Failed.
    """
    job = _start(request, services, attempt)
    try:
        if not find_own_product(job, services):
            plan(job, services)
    except TransientFailure as exc:
        # A denied permission lasts until an operator reads about it, so it is published.
        if not is_denied(exc):
            raise
        return publish_last_failure(job, exc, services)
    except Exception as exc:
        return publish_last_failure(job, exc, services)
    if job.action is Action.BUILD:
        return publish_last_failure(job, None, services)
    return publish(job, services)


def _start(request: ExposureRequest, services: Services, attempt: Attempt) -> Job:
    source = request.source
    named = ObjectSummary(source.bucket, source.key, source.version_id)
    job = Job(request, attempt, ObjectStore(services.s3), named)
    bind_log_context(job)
    return job


def bind_log_context(job: Job) -> None:
    """Add exposure, mask, CRDS context and cause of a job to every following log line."""
    logger.append_keys(
        exposure=f"s3://{job.input.bucket}/{job.input.key}",
        mask=job.reference and (job.reference.mask or NO_MASK),
        context=job.reference and job.reference.context,
        cause=job.attempt.cause,
    )


def plan(job: Job, services: Services) -> None:
    """Set `job.action` and what `build` or `publish` needs in `job`; write nothing to S3."""
    settings, store, request = services.settings, job.store, job.request
    product = job.product = request.target(
        settings.output_bucket, settings.output_prefix, settings.form
    )
    existing, made = find_and_read(job, product)
    source = job.source.described
    job.input = object_summary(source)
    # Of an upload that was withdrawn two events are left, and neither is for the exposure that is
    # current again: an event is skipped only if the current one has its product, or if none of its
    # attempts failed.
    is_built = made is not None and made.input_state == state_of(source)
    failed = job.entry.failure is not None and job.entry.failure.cause == job.attempt.cause
    is_over = is_built or (job.attempt.mode is Mode.REPORT and not failed)
    if is_over and not request.is_for(source.version_id, source.etag):
        job.action, job.entry = Action.SUPERSEDED, services.ledger.read(product, store)
        job.skipped = f"superseded: {request.source} has been replaced since its event"
        return

    job.exposure = Exposure.read(job.source.read_ahead, source.size, str(source.location))
    job.summary = exposure_summary(job.exposure)
    context = request.context or settings.context
    mask = job.mask = services.references.resolve(job.exposure, context, request.mask, store)
    job.reference = ReferenceSummary(
        mask.label, mask.sha1 or None, mask.context, str(settings.mirror), mask.warning
    )
    bind_log_context(job)
    user_dq = None
    if request.user_dq is not None:
        job.user_dq = store.begin(request.user_dq, HEADERS, InputRejected)
        user_dq = job.user_dq.described
    job.provenance = Provenance.of(
        source, mask, user_dq, settings.encoding, job.attempt.cause, request.pins
    )
    job.action = action_for(
        existing, job.provenance, request.on_existing, lambda: store.is_current(source)
    )
    if existing is not None:  # otherwise there is probably no entry either
        job.entry = services.ledger.read(product, store)
    match job.action:
        case Action.BUILD:
            job.target = target_for(product, existing, job.provenance)
        case Action.SUPERSEDED:
            job.skipped = f"superseded: {product} is of a newer version of the exposure"
        case Action.PINNED if made:
            with_dq = " and user-supplied DQ" if made.user_dq_etag else ""
            job.skipped = (
                f"pinned: {product} was built by a request that named its mask or user-supplied "
                f"DQ (mask {made.mask}{with_dq}); onExisting=replace replaces it"
            )
        case Action.KEEP if existing and made:
            keep(job, existing, made, services)


def find_and_read(job: Job, product: S3Location) -> tuple[StoredObject | None, Provenance | None]:
    """Return the object at `product` and its provenance; set `job.source` to the exposure."""
    location, store = job.request.location, job.store
    length = _first_bytes(job.request.size)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(store.begin, location, length, InputRejected)
        existing = store.find(product)
    job.source = reading.result()
    made = Provenance.from_metadata(existing.metadata) if existing else None
    if made and not location.version_id and made.input_state != state_of(job.source.described):
        # Between the two answers, the exposure may have been replaced and its product written.
        # What is read after that product was found is as new; if it is replaced later, so is the
        # product, and writing fails.
        job.source = store.begin(location, length, InputRejected)
    return existing, made


def _first_bytes(size: int | None) -> int:
    """Return how many bytes of an exposure to read first."""
    if size is None:  # of a direct request: most subarrays are smaller, and 1 MiB takes 15 ms
        return 1024 * 1024
    return size if 0 < size < SMALLEST_SOURCE else HEADERS  # a small product is uploaded whole


def keep(job: Job, product: StoredObject, made: Provenance, services: Services) -> None:
    """Set `job.action` to KEEP and describe `product` in `job`, for its event.

    If `job.entry` has the product's Complete event, that becomes `job.previous`; otherwise the
    flags are read from the product.
    """
    mask = None if made.mask == NO_MASK else made.mask
    mirror = str(services.settings.mirror)
    chosen = job.reference  # its warning was not published if the function was killed
    warning = chosen.warning if chosen and chosen.mask == mask else None
    job.action = Action.KEEP
    job.output = product_summary(product)
    job.reference = ReferenceSummary(
        mask, made.mask_sha1 or None, made.crds_context, mirror, warning
    )
    bind_log_context(job)
    if job.input.etag is None:  # the exposure was not read: its version is the product's
        version = job.input.version_id or made.input_version or None
        job.input = replace(job.input, version_id=version, etag=f'"{made.input_etag}"')
    result = job.entry.result
    if result is not None and result.id == _event(job, Status.COMPLETE).id:
        job.previous = result
        return
    # If the product is archived, the exposure is not rejected for it.
    exposure, image = read_product(ObjectReader(job.store, product, TransientFailure))
    job.summary = exposure_summary(exposure)
    job.flags, job.row = planes_summary(exposure, image, made.pinned)


def read_product(reader: ObjectReader) -> tuple[Exposure, NDArray[np.uint32]]:
    """Return the headers and PIXELDQ or DQ of a product, complete or virtual."""
    location, size = reader.described.location, reader.described.size
    if Form.of_key(location.key) is Form.VIRTUAL:
        return read_flags(reader.read(0, size), str(location))
    exposure = Exposure.read(reader.read_ahead, size, str(location))
    image = exposure.existing_image(reader.read)
    return exposure, np.zeros(exposure.plane_shape, np.uint32) if image is None else image


def find_own_product(job: Job, services: Services) -> bool:
    """Keep the product that an earlier attempt of this request wrote; say whether there is one."""
    settings = services.settings
    product = job.product = job.request.target(
        settings.output_bucket, settings.output_prefix, settings.form
    )
    job.entry = services.ledger.read(product, job.store)
    existing = job.store.find(product)
    made = Provenance.from_metadata(existing.metadata) if existing else None
    if not existing or not made or made.cause != shortened(job.attempt.cause):
        return False
    request, version = job.request, job.request.location.version_id
    # Direct requests may share a cause; and the exposure, if it was read, may be another one. A
    # request to report names only the exposure.
    is_asked_for = job.attempt.mode is Mode.REPORT or (
        version in {None, "null", made.input_version}
        and request.pins == made.pinned
        and bool(request.user_dq) == bool(made.user_dq_etag)
        and job.input.etag in {None, f'"{made.input_etag}"'}
    )
    if not is_asked_for:
        return False
    keep(job, existing, made, services)
    return True


def build(job: Job, services: Services) -> None:
    """Run the step on the exposure and write its product to S3."""
    key, source = job.target.location.key, job.source.described
    is_virtual = Form.of_key(key) is Form.VIRTUAL

    def is_same(existing: StoredObject) -> bool:
        return Provenance.from_metadata(existing.metadata) == job.provenance

    is_single = is_virtual or source.size < _SURELY_MULTIPART
    # An upload is started while the planes are made.
    with nullcontext() if is_single else multipart(job.target, job.store) as upload:
        mask = services.references.load(job.mask, job.exposure, job.store)
        existing = job.exposure.existing_image(job.source.read)
        user_dq = read_user_dq(job.user_dq) if job.user_dq else None
        quality = initialize(job.exposure, mask, existing, user_dq)
        values = HeaderValues(
            filename=expanded_name(key.rpartition("/")[2]),
            date=datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds"),
            crds_version=job.mask.crds_version,
            crds_context=job.mask.context,
            mask=job.mask.label,
        )
        layout = compose(job.exposure, quality, values, services.settings.encoding)
        if is_virtual:
            bucket, exposure_key = source.location.bucket, source.location.key
            version, etag = state_of(source)
            packed = Source(bucket, exposure_key, etag, version, source.size)
            layout = Layout((Literal(pack(layout, packed, job.exposure)),))
        assembly = Assembly(layout, job.source, services.blocks, job.store)
        with ThreadPoolExecutor(1) as thread:  # the flags are counted while S3 writes
            counting = thread.submit(
                planes_summary, job.exposure, quality.image, job.provenance.pinned
            )
            job.output = product_summary(assembly.write(job.target, is_same, upload))
    job.flags, job.row = counting.result()


def read_user_dq(reader: ObjectReader) -> NDArray[Any]:
    """Return the pixels of a user-supplied DQ file of at most 96 MiB, or raise `InputRejected`."""
    location, size = reader.described.location, reader.described.size
    if size > _LARGEST_USER_DQ:
        raise InputRejected(
            f"{location}: has {size} bytes, expected a DQ image of at most {_LARGEST_USER_DQ}"
        )
    return user_dq_image(reader.read(0, size), str(location))


def publish(job: Job, services: Services) -> ProcessingEvent:
    """Publish the Complete or Skipped event of a job that did not fail; return the event.

    If the ledger has the same Complete event (`job.previous`), Skipped is published or, for the
    same cause, nothing; then the earlier event is returned.
    """
    previous = job.previous
    failure = job.entry.failure
    if failure is not None and (
        previous
        or job.action is Action.PINNED
        # The entry is of the newer version.
        or (job.action is Action.SUPERSEDED and failure.cause == job.attempt.cause)
    ):
        _record(job, replace(job.entry, failure=None), services)
    if previous is not None:
        if previous.cause == job.attempt.cause:
            return previous
        request_id = previous.function.request_id
        job.skipped = f"was published as {previous.status} by AWS request {request_id}"
    if job.skipped is not None:
        event = _event(job, Status.SKIPPED, job.skipped)
        publish_event(event, services.bus)
        return event
    event = _event(job, Status.COMPLETE)
    publish_event(event, services.bus)
    _record(job, Entry(event, job.row, None, job.entry.stored), services)
    return event


def _record(job: Job, entry: Entry, services: Services) -> None:
    if job.product is not None:
        etag = job.output.etag if job.output else None
        services.ledger.record(job.product, etag, entry, job.store)


def publish_failure(job: Job, error: Exception, services: Services) -> ProcessingEvent:
    """Record a failure in the ledger, publish it if it is final, and return its Failed event.

    It is final if it is `InputRejected`, or if the mode is not RETRIED. It is not published if the
    ledger has it as published.
    """
    name = error_class(error).__name__
    is_bug = not isinstance(error, EXPECTED)
    logger.error("DQ initialization failed: %s: %s", name, error, exc_info=is_bug and error)
    event = _event(job, Status.FAILED, str(error), name)
    is_final = job.attempt.mode is not Mode.RETRIED or isinstance(error, InputRejected)
    publish_failed_event(event, job.product, is_final, services.bus, services.ledger, job.store)
    return event


def publish_last_failure(job: Job, error: Exception | None, services: Services) -> ProcessingEvent:
    """Publish why a request failed: the ledger's failure, else `error`, else unknown.

    The ledger's failure must have the cause of this request. If `error` is None, a failure of
    another request is used, too, unless it is `InputRejected`.
    """
    failure = job.entry.failure
    if failure is not None:
        is_own = failure.cause == job.attempt.cause
        # The ledger holds one failure per product, perhaps that of another request. That request
        # may have been rejected for its own options, such as onExisting=error.
        is_shared = error is None and failure.error != InputRejected.__name__
        if is_own or is_shared:
            event = _event(job, Status.FAILED, failure.reason, failure.error)
            publish_failed_event(event, job.product, True, services.bus, services.ledger, job.store)
            return event
    reason = (
        f"{job.product}: is missing or another request's, and no attempt left a reason (timeout, "
        "memory); read the log"
    )
    return publish_failure(job, error or TransientFailure(reason), services)


def _event(
    job: Job, status: Status, reason: str | None = None, error: str | None = None
) -> ProcessingEvent:
    findings = Findings(
        job.request.to_direct(), job.input, job.output, job.summary, job.reference, job.flags
    )
    seconds = round(time.perf_counter() - job.started, 3)
    usage = Usage(__version__, job.attempt.request_id, seconds, job.store.received, job.store.sent)
    return ProcessingEvent(status, reason, error, job.attempt.cause, findings, usage)
