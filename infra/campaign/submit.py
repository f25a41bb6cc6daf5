"""Send a job's requests to the queue; after an interruption some are sent again."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from core.errors import TransientFailure
from infra.campaign.job import Job, JobFile

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

__all__ = ["submit"]

_BATCH = 10
"""SQS's own limit."""
_STRETCH = 5000
"""Requests after which progress is saved, which writes the whole job."""
_AT_ONCE = 8
_ATTEMPTS = 6


def submit(file: JobFile, job: Job, sqs: "SQSClient", queue: str) -> Iterator[Job]:
    """Send what is not in the queue yet; yields the job as it proceeds.

    Parameters
    ----------
    file : `~infra.campaign.job.JobFile`
        Where progress is saved.
    job : `~infra.campaign.job.Job`
        What to send.
    sqs : boto3 SQS client
        The client.
    queue : str
        The queue URL.

    Raises
    ------
    TransientFailure
        If SQS does not accept a message; the same call resumes.
    """
    lines = [json.dumps(request) for request in job.requests]
    with ThreadPoolExecutor(_AT_ONCE) as sending:
        while job.sent < len(lines):
            stretch = lines[job.sent : job.sent + _STRETCH]
            batches = [stretch[i : i + _BATCH] for i in range(0, len(stretch), _BATCH)]
            list(sending.map(lambda batch: _send(batch, sqs, queue), batches))
            job = file.save(replace(job, sent=job.sent + len(stretch)))
            yield job


def _send(lines: Sequence[str], sqs: "SQSClient", queue: str) -> None:
    """Send at most ten messages; send again those that SQS does not accept."""
    left = {str(number): line for number, line in enumerate(lines)}
    for attempt in range(_ATTEMPTS):
        answer = sqs.send_message_batch(
            QueueUrl=queue,
            Entries=[{"Id": name, "MessageBody": line} for name, line in left.items()],
        )
        left = {item["Id"]: left[item["Id"]] for item in answer.get("Failed", [])}
        if not left:
            return
        time.sleep(0.1 * 2**attempt)
    raise TransientFailure(
        f"{queue}: {len(left)} messages were not accepted after {_ATTEMPTS} attempts "
        f"({answer['Failed'][0].get('Message', 'no reason given')}); run the same command again"
    )
