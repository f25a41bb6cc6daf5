"""Report on a request whose attempts are over: read what is there, build nothing.

what is found                                            what is published
the product that was asked for, whoever built it         Complete, as if it had been built just now
a product or exposure that makes the request needless    Skipped
anything else                                            Failed, with the last reason

Nothing counts attempts: an attempt that was killed after it wrote the product has succeeded.
"""

from dataclasses import replace

from core.errors import InputRejected, TransientFailure
from handler.announcements import Draft
from handler.event import ProcessingEvent
from handler.function import Function
from handler.keeping import keep
from handler.process import Job, plan
from handler.provenance import Provenance, shortened
from handler.requests import Attempt, ExposureRequest
from handler.s3.errors import is_denied

__all__ = ["look"]


def look(request: ExposureRequest, function: Function, attempt: Attempt) -> ProcessingEvent:
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
    announcer = function.announcer(replace(attempt, is_retried=False))
    job = Job(request, announcer, Draft.of(request))
    try:
        if not _is_own_product(job, function):
            plan(job, function)
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


def _is_own_product(job: Job, function: Function) -> bool:
    """Keep the product that an attempt of the same cause has written."""
    settings, store = function.settings, job.announcer.store
    product = job.request.target(settings.output_bucket, settings.output_prefix)
    entry = function.ledger.read(product, store)
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
