"""One exposure, start to finish: plan (reads only), build, publish.

Everything known so far is kept in a `Job`, so that a failure is published with it. Publishing comes
last: a bus that is down does not make the exposure fail.
"""

from dataclasses import dataclass, replace

from core.errors import InputRejected, TransientFailure
from core.product import NO_MASK
from handler.build import (
    Recipe,
    describe_source,
    describe_user_dq,
    is_current,
    make,
    matches_event,
    read_exposure,
    read_product,
)
from handler.decision import Action, action_for, target_for
from handler.event import ObjectSummary, ProcessingEvent, ReferenceSummary
from handler.events import Attempt, ExposureRequest
from handler.provenance import Provenance, shortened
from handler.publish import Announcer, Draft
from handler.s3.errors import is_denied
from handler.s3.objects import StoredObject
from handler.services import Services
from handler.summaries import exposure_summary, object_summary, planes_summary

__all__ = [
    "Job",
    "keep",
    "plan",
    "process",
    "report_exhausted",
]


@dataclass
class Job:
    """One exposure on its way.

    Attributes
    ----------
    request : `~handler.events.ExposureRequest`
        The request.
    announcer : `~handler.publish.Announcer`
        Publishes the result.
    draft : `~handler.publish.Draft`
        Everything known so far.
    existing : `~handler.s3.objects.StoredObject` or None
        The object at the product's key.
    recipe : `~handler.build.Recipe` or None
        The product to build; None if nothing is to be built.
    """

    request: ExposureRequest
    announcer: Announcer
    draft: Draft
    existing: StoredObject | None = None
    recipe: Recipe | None = None

    def know(self, draft: Draft) -> None:
        """Keep what has become known, for the event and for every line of the log."""
        self.draft = draft
        self.announcer.note(draft)


def process(request: ExposureRequest, services: Services, attempt: Attempt) -> ProcessingEvent:
    """Run the step on one exposure, write its product and publish the result.

    Parameters
    ----------
    request : `~handler.events.ExposureRequest`
        The request.
    services : `~handler.services.Services`
        Settings and services.
    attempt : `~handler.events.Attempt`
        The caller.

    Returns
    -------
    `~handler.event.ProcessingEvent`
        The result.

    Raises
    ------
    InputRejected, ReferenceUnavailable, TransientFailure
        What the caller should do next; whatever else is raised is a bug. A failure is published
        unless the caller retries and a retry may help.
    """
    announcer = services.announcer(attempt)
    job = Job(request, announcer, Draft.of(request))
    try:
        plan(job, services)
        if job.recipe is not None:
            _build(job, job.recipe, services)
    except Exception as exc:
        announcer.failed(job.draft, exc)
        raise
    return announcer.conclude(job.draft)


def plan(job: Job, services: Services) -> None:
    """Find out what the request asks for, and what is there already; read only.

    Parameters
    ----------
    job : `Job`
        The exposure; its recipe is set if a product is to be built.
    services : `~handler.services.Services`
        Settings and services.

    Raises
    ------
    InputRejected, ReferenceUnavailable, TransientFailure
        If the product cannot be built, or not now.
    """
    settings, store, request = services.settings, job.announcer.store, job.request
    job.know(job.draft)
    product = request.target(settings.output_bucket, settings.output_prefix)
    # The order matters: if the exposure is replaced after this, so is the product that is found
    # here, and writing fails rather than undo what was built from the newer exposure.
    job.know(replace(job.draft, product=product))
    job.existing = existing = store.find(product)
    source = describe_source(request, store)
    job.know(job.draft.know(input=object_summary(source)))
    if not matches_event(request, source):
        job.know(job.draft.skip(f"superseded: {request.source} has been replaced since"))
        return

    exposure = read_exposure(source, store)
    job.know(job.draft.know(exposure=exposure_summary(exposure)))
    context = request.context or settings.context
    reference = services.references.resolve(exposure, context, request.mask, store)
    named = (reference.label, reference.sha1, reference.context)
    summary = ReferenceSummary(*named, str(settings.mirror), reference.warning)
    job.know(job.draft.know(reference=replace(summary, sha1=reference.sha1 or None)))

    user_dq = describe_user_dq(request.user_dq, store)
    cause = job.announcer.attempt.cause
    provenance = Provenance.of(source, named, user_dq, settings.encoding, cause, request.pins)
    action = action_for(
        existing, provenance, request.on_existing, lambda: is_current(source, store)
    )
    if existing is not None:  # so is its entry, most probably
        job.know(replace(job.draft, entry=services.ledger.read(product, store)))
    match action:
        case Action.SUPERSEDED:
            job.know(job.draft.skip(f"superseded: {product} is of a newer version"))
        case Action.PINNED:
            job.know(job.draft.skip(_pinned(product, existing)))
        case Action.KEEP if existing is not None:
            job.know(keep(job.draft, existing, job.announcer, str(settings.mirror)))
        case _:
            target = target_for(product, existing, provenance)
            job.recipe = Recipe(exposure, source, user_dq, reference, provenance, target)


