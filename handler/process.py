"""One exposure, start to finish."""

import io
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import crds
import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from numpy.typing import NDArray

from core import __version__
from core.errors import InputRejected, TransientFailure
from core.exposure import Exposure
from core.hdus import locate
from core.layout import Layout
from core.pixels import format_of
from core.product import NO_MASK, Provenance, compose
from core.readout import cut
from core.step import DataQuality, image_name, initialize, kept
from handler.announcements import Record, Status, announce
from handler.assembly import Overtaken, Target, write
from handler.blocks import Blocks
from handler.locations import S3Location
from handler.objects import ObjectStore, StoredObject
from handler.observability import logger, measure
from handler.references import Reference, References
from handler.requests import ExposureRequest
from handler.settings import OnExisting, Settings

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_s3.client import S3Client

__all__ = ["Services", "process", "reject"]

_REPLACE = OnExisting.REPLACE
_LARGEST_USER_DQ = 256 * 1024 * 1024


@dataclass
class Services:
    """What the function works with.

    Attributes
    ----------
    s3, events : boto3 clients
        S3 and EventBridge.
    references : `~handler.references.References`
        The CRDS mirror; caches what it has read.
    blocks : `~handler.blocks.Blocks`
        Blocks of repeated planes; remembers which have been checked.
    """

    s3: "S3Client"
    events: "EventBridgeClient"
    references: References
    blocks: Blocks


def process(
    request: ExposureRequest, settings: Settings, services: Services, request_id: str
) -> dict[str, Any]:
    """Run the step on one exposure, write its product and announce how it ended.

    Parameters
    ----------
    request : `~handler.requests.ExposureRequest`
        What to process.
    settings : `~handler.settings.Settings`
        The function's environment.
    services : `Services`
        What to work with.
    request_id : str
        AWS's identifier of the invocation.

    Returns
    -------
    dict
        The processing event's detail.

    Raises
    ------
    InputRejected, ReferenceUnavailable, TransientFailure
        What the caller should do next; whatever else is raised is a bug. All are announced.
    """
    started = time.perf_counter()
    store = ObjectStore(services.s3)
    record = Record(settings.mirror, request_id)
    try:
        status, reason = _run(request, settings, services, store, record)
    except Exception as exc:
        usage = _usage(store, started)
        detail = record.detail(Status.FAILED, str(exc), type(exc).__name__, usage)
        _tell(detail, settings, services)
        raise
    detail = record.detail(status, reason, None, _usage(store, started))
    _tell(detail, settings, services)
    return detail


def reject(error: Exception, settings: Settings, services: Services, request_id: str) -> None:
    """Announce an event that cannot be read as a request for any exposure.

    Parameters are those of `process`; `error` says what is wrong with the event.
    """
    record = Record(settings.mirror, request_id)
    usage = _usage(ObjectStore(services.s3), time.perf_counter())
    detail = record.detail(Status.FAILED, str(error), type(error).__name__, usage)
    _tell(detail, settings, services)


def _tell(detail: dict[str, Any], settings: Settings, services: Services) -> None:
    """Log, measure and announce how it ended."""
    logger.info("DQ initialization %s", detail["status"], extra={"detail": detail})
    measure(detail)
    announce(services.events, settings.event_bus, detail)


def _run(
    request: ExposureRequest,
    settings: Settings,
    services: Services,
    store: ObjectStore,
    record: Record,
) -> tuple[Status, str | None]:
    """Do the work, noting in `record` what becomes known; return how it ended, and why."""
    record.input_is(request.source)
    source = store.describe(request.source, missing=InputRejected)
    record.input_is(source)
    logger.append_keys(exposure=str(source.location))
    exposure = _read_exposure(source, store)
    record.exposure_is(exposure)

    reference = services.references.resolve(request, exposure, settings.context, store)
    record.reference_is(reference)
    logger.append_keys(mask=reference.label, context=reference.context)

    location = request.target(settings.output_bucket, settings.output_prefix)
    user_dq = _described_user_dq(request, store)
    metadata = _metadata(source, reference, user_dq, settings)
    present = store.find(location)
    on_existing = request.on_existing or settings.on_existing
    if present is not None and _is_same(present, metadata) and on_existing is not _REPLACE:
        return _already_made(present, on_existing, record)

    quality = _data_quality(exposure, source, reference, user_dq, services.references, store)
    record.flags_are(quality.image)
    layout = compose(exposure, quality, _provenance(location, reference), settings.encoding)
    condition = {"IfNoneMatch": "*"} if present is None else {"IfMatch": present.etag}
    try:
        product = _write(layout, source, Target(location, metadata, condition), services, store)
    except Overtaken as exc:
        present = store.find(location)
        if present is not None and _is_same(present, metadata):
            return _already_made(present, OnExisting.SKIP, record)
        raise TransientFailure(f"{location}: was written meanwhile: {exc}") from exc
    record.output_is(product)
    return Status.COMPLETE, None


