"""The function's entry: `handler.app.lambda_handler`.

What comes in                       what goes out
an SQS batch                        the messages to deliver again (``batchItemFailures``)
one event or direct request         the processing event's detail; a failure is raised

An event that asks for nothing (a test of the notification) is answered with nothing.
"""

import gc

gc.disable()  # what is imported is no garbage: not to look for any saves a tenth of INIT

import os
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from pathlib import Path
from typing import Any

import boto3
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from core.errors import InputRejected
from handler.batches import handle_batch
from handler.case import Services
from handler.invocation import Invocation
from handler.observability import adopt_other_loggers, logger
from handler.outcomes import Outcomes
from handler.process import process, reject
from handler.reference import References
from handler.references.masks import Masks
from handler.references.rules import Rules
from handler.requests import requests_in
from handler.s3.blocks import Blocks
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

_PROMPT = Config(
    # Within the time for which a result is claimed, it is announced or that has failed.
    retries={"mode": "standard", "max_attempts": 3},
    connect_timeout=3,
    read_timeout=10,
)

_MIRROR_SECONDS = 4
"""How long INIT waits for the mirror: Lambda ends it after ten seconds."""


@cache
def settings_and_services() -> tuple[Settings, Services]:
    """Read the environment and make the clients, once per container."""
    adopt_other_loggers()
    settings = Settings.from_environment(os.environ)
    scratch = Path(tempfile.gettempdir()) / "crds"
    s3 = client("s3")
    rules = Rules(settings.mirror, scratch, s3)
    masks = Masks(settings.mirror, scratch / "references")
    # While the mirror answers, the next client is made.
    beside = ThreadPoolExecutor(1, "reading the mirror")
    reading = beside.submit(read_context, rules, settings.context)
    events = client("events", _PROMPT)
    wait([reading], _MIRROR_SECONDS)
    beside.shutdown(wait=False)
    logs = partial(client, "logs")
    outcomes = Outcomes(settings.outcomes, settings.event_log, settings.event_bus, s3, events, logs)
    return settings, Services(s3, References(rules, masks), Blocks(settings.blocks), outcomes)


def read_context(rules: Rules, context: str) -> None:
    """Read what every exposure needs of the mirror, before there is one.

    What fails here fails again, and is announced, when an exposure is processed. What takes too
    long goes on beside it: both write the same into the rules' caches.
    """
    try:
        rules.prepare(context)
    except Exception:
        logger.warning("the mirror could not be read yet", exc_info=True)


@cache
def client(service: str, config: Config | None = None) -> Any:
    """Make a client of an AWS service, when it is first needed."""
    return boto3.client(service, config=config or _PATIENT)  # type: ignore[call-overload]


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
    invocation = Invocation.from_context(context)
    if _is_batch(event):
        return handle_batch(event, settings, services, invocation, partial(client, "sqs"))
    return handle_one(event, settings, services, invocation)


def handle_one(
    event: dict[str, Any], settings: Settings, services: Services, invocation: Invocation
) -> dict[str, Any]:
    """Process one event or direct request; the last detail is returned, failures are raised."""
    try:
        requests = requests_in(event)
    except InputRejected as exc:
        reject(exc, settings, services, invocation)
        raise
    detail: dict[str, Any] = {}
    for request in requests:
        detail = process(request, settings, services, invocation)
    return detail


def start() -> None:
    """Make ready in the INIT phase, where Lambda gives a whole CPU; know of SnapStart."""
    settings_and_services()
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        from snapshot_restore_py import register_after_restore  # noqa: PLC0415  # the runtime's own

        register_after_restore(restore)


def restore() -> None:
    """Make anew what a snapshot must not carry into other containers.

    Clients hold connections and the session credentials; services hold what the mirror called
    operational; the pauses between retries would be the same everywhere. Rules and masks in /tmp
    never change.
    """
    settings_and_services.cache_clear()
    client.cache_clear()
    boto3.setup_default_session()
    random.seed()
    settings_and_services()


def _is_batch(event: dict[str, Any]) -> bool:
    records = event.get("Records") or [{}]
    return bool(records[0].get("eventSource") == "aws:sqs")


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    start()
gc.freeze()  # what is there now stays, and need never be looked at again
gc.enable()