def _pinned(product: object, existing: StoredObject | None) -> str:
    """Say why a pinned product is left alone."""
    made = Provenance.from_metadata(existing.metadata) if existing else None
    mask = made.mask if made else "?"
    with_dq = " and user-supplied DQ" if made and made.user_dq_etag else ""
    return (
        f"pinned: {product} was built by a request that named its mask or user-supplied DQ "
        f"(mask {mask}{with_dq}); onExisting=replace replaces it"
    )


def _build(job: Job, recipe: Recipe, services: Services) -> None:
    """Build and write the product."""
    product, image = make(recipe, services.references, services.blocks, job.announcer.store)
    flags, row = planes_summary(recipe.exposure, image, recipe.provenance.pinned)
    draft = job.draft.know(output=object_summary(product), flags=flags)
    job.know(replace(draft, row=row))


def keep(draft: Draft, product: StoredObject, announcer: Announcer, mirror: str) -> Draft:
    """Find out whether a product was announced; if not, read what is to be said of it.

    Parameters
    ----------
    draft : `~handler.publish.Draft`
        What is known so far, the ledger's entry among it.
    product : `~handler.s3.objects.StoredObject`
        The product.
    announcer : `~handler.publish.Announcer`
        Knows who asks, and how to reach S3.
    mirror : str
        The CRDS mirror in use.

    Returns
    -------
    `~handler.publish.Draft`
        What is to be announced: as if the product had been made just now.
    """
    draft = draft.know(output=object_summary(product), reference=_reference(product, mirror))
    draft = draft.know(input=_input(draft.findings.input, product))
    previous = announcer.announced_before(draft)
    if previous is not None:
        return replace(draft, previous=previous)
    exposure, image = read_product(product, announcer.store)
    provenance = Provenance.from_metadata(product.metadata)
    flags, row = planes_summary(exposure, image, pinned=bool(provenance and provenance.pinned))
    return replace(draft.know(exposure=exposure_summary(exposure), flags=flags), row=row)


def _input(asked: ObjectSummary | None, product: StoredObject) -> ObjectSummary | None:
    """The exposure: as it was found, or else as the product says that it was made from it."""
    provenance = Provenance.from_metadata(product.metadata)
    if asked is None or asked.etag is not None or provenance is None:
        return asked
    version, etag = provenance.input_version or None, f'"{provenance.input_etag}"'
    return replace(asked, version_id=asked.version_id or version, etag=etag)


def _reference(product: StoredObject, mirror: str) -> ReferenceSummary | None:
    """The mask that the product was made with, and the context that chose it then."""
    provenance = Provenance.from_metadata(product.metadata)
    if provenance is None:
        return None
    mask = None if provenance.mask == NO_MASK else provenance.mask
    return ReferenceSummary(mask, provenance.mask_sha1 or None, provenance.crds_context, mirror)


def report_exhausted(
    request: ExposureRequest, services: Services, attempt: Attempt
) -> ProcessingEvent:
    """Publish the result of a request whose attempts are over.

    Parameters are those of `handler.process.process`.

    Returns
    -------
    `~handler.event.ProcessingEvent`
        The result.

    Raises
    ------
    TransientFailure
        If S3 or EventBridge cannot be reached: report again later.
    """
    announcer = services.announcer(replace(attempt, is_retried=False))
    job = Job(request, announcer, Draft.of(request))
    try:
        if not _is_own_product(job, services):
            plan(job, services)
    except TransientFailure as exc:
        # A denied permission lasts until an operator has read of it, so it is published.
        if not is_denied(exc):
            raise
        return _failed(job, exc)
    except Exception as exc:
        return _failed(job, exc)
    if job.draft.is_settled:
        return announcer.conclude(job.draft)
    return _failed(job)


def _is_own_product(job: Job, services: Services) -> bool:
    """Keep the product that an attempt of the same cause has written."""
    settings, store = services.settings, job.announcer.store
    product = job.request.target(settings.output_bucket, settings.output_prefix)
    entry = services.ledger.read(product, store)
    job.know(replace(job.draft, product=product, entry=entry))
    existing = store.find(product)
    found = Provenance.from_metadata(existing.metadata) if existing else None
    if not existing or not found or found.cause != shortened(job.announcer.attempt.cause):
        return False
    job.know(keep(job.draft, existing, job.announcer, str(settings.mirror)))
    return True


def _failed(job: Job, error: Exception | None = None) -> ProcessingEvent:
    """Publish the last reason: of the request itself, of this report, or of another request.

    The ledger has room for one reason: two requests for one exposure replace each other's. Another
    request may be rejected for a fault of its own, such as onExisting=error.
    """
    failure = job.draft.entry.failure
    is_own = failure is not None and job.announcer.is_own(failure)
    is_shared = failure is not None and error is None and failure.error != InputRejected.__name__
    if failure is not None and (is_own or is_shared):
        return job.announcer.failed_before(job.draft, failure)
    reason = f"{job.draft.product}: no attempt ended or left a reason (timeout, memory)"
    return job.announcer.failed(job.draft, error or TransientFailure(reason))
