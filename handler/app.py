"""Entry of the Lambda function: `handler.app.lambda_handler`.

event                          answer
SQS batch                      the messages to deliver again (``batchItemFailures``)
one event or direct request    the processing event's detail; a failure is raised
event without an exposure      {}
"""

import gc

gc.disable()  # imports create no garbage; not looking for any saves a tenth of INIT

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from core import __version__
from core.errors import InputRejected
from handler.event import Findings, ProcessingEvent, Status, Usage
from handler.events import Attempt, Mode, decode, read_request, split, undelivered
from handler.process import process, report_exhausted
from handler.publish import adopt_other_loggers, logger, publish_event
from handler.services import Services
from handler.sqs import GRACE, hide, read_batch, retry_delay

_LONGEST_QUOTE = 1000  # characters of an event that cannot be read


@cache
def services_from_environment() -> Services:
    """Set up logging and create the function's services; later calls return the same ones."""
    adopt_other_loggers()
    return Services.from_environment(os.environ)


@logger.inject_lambda_context(clear_state=True)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Process all exposures of an event; return the messages to deliver again, or a detail.

    An SQS batch gives ``batchItemFailures``. Any other event gives the detail of its last
    processing event, {} if it has no exposure, or raises if an exposure failed.
    """
    services, request_id = services_from_environment(), context.aws_request_id
    if _is_batch(event):
        seconds_left = context.get_remaining_time_in_millis() / 1000
        return answer_batch(event, services, request_id, seconds_left)
    result = answer(event, services, Attempt(request_id, request_id))
    return result.to_detail() if result else {}


def answer_batch(
    event: dict[str, Any], services: Services, request_id: str, seconds_left: float
) -> dict[str, Any]:
    """Process the messages of an SQS batch; return ``batchItemFailures``, those to repeat.

    Those are failures other than `InputRejected`. `seconds_left` only sets visibility timeouts (to
    60 s after the invocation; after a failure, `retry_delay`), except of UnfinishedQueue.
    """
    messages = read_batch(event, services.settings)
    again = []
    # SQS answers while the exposure is read. One thread keeps the order of the calls of a message.
    with ThreadPoolExecutor(1, "visibility timeouts") as thread:
        set_by_sqs = [
            thread.submit(hide, message, seconds_left + GRACE, services.sqs) for message in messages
        ]
        for message in messages:
            extra = {"message_id": message.identifier, "deliveries": message.deliveries}
            attempt = Attempt(message.identifier, request_id, message.mode)
            try:
                answer(_decode(message.body, services, attempt), services, attempt)
            except InputRejected:
                logger.info("Failed: published, not retried", extra=extra)
            except Exception as exc:
                logger.warning("Retried: %s", exc, extra=extra)
                delay = retry_delay(message, services.settings)
                set_by_sqs.append(thread.submit(hide, message, delay, services.sqs))
                again.append({"itemIdentifier": message.identifier})
        for call in set_by_sqs:
            call.result()
    return {"batchItemFailures": again}


def answer(event: object, services: Services, attempt: Attempt) -> ProcessingEvent | None:
    """Process all exposures of an event; return the last result, None if it has no exposure.

    If any failed, raises one of the failures after all were processed: one other than
    `InputRejected`, if there is one, because a retry can help.
    """
    parts, results = split(event), []
    failures: list[Exception] = []
    for number, part in enumerate(parts, 1):
        cause = attempt.cause if len(parts) == 1 else f"{attempt.cause}/{number}"
        try:
            results.append(_answer_part(part, services, replace(attempt, cause=cause)))
        except Exception as exc:  # raised below
            failures.append(exc)
    if failures:
        # SQS deletes a message whose failure is InputRejected: the other exposures would be lost.
        raise max(failures, key=lambda failure: not isinstance(failure, InputRejected))
    return results[-1] if results else None


def _answer_part(part: object, services: Services, attempt: Attempt) -> ProcessingEvent:
    try:
        if (result := undelivered(part)) is not None:
            services.bus.send(result)
            return result
        request = read_request(part)
    except InputRejected as exc:
        _publish_unreadable(exc, json.dumps(part), services, attempt)
        raise
    mode = max(attempt.mode, request.mode)
    attempt = replace(attempt, cause=request.cause or attempt.cause, mode=mode)
    if mode is Mode.REPORT:
        return report_exhausted(request, services, attempt)
    return process(request, services, attempt)


def _decode(body: str, services: Services, attempt: Attempt) -> object:
    try:
        return decode(body)
    except InputRejected as exc:
        _publish_unreadable(exc, body, services, attempt)
        raise


def _publish_unreadable(
    error: InputRejected, event: str, services: Services, attempt: Attempt
) -> None:
    """Publish a Failed event about an event or message that is not a valid request."""
    reason, name = f"{error}; the event: {event[:_LONGEST_QUOTE]}", type(error).__name__
    logger.error("DQ initialization failed: %s: %s", name, reason)
    usage = Usage(__version__, attempt.request_id)
    failed = ProcessingEvent(Status.FAILED, reason, name, attempt.cause, Findings(), usage)
    publish_event(failed, services.bus)


def _is_batch(event: Any) -> bool:
    records = event.get("Records") if isinstance(event, dict) else None
    first = records[0] if isinstance(records, list) and records else None
    return isinstance(first, dict) and first.get("eventSource") == "aws:sqs"


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    services_from_environment()  # during INIT, when Lambda grants a whole CPU
gc.freeze()  # objects of INIT live as long as the container
gc.enable()
