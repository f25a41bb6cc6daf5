"""A request whose every attempt failed: what is there is looked at, and nothing is made.

what is found                                            what is announced
the exposure was replaced                                Skipped
a product of it that answers the request                 Complete, as if it had been made just now
nothing, or a product that was there before it failed    Failed, as the last attempt noted it

So nobody counts attempts, and nobody is declared dead who is not: an attempt that was killed after
the product was written has succeeded.
"""

from dataclasses import replace

from core.errors import TransientFailure
from handler.announcements import Announcer, Draft
from handler.descriptions import object_summary
from handler.event import ProcessingEvent
from handler.function import Function
from handler.inputs import current_location, is_asked_for
from handler.keeping import keep
from handler.provenance import Provenance, shortened
from handler.requests import Attempt, ExposureRequest
from handler.s3.objects import StoredObject

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
    InputRejected
        If the request makes no sense; that is announced.
    TransientFailure
        If S3 or EventBridge cannot be reached: look again later.
    """
    announcer = function.announcer(replace(attempt, is_retried=False))
    draft = Draft.of(request)
    try:
        product = request.target(function.settings.output_bucket, function.settings.output_prefix)
    except Exception as exc:
        announcer.failed(draft, exc)
        raise
    store = announcer.store
    source, existing = store.find(current_location(request)), store.find(product)
    draft = replace(draft, product=product, entry=function.ledger.read(product, store))
    if source is not None:
        draft = draft.know(input=object_summary(source))
    if source is not None and not is_asked_for(request, source):
        reason = f"superseded: {request.source} has been replaced since"
        return announcer.conclude(replace(draft, skipped=reason))
    etag = source.etag.strip('"') if source else request.etag
    if existing is not None and _answers(existing, request, etag, draft, announcer):
        return announcer.conclude(keep(draft, existing, announcer))
    return _failed(draft, announcer)


def _answers(
    existing: StoredObject,
    request: ExposureRequest,
    etag: str | None,
    draft: Draft,
    announcer: Announcer,
) -> bool:
    """Whether a product is what was asked for, and no older than what went wrong."""
    provenance = Provenance.from_metadata(existing.metadata)
    if provenance is None or not provenance.is_of_input(request.source.bucket, request.source.key):
        return False
    if provenance.cause == shortened(announcer.attempt.cause):
        return True
    mask = shortened(str(request.mask)) if request.mask else provenance.mask
    failure = announcer.own_failure(draft)
    return (
        etag in {None, provenance.input_etag}
        and mask == provenance.mask
        and bool(request.user_dq) == bool(provenance.user_dq_etag)
        and (failure is None or failure.at < (existing.last_modified or ""))
    )


def _failed(draft: Draft, announcer: Announcer) -> ProcessingEvent:
    failure = announcer.own_failure(draft)
    if failure is not None:
        return announcer.failed_before(draft, failure)
    reason = f"{draft.product}: no attempt came to its end or left a reason (time-out, memory)"
    return announcer.failed(draft, TransientFailure(reason))
