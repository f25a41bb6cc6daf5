"""One exposure, start to finish."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from core import __version__
from core.errors import InputRejected, TransientFailure
from core.exposure import Exposure
from core.layout import Layout
from core.product import NO_MASK, Provenance, compose
from core.readout import cut
from core.step import DataQuality, initialize
from handler.announcements import Record, Status
from handler.case import Case, Services
from handler.inputs import current_exposure, present_image, read_exposure, read_user_dq
from handler.invocation import Invocation
from handler.observability import logger, measure, report
from handler.outcomes import identity
from handler.reference import Reference
from handler.references.rules import CRDS_VERSION
from handler.requests import ExposureRequest
from handler.s3.assembly import Overtaken, Target, write
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore, StoredObject
from handler.settings import OnExisting, Settings

__all__ = ["process", "reject"]

_REPLACE = OnExisting.REPLACE


def process(
    request: ExposureRequest, settings: Settings, services: Services, invocation: Invocation
) -> dict[str, Any]:
    """Run the step on one exposure, write its product and announce how it ended.

    Parameters
    ----------
    request : `~handler.requests.ExposureRequest`
        What to process.
    settings : `~handler.settings.Settings`
        The function's environment.
    services : `~handler.case.Services`
        What to work with.
    invocation : `~handler.invocation.Invocation`
        The invocation that is going on.

    Returns
    -------
    dict
        The processing event's detail.

    Raises
    ------
    InputRejected, ReferenceUnavailable, TransientFailure
        What the caller should do next; whatever else is raised is a bug. A failure is announced
        if nobody tries again: because that is no use, or because this was the last attempt.
    """
    case = Case(request, settings, services, invocation)
    try:
        status, reason = _run(case)
    except Exception as exc:
        error = type(exc).__name__
        if isinstance(exc, InputRejected) or (invocation.is_last and request.announce_failure):
            case.announce(Status.FAILED, str(exc), error)
        else:
            measure(case.detail(Status.FAILED, str(exc), error), "Retried")
        raise
    return case.announce(status, reason)


def reject(
    error: InputRejected, settings: Settings, services: Services, invocation: Invocation
) -> None:
    """Announce an event that cannot be read as a request for any exposure.

    Parameters are those of `process`; `error` says what is wrong with the event.
    """
    record = Record(settings.mirror, invocation.request_id)
    usage = {"durationSeconds": 0.0, "bytesReceived": 0, "bytesSent": 0}
    detail = record.detail(Status.FAILED, str(error), type(error).__name__, usage)
    nowhere = S3Location("", "")
    event = identity(nowhere, str(error), nowhere)
    report(services.outcomes.announce(event, detail, {}, invocation))


def _run(case: Case) -> tuple[Status, str | None]:
    """Do the work, noting what becomes known; return how it ended, and why."""
    request, settings, store = case.request, case.settings, case.store
    case.target = request.target(settings.output_bucket, settings.output_prefix)
    # The order matters: should the exposure be replaced after this, so is what was found here,
    # and writing the product fails rather than undo what was made of the newer exposure.
    present = store.find(case.target)
    source, is_current = _source(request, store)
    case.source_is(source)
    if not is_current:
        return Status.SKIPPED, f"superseded: {request.source} has been replaced since"

    exposure = read_exposure(source, store)
    case.record.exposure_is(exposure)
    reference = case.services.references.resolve(request, exposure, settings.context, store)
    case.record.reference_is(reference)
    logger.append_keys(mask=reference.label or NO_MASK, context=reference.context)

    user_dq = _described_user_dq(request, store)
    case.made = _metadata(source, reference, user_dq, settings)
    if present is not None and _is_done(present, case):
        return _already_made(present, case)
    quality = _data_quality(exposure, source, reference, user_dq, case)
    case.record.flags_are(quality.image)
    layout = compose(exposure, quality, _provenance(case.target, reference), settings.encoding)
    case.record.output_is(_product(layout, source, present, case))
    return Status.COMPLETE, None


def _source(request: ExposureRequest, store: ObjectStore) -> tuple[StoredObject, bool]:
    """The exposure, and whether it is still what was asked for."""
    if request.source.version_id is not None and request.output_key is not None:
        # Whoever names a version and a place for its product knows what they want.
        return store.describe(request.source, missing=InputRejected), True
    return current_exposure(request.source, request.etag, store)


def _described_user_dq(request: ExposureRequest, store: ObjectStore) -> StoredObject | None:
    if request.user_dq is None:
        return None
    return store.describe(request.user_dq, missing=InputRejected)


def _metadata(
    source: StoredObject, reference: Reference, user_dq: StoredObject | None, settings: Settings
) -> dict[str, str]:
    """The product's provenance, as object metadata: a repeated event recognises it."""
    return {
        "input-etag": source.etag.strip('"'),
        "input-version": source.location.version_id or "",
        "mask": reference.label or NO_MASK,
        "mask-sha1": reference.sha1,
        "crds-context": reference.context,
        "user-dq-etag": user_dq.etag.strip('"') if user_dq else "",
        "science-encoding": settings.encoding.value,
        "software-version": __version__,
    }