def _already_made(
    present: StoredObject, on_existing: OnExisting, record: Record
) -> tuple[Status, str]:
    """The product is there: that is all there is to do, or an error."""
    reason = f"{present.location} was made from the same input and mask"
    if on_existing is OnExisting.ERROR:
        raise InputRejected(reason)
    record.output_is(present)
    return Status.SKIPPED, reason


def _write(
    layout: Layout, source: StoredObject, target: Target, services: Services, store: ObjectStore
) -> StoredObject:
    """Write the product; if that fails, doubt the blocks that were trusted, once."""
    keeper = partial(services.blocks.keep, store=store)
    try:
        return write(layout, source, target, store, keeper)
    except TransientFailure:
        if not services.blocks.forget():
            raise
        logger.warning("writing again, the blocks checked anew", exc_info=True)
        return write(layout, source, target, store, keeper)


def _usage(store: ObjectStore, started: float) -> dict[str, Any]:
    return {
        "durationSeconds": round(time.perf_counter() - started, 3),
        "bytesReceived": store.received,
        "bytesSent": store.sent,
    }


def _read_exposure(source: StoredObject, store: ObjectStore) -> Exposure:
    """Read the headers, and nothing but the headers."""
    name = str(source.location)
    hdus = locate(partial(store.read_headers, source), source.size, name)
    return Exposure.from_hdus(hdus, name)


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


def _is_same(present: StoredObject, wanted: dict[str, str]) -> bool:
    """Whether a product would come out the same; another context may choose the same mask."""
    found = present.metadata
    return all(found.get(key) == wanted[key] for key in wanted if key != "crds-context")


def _data_quality(
    exposure: Exposure,
    source: StoredObject,
    reference: Reference,
    user_dq: StoredObject | None,
    references: References,
    store: ObjectStore,
) -> DataQuality:
    """Fetch what the step needs, and run it."""
    mask = references.load(reference, exposure, store)
    return initialize(
        exposure,
        mask=None if mask is None else cut(mask, exposure),
        present=_present_image(exposure, source, store),
        user=None if user_dq is None else _read_user_dq(user_dq, store),
    )


def _present_image(
    exposure: Exposure, source: StoredObject, store: ObjectStore
) -> NDArray[np.uint32] | None:
    """PIXELDQ or DQ of the input, where it has one that fits."""
    hdu = kept(exposure, image_name(exposure), exposure.plane_shape)
    if hdu is None:
        return None
    stored = store.read(source, hdu.data_start, hdu.data_length)
    pixels = format_of(hdu.header, f"{exposure.name}, {hdu.name}").decode(stored)
    return pixels.reshape(hdu.shape).astype(np.uint32)


def _read_user_dq(found: StoredObject, store: ObjectStore) -> NDArray[Any]:
    """The first image of a FITS file."""
    if found.size > _LARGEST_USER_DQ:
        raise InputRejected(
            f"{found.location}: has {found.size} bytes, expected a DQ image of at most "
            f"{_LARGEST_USER_DQ}"
        )
    content = store.read(found, 0, found.size)
    try:
        data = fits.getdata(io.BytesIO(content))
    except (OSError, IndexError, TypeError, ValueError, VerifyError) as exc:
        raise InputRejected(f"{found.location}: no DQ image can be read from it: {exc}") from exc
    return np.asarray(data)


def _provenance(target: S3Location, reference: Reference) -> Provenance:
    return Provenance(
        filename=target.key.rpartition("/")[2],
        date=datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds"),
        crds_version=crds.__version__,
        crds_context=reference.context,
        mask=reference.label,
    )
