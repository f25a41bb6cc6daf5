"""The function's entry: `handler.app.lambda_handler`.

What comes in                       what goes out
an SQS batch                        the messages to deliver again (``batchItemFailures``)
one event or direct request         the processing event's detail; a failure is raised

A message whose exposure is rejected is not delivered again: no retry would help. Every failure is
announced. An event that asks for nothing (a test of the notification) is answered with nothing.
"""

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from core.errors import InputRejected
from handler.blocks import Blocks
from handler.masks import Masks
from handler.observability import adopt_other_loggers, logger
from handler.process import Services, process, reject
from handler.references import References
from handler.requests import ExposureRequest, requests_in, requests_in_body
from handler.rules import Rules
from handler.settings import Settings

__all__ = ["lambda_handler"]

_PATIENT = Config(
    retries={"mode": "standard", "max_attempts": 5},
    connect_timeout=5,
    read_timeout=60,
    max_pool_connections=12,
    # CRC-32 guards every part; a SHA-256 of the same bytes for the signature would guard no more.
    s3={"payload_signing_enabled": False},
)


@cache
def settings_and_services() -> tuple[Settings, Services]:
    """Read the environment and make the clients, once per container."""
    adopt_other_loggers()
    settings = Settings.from_environment(os.environ)
    scratch = Path(tempfile.gettempdir()) / "crds"
    references = References(
        Rules(settings.mirror, scratch), Masks(settings.mirror, scratch / "references")
    )
    clients = boto3.client("s3", config=_PATIENT), boto3.client("events", config=_PATIENT)
    return settings, Services(*clients, references, Blocks(settings.blocks))


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
    settings, services = settings_and_services()
    if _is_batch(event):
        return handle_batch(event, settings, services, context.aws_request_id)
    return handle_one(event, settings, services, context.aws_request_id)


def handle_batch(
    event: dict[str, Any], settings: Settings, services: Services, request_id: str
) -> dict[str, Any]:
    """Process the messages of an SQS batch; a bad one does not stop the others."""
    again = []
    for message in event["Records"]:
        try:
            for request in _readable(message["body"], settings, services, request_id):
                process(request, settings, services, request_id)
        except InputRejected:
            logger.exception("rejected", extra={"message_id": message["messageId"]})
        except Exception:
            logger.exception("to be delivered again", extra={"message_id": message["messageId"]})
            again.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": again}


def handle_one(
    event: dict[str, Any], settings: Settings, services: Services, request_id: str
) -> dict[str, Any]:
    """Process one event or direct request; the last detail is returned, failures are raised."""
    detail: dict[str, Any] = {}
    for request in _readable(event, settings, services, request_id):
        detail = process(request, settings, services, request_id)
    return detail


def _readable(
    event: dict[str, Any] | str, settings: Settings, services: Services, request_id: str
) -> list[ExposureRequest]:
    """Read the requests in an event or a message's body; announce it if that cannot be done."""
    try:
        return requests_in_body(event) if isinstance(event, str) else requests_in(event)
    except InputRejected as exc:
        reject(exc, settings, services, request_id)
        raise


def _is_batch(event: dict[str, Any]) -> bool:
    records = event.get("Records") or [{}]
    return bool(records[0].get("eventSource") == "aws:sqs")
