"""Sending a campaign's requests to the queue: each once, or again where sending was cut off."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from core.errors import TransientFailure
from infra.campaign.campaign import Campaign, Manifest

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

__all__ = ["submit"]

_BATCH = 10
"""SQS's own limit."""
_STRETCH = 500
"""Requests after which it is written down how far sending has come: so many are sent twice."""
_AT_ONCE = 8
_ATTEMPTS = 6


def submit(campaign: Campaign, manifest: Manifest, sqs: "SQSClient", queue: str) -> Iterator[int]:
    """Send what is not in the queue yet; yields how many are.

    Parameters
    ----------
    campaign : `~infra.campaign.campaign.Campaign`
        Where it is written down how far sending has come.
    manifest : `~infra.campaign.campaign.Manifest`
        What to send.
    sqs : boto3 SQS client
        How to reach the queue.
    queue : str
        Its address.

    Raises
    ------
    TransientFailure
        If SQS does not take a message; the same call goes on.
    """
    lines, done = manifest.lines, campaign.submitted
    with ThreadPoolExecutor(_AT_ONCE) as sending:
        while done < len(lines):
            stretch = lines[done : done + _STRETCH]
            batches = [stretch[i : i + _BATCH] for i in range(0, len(stretch), _BATCH)]
            list(sending.map(lambda batch: _send(batch, sqs, queue), batches))
            done += len(stretch)
            campaign.note_submitted(done)
            yield done


def _send(lines: Sequence[str], sqs: "SQSClient", queue: str) -> None:
    """Send at most ten messages; those that SQS does not take are sent again."""
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
    raise TransientFailure(f"{queue}: {len(left)} messages were not taken: {answer['Failed'][0]}")
