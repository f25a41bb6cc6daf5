"""One invocation of the function in a process of its own, which dies at a given call to AWS."""

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import boto3

from handler import app
from handler.s3.blocks import Blocks
from handler.services import Services

MIB = 1024 * 1024
KILLED, AGAIN = 9, 1
QUEUE = "arn:aws:sqs:us-east-1:123456789012:uploads"
# Reads the models of the services once, before the processes are forked: 0.1 s of CPU for each.
for _service in ("s3", "sqs", "events"):
    boto3.client(_service, region_name="us-east-1")  # type: ignore[call-overload]
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.scenarios.killed"])


@dataclass(frozen=True)
class Kill:
    """Where a process dies.

    Attributes
    ----------
    call : int
        Number of the call to AWS, from 1; 0 for none.
    moment : str
        ``before`` it is sent, or ``after`` it was answered.
    since : str
        Calls are counted from the first call of this operation on.
    """

    call: int
    moment: str
    since: str = ""


def deliver(
    environment: Mapping[str, str], body: str, kill: Kill, identifier: str, queue: str = QUEUE
) -> int:
    """Deliver a message; return how the process ended: 0 if it is done with the message."""
    arguments = (dict(environment), body, kill, identifier, queue)
    process = _PROCESSES.Process(target=_run, args=arguments, daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def _run(environment: dict[str, str], body: str, kill: Kill, identifier: str, queue: str) -> None:
    os.environ.update(environment)
    logging.disable()
    function = Services.from_environment(os.environ)
    if function.settings.blocks:
        small = Blocks(function.settings.blocks, block_bytes=16 * MIB, min_repeated_bytes=4 * MIB)
        function = replace(function, blocks=small)
    sqs = function.sqs()
    function = replace(function, sqs=lambda: sqs)
    die = _killer(kill)
    for client in (function.s3, function.bus.client, sqs):
        client.meta.events.register("before-call", lambda model, **_: die(model.name, "before"))
        client.meta.events.register("after-call", lambda model, **_: die(model.name, "after"))
    record = {"messageId": identifier, "body": body, "eventSourceARN": queue, "receiptHandle": "r"}
    answer = app.answer_batch({"Records": [record]}, function, "request", 900)
    os._exit(AGAIN if answer["batchItemFailures"] else 0)


def _killer(kill: Kill) -> Callable[[str, str], None]:
    calls = {"before": 0, "after": 0, "since": not kill.since}
    lock = threading.Lock()

    def die(operation: str, moment: str) -> None:
        with lock:
            calls["since"] = calls["since"] or operation == kill.since
            calls[moment] += bool(calls["since"])
            if moment == kill.moment and calls[moment] == kill.call:
                os._exit(KILLED)

    return die


def first_answers(environment: Mapping[str, str], *arguments: Any) -> int:
    """Deliver a message without a kill."""
    return deliver(environment, arguments[0], Kill(0, "before"), *arguments[1:])
