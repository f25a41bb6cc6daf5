"""The function's entry: `handler.app.lambda_handler`.

What comes in                       what goes out
an SQS batch                        the messages to deliver again (``batchItemFailures``)
one event or direct request         the processing event's detail; a failure is raised

An event that asks for nothing (a test of the notification) is answered with nothing.
"""

import gc

gc.disable()  # what is imported is no garbage: not to look for any saves a tenth of INIT

import json
import os
from dataclasses import replace
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from core.errors import InputRejected
from handler.event import Findings, ProcessingEvent
from handler.events import Attempt, decode, read_request, split, undelivered
from handler.observability import adopt_other_loggers, logger
from handler.process import process, report_exhausted
from handler.publish import Draft
from handler.services import Services
from handler.sqs import Message, handle_batch

__all__ = ["lambda_handler"]

_QUOTED = 1000
"""Characters of an event that cannot be read."""


@cache
def services_from_environment() -> Services:
    """Read the environment and make the clients, once per container."""
    adopt_other_loggers()
    return Services.from_environment(os.environ)


@logger.inject_lambda_context(clear_state=True)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Process what an event asks for.

    Parameters
    ----------
    event : dict
        An SQS batch, an S3 notification, an EventBridge event or a direct request.
    context : LambdaContext
        What AWS says of the invocation.

    Returns
    -------
    dict
        For an SQS batch, the messages to deliver again; else the processing event's detail.
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
    """Do what the messages of an SQS batch ask for; what is no JSON is announced, too."""

    def answer_message(message: Message, is_unfinished: bool) -> None:
        attempt = Attempt(message.identifier, request_id, is_retried=True)
        try:
            decoded = decode(message.body)
        except InputRejected as exc:
            _reject(exc, message.body, services, attempt)
            raise
        answer(decoded, services, attempt, is_unfinished)

    return handle_batch(event, services.settings, services.sqs, seconds_left, answer_message)


def answer(
    event: object, services: Services, attempt: Attempt, is_unfinished: bool = False
) -> ProcessingEvent | None:
    """Do what an event asks for.

    Parameters
    ----------
    event : object
        One of the ways in.
    services : `~handler.services.Services`
        What to work with.
    attempt : `~handler.events.Attempt`
        Who asks.
    is_unfinished : bool
        Whether nothing is to be made any more, only looked for.

    Returns
    -------
    `~handler.event.ProcessingEvent` or None
        How the last exposure ended; None if the event asks for none.

    Raises
    ------
    Exception
        The last failure, one that a retry may help before one that it may not. Every exposure of
        the event is tried before.
    """
    parts, results = split(event), []
    failures: list[Exception] = []
    for number, part in enumerate(parts, 1):
        cause = attempt.cause if len(parts) == 1 else f"{attempt.cause}/{number}"
        try:
            one = replace(attempt, cause=cause)
            results.append(_answer_one(part, services, one, is_unfinished))
        except Exception as exc:  # raised below, when every exposure was tried
            failures.append(exc)
    if failures:
        raise max(failures, key=lambda failure: not isinstance(failure, InputRejected))
    return results[-1] if results else None


def _answer_one(
    part: object, services: Services, attempt: Attempt, is_unfinished: bool
) -> ProcessingEvent:
    try:
        if (event := undelivered(part)) is not None:
            services.bus.send(event)
            return event
        request = read_request(part)
    except InputRejected as exc:
        _reject(exc, json.dumps(part), services, attempt)
        raise
    cause = request.cause or attempt.cause
    attempt = replace(attempt, cause=cause, is_retried=attempt.is_retried or request.is_retried)
    if is_unfinished or request.is_report_only:
        return report_exhausted(request, services, attempt)
    return process(request, services, attempt)


def _reject(error: InputRejected, quoted: str, services: Services, attempt: Attempt) -> None:
    """Announce an event that cannot be read as a request for any exposure."""
    reason = InputRejected(f"{error}; the event: {quoted[:_QUOTED]}")
    services.announcer(attempt).failed(Draft(Findings()), reason)


def _is_batch(event: Any) -> bool:
    records = event.get("Records") if isinstance(event, dict) else None
    first = records[0] if isinstance(records, list) and records else None
    return isinstance(first, dict) and first.get("eventSource") == "aws:sqs"


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    services_from_environment()  # in the INIT phase, in which Lambda gives a whole CPU
gc.freeze()  # what is there now stays, and need never be looked at again
gc.enable()
