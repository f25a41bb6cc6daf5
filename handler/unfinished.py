"""A request whose every attempt failed: what is there is looked at, and nothing is made.

what is found                                          what is announced
the exposure was replaced                              Skipped
the product that was asked for, whoever has made it    Complete, as if it had been made just now
anything else                                          Failed, as the last attempt noted it

So nobody counts attempts, and nobody is declared dead who is not: an attempt that was killed after
the product was written has succeeded.
"""

from dataclasses import replace

from core.errors import TransientFailure
from handler.announcements import Announcer, Draft
from handler.descriptions import object_summary
from handler.event import ProcessingEvent
from handler.existing import Action, action_for
from handler.function import Function
from handler.inputs import describe_source, describe_user_dq, is_asked_for, read_exposure
from handler.keeping import keep
from handler.provenance import Provenance, shortened
from handler.requests import Attempt, ExposureRequest

__all__ = ["look"]


def look(request: ExposureRequest, function: Function, attempt: Attempt) -> ProcessingEvent:
    """Announce how a request ended whose attempts are over.

    Parameters are those of `handler.process.process`.

    Returns
    -------
    `~handler.event.ProcessingEvent`
        How it ended.

    Raises
    ------
    TransientFailure
        If S3 or EventBridge cannot be reached: look again later.
    """
    announcer = function.announcer(replace(attempt, is_retried=False))
    draft = Draft.of(request)
    try:
        settings = function.settings
        product = request.target(settings.output_bucket, settings.output_prefix)
        entry = function.ledger.read(product, announcer.store)
        draft = replace(draft, product=product, entry=entry)
        answer = _answer(draft, request, function, announcer)
    except TransientFailure:
        raise
    except Exception as exc:
        return _failed(draft, announcer, exc)
    return _failed(draft, announcer) if answer is None else announcer.conclude(answer)


def _answer(
    draft: Draft, request: ExposureRequest, function: Function, announcer: Announcer
) -> Draft | None:
    """What is to be announced, unless the request has failed."""
    store, mirror = announcer.store, str(function.settings.mirror)
    existing = store.find(draft.product) if draft.product else None
    found = Provenance.from_metadata(existing.metadata) if existing else None
    if existing and found and found.cause == shortened(announcer.attempt.cause):
        return keep(draft, existing, announcer, mirror)
    source = describe_source(request, store)
    draft = draft.know(input=object_summary(source))
    if not is_asked_for(request, source):
        return replace(draft, skipped=f"superseded: {request.source} has been replaced since")
    if existing is None:
        return None
    exposure = read_exposure(source, store)
    context = request.context or function.settings.context
    reference = function.references.resolve(exposure, context, request.mask, store)
    wanted = Provenance.of(
        source,
        (reference.label, reference.sha1, reference.context),
        describe_user_dq(request.user_dq, store),
        function.settings.encoding,
        announcer.attempt.cause,
    )
    is_answer = action_for(existing, wanted, request.on_existing) is Action.KEEP
    return keep(draft, existing, announcer, mirror) if is_answer else None


def _failed(draft: Draft, announcer: Announcer, error: Exception | None = None) -> ProcessingEvent:
    """Announce the last attempt's reason; where it left none, what looking came upon."""
    failure = announcer.own_failure(draft)
    if failure is not None:
        return announcer.failed_before(draft, failure)
    reason = f"{draft.product}: no attempt came to its end or left a reason (time-out, memory)"
    return announcer.failed(draft, error or TransientFailure(reason))
