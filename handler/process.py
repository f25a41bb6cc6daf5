"""One exposure, start to finish: plan (reads only), build, publish.

Everything known so far is kept in a `Job`, so that a failure is published with it. Publishing comes
last: a bus that is down does not make the exposure fail.
"""

from dataclasses import dataclass, replace

from handler.announcements import Announcer, Draft
from handler.descriptions import exposure_summary, object_summary, planes_summary
from handler.event import ProcessingEvent, ReferenceSummary
from handler.existing import Action, action_for, target_for
from handler.function import Function
from handler.inputs import (
    describe_source,
    describe_user_dq,
    is_asked_for,
    is_current,
    read_exposure,
)
from handler.keeping import keep
from handler.making import Recipe, make
from handler.provenance import Provenance
from handler.requests import Attempt, ExposureRequest
from handler.s3.objects import StoredObject

__all__ = ["Job", "plan", "process"]


@dataclass
class Job:
    """One exposure on its way.

    Attributes
    ----------
    request : `~handler.requests.ExposureRequest`
        The request.
    announcer : `~handler.announcements.Announcer`
        Publishes the result.
    draft : `~handler.announcements.Draft`
        Everything known so far.
    existing : `~handler.s3.objects.StoredObject` or None
        The object at the product's key.
    recipe : `~handler.making.Recipe` or None
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


def process(request: ExposureRequest, function: Function, attempt: Attempt) -> ProcessingEvent:
    """Run the step on one exposure, write its product and publish the result.

    Parameters
    ----------
    request : `~handler.requests.ExposureRequest`
        The request.
    function : `~handler.function.Function`
        Settings and services.
    attempt : `~handler.requests.Attempt`
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
    announcer = function.announcer(attempt)
    job = Job(request, announcer, Draft.of(request))
    try:
        plan(job, function)
        if job.recipe is not None:
            _build(job, job.recipe, function)
    except Exception as exc:
        announcer.failed(job.draft, exc)
        raise
    return announcer.conclude(job.draft)


def plan(job: Job, function: Function) -> None:
    """Find out what the request asks for, and what is there already; read only.

    Parameters
    ----------
    job : `Job`
        The exposure; its recipe is set if a product is to be built.
    function : `~handler.function.Function`
        Settings and services.

    Raises
    ------
    InputRejected, ReferenceUnavailable, TransientFailure
        If the product cannot be built, or not now.
    """
    settings, store, request = function.settings, job.announcer.store, job.request
    job.know(job.draft)
    product = request.target(settings.output_bucket, settings.output_prefix)
    # The order matters: if the exposure is replaced after this, so is the product that is found
    # here, and writing fails rather than undo what was built from the newer exposure.
    job.know(replace(job.draft, product=product))
    job.existing = existing = store.find(product)
    source = describe_source(request, store)
    job.know(job.draft.know(input=object_summary(source)))
    if not is_asked_for(request, source):
        job.know(job.draft.skip(f"superseded: {request.source} has been replaced since"))
        return

    exposure = read_exposure(source, store)
    job.know(job.draft.know(exposure=exposure_summary(exposure)))
    context = request.context or settings.context
    reference = function.references.resolve(exposure, context, request.mask, store)
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
        job.know(replace(job.draft, entry=function.ledger.read(product, store)))
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


def _build(job: Job, recipe: Recipe, function: Function) -> None:
    """Build and write the product."""
    product, image = make(recipe, function.references, function.blocks, job.announcer.store)
    flags, row = planes_summary(recipe.exposure, image, recipe.provenance.pinned)
    draft = job.draft.know(output=object_summary(product), flags=flags)
    job.know(replace(draft, row=row))
