"""One exposure, start to finish.

What becomes known is noted step by step, so that a failure is announced with all that was known by
then. Announcing comes after: a bus that is down is no failure of the exposure.
"""

from collections.abc import Iterator
from dataclasses import replace

from handler.announcements import Announcer, Draft
from handler.descriptions import exposure_summary, object_summary, planes_summary
from handler.event import ProcessingEvent, ReferenceSummary
from handler.existing import Action, action_for, target_for
from handler.function import Function
from handler.inputs import describe_source, describe_user_dq, is_asked_for, read_exposure
from handler.keeping import keep
from handler.making import Recipe, make
from handler.provenance import Provenance
from handler.requests import Attempt, ExposureRequest

__all__ = ["process"]


def process(request: ExposureRequest, function: Function, attempt: Attempt) -> ProcessingEvent:
    """Run the step on one exposure, write its product and announce how it ended.

    Parameters
    ----------
    request : `~handler.requests.ExposureRequest`
        What to process.
    function : `~handler.function.Function`
        What to work with.
    attempt : `~handler.requests.Attempt`
        Who asks.

    Returns
    -------
    `~handler.event.ProcessingEvent`
        How it ended.

    Raises
    ------
    InputRejected, ReferenceUnavailable, TransientFailure
        What the caller should do next; whatever else is raised is a bug. A failure is announced
        unless the attempt is retried and that may help.
    """
    announcer = function.announcer(attempt)
    draft = Draft.of(request)
    try:
        for draft in _steps(draft, request, function, announcer):  # noqa: B020
            announcer.note(draft)
    except Exception as exc:
        announcer.failed(draft, exc)
        raise
    return announcer.conclude(draft)


def _steps(
    draft: Draft, request: ExposureRequest, function: Function, announcer: Announcer
) -> Iterator[Draft]:
    """Do the work, yielding what is known after each step."""
    settings, store = function.settings, announcer.store
    yield draft
    product = request.target(settings.output_bucket, settings.output_prefix)
    # The order matters: should the exposure be replaced after this, so is what is found here, and
    # writing the product fails rather than undo what was made of the newer exposure.
    yield (draft := replace(draft, product=product))
    existing = store.find(product)
    source = describe_source(request, store)
    yield (draft := draft.know(input=object_summary(source)))
    if not is_asked_for(request, source):
        yield replace(draft, skipped=f"superseded: {request.source} has been replaced since")
        return

    exposure = read_exposure(source, store)
    yield (draft := draft.know(exposure=exposure_summary(exposure)))
    context = request.context or settings.context
    reference = function.references.resolve(exposure, context, request.mask, store)
    named = (reference.label, reference.sha1, reference.context)
    summary = ReferenceSummary(*named, str(settings.mirror), reference.warning)
    yield (draft := draft.know(reference=replace(summary, sha1=reference.sha1 or None)))

    user_dq = describe_user_dq(request.user_dq, store)
    cause = announcer.attempt.cause
    provenance = Provenance.of(source, named, user_dq, settings.encoding, cause)
    action = action_for(existing, provenance, request.on_existing)
    if existing is not None:  # so is its entry, most probably
        draft = replace(draft, entry=function.ledger.read(product, store))
    match action:
        case Action.SUPERSEDED:
            yield replace(draft, skipped=f"superseded: {product} is of a newer version")
        case Action.KEEP if existing is not None:
            yield keep(draft, existing, announcer, str(settings.mirror))
        case _:
            target = target_for(product, existing, provenance)
            recipe = Recipe(exposure, source, user_dq, reference, provenance, target)
            yield _made(draft, recipe, function, announcer)


def _made(draft: Draft, recipe: Recipe, function: Function, announcer: Announcer) -> Draft:
    """Make the product, and say what it is."""
    product, image = make(recipe, function.references, function.blocks, announcer.store)
    flags, row = planes_summary(recipe.exposure, image)
    return replace(draft.know(output=object_summary(product), flags=flags), row=row)