def _is_same(present: StoredObject, made: dict[str, str]) -> bool:
    """Whether a product would come out the same; another context may choose the same mask."""
    found = present.metadata
    return all(found.get(key) == made[key] for key in made if key != "crds-context")


def _is_done(present: StoredObject, case: Case) -> bool:
    """Whether the product is there and was announced: its maker may have been killed between."""
    if case.on_existing is _REPLACE or not _is_same(present, case.made):
        return False
    outcomes = case.services.outcomes
    if outcomes.place is None:
        return True
    known = outcomes.recorded(case.identity)
    return known is not None and known.announced and known.detail["status"] == Status.COMPLETE


def _already_made(present: StoredObject, case: Case) -> tuple[Status, str]:
    """The product is there: that is all there is to do, or an error."""
    reason = f"{present.location} was made from the same input and mask"
    if case.on_existing is OnExisting.ERROR:
        raise InputRejected(reason)
    case.record.output_is(present)
    case.is_known = True
    return Status.SKIPPED, reason


def _product(
    layout: Layout, source: StoredObject, present: StoredObject | None, case: Case
) -> StoredObject:
    """Write the product, unless it is there already."""
    if present is not None and case.on_existing is not _REPLACE and _is_same(present, case.made):
        return present
    condition = {"IfNoneMatch": "*"} if present is None else {"IfMatch": present.etag}
    try:
        return _write(layout, source, Target(case.target, case.made, condition), case)
    except Overtaken as exc:
        found = case.store.find(case.target)
        if found is None or not _is_same(found, case.made):
            raise TransientFailure(f"{case.target}: was written meanwhile: {exc}") from exc
        return found


def _write(layout: Layout, source: StoredObject, target: Target, case: Case) -> StoredObject:
    """Write an object; if that fails, doubt the blocks that were trusted, once."""
    blocks = case.services.blocks
    keeper = partial(blocks.keep, store=case.store)
    try:
        return write(layout, source, target, case.store, keeper)
    except TransientFailure:
        if not blocks.forget():
            raise
        logger.warning("writing again, the blocks checked anew", exc_info=True)
        return write(layout, source, target, case.store, keeper)


def _data_quality(
    exposure: Exposure,
    source: StoredObject,
    reference: Reference,
    user_dq: StoredObject | None,
    case: Case,
) -> DataQuality:
    """Fetch what the step needs, and run it."""
    mask = case.services.references.load(reference, exposure, case.store)
    return initialize(
        exposure,
        mask=None if mask is None else cut(mask, exposure),
        present=present_image(exposure, source, case.store),
        user=None if user_dq is None else read_user_dq(user_dq, case.store),
    )


def _provenance(target: S3Location, reference: Reference) -> Provenance:
    return Provenance(
        filename=target.key.rpartition("/")[2],
        date=datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds"),
        crds_version=CRDS_VERSION,
        crds_context=reference.context,
        mask=reference.label,
    )
