"""A job: the requests of one command, its progress and its result, in one S3 object.

The object is only ever replaced as a whole, on condition that it is still the one that was read.
The list in it never decides what is sent: every command computes its own list, and takes from an
unfinished job the causes of the requests that both name. A request that is sent twice with one
cause gives one result.
"""

import gzip
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from handler.s3.errors import is_conflict, is_missing
from handler.s3.objects import S3Location
from handler.s3.write import unchanged
from infra.cli import UserError

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

__all__ = [
    "Job",
    "JobChanged",
    "JobFile",
    "Request",
    "join",
    "request_key",
    "submit",
]

_BATCH = 10
"""SQS's own limit."""
_STRETCH = 5000
"""Requests after which progress is saved, which writes the whole job."""
_AT_ONCE = 8
_SEND_ATTEMPTS = 6
Request = dict[str, Any]

_ATTEMPTS = 5


class JobChanged(Exception):
    """The job was replaced since it was read."""


@dataclass(frozen=True)
class Job:
    """Requests, and how far they have come.

    Attributes
    ----------
    began : `datetime.datetime`
        When the job was created, by S3's clock.
    requests : tuple of dict
        Direct requests; each has a cause of its own.
    sent : int
        How many of them are in the queue at least.
    result : dict or None
        How it ended; None while it has not.
    context : str
        Context that the products were selected for, if they were.
    repeats : int
        How often in a row the same products were selected although they had a result.
    etag : str or None
        Of the object that it was read from; None for a job that is not stored yet.
    """

    began: datetime
    requests: tuple[Request, ...]
    sent: int = 0
    result: Mapping[str, Any] | None = None
    context: str = ""
    repeats: int = 0
    etag: str | None = field(default=None, compare=False)


@dataclass
class JobFile:
    """The object that holds a job.

    Attributes
    ----------
    s3 : boto3 S3 client
        The client.
    location : `~handler.s3.objects.S3Location`
        Where it lies.
    """

    s3: Any
    location: S3Location

    def read(self) -> tuple[Job | None, datetime]:
        """Return the job, None if there is none, and the time by S3's clock.

        Raises
        ------
        UserError
            If the object is not a job.
        """
        try:
            answer = self.s3.get_object(**self.location.as_kwargs)
        except ClientError as exc:
            if is_missing(exc):
                return None, _clock(exc.response)
            raise
        content = answer["Body"].read()
        try:
            head, *requests = map(json.loads, gzip.decompress(content).splitlines())
            found = Job(
                datetime.fromisoformat(head["began"]),
                tuple(request for request in requests if isinstance(request, dict)),
                max(int(head["sent"]), 0),
                head["result"],
                str(head["context"]),
                int(head["repeats"]),
                answer["ETag"],
            )
        except (ValueError, KeyError, TypeError, EOFError, OSError, RecursionError) as exc:
            raise UserError(
                f"{self.location}: not a job ({type(exc).__name__}), expected gzipped JSON lines; "
                "delete the object to start again"
            ) from exc
        return found, _clock(answer)

    def write(self, job: Job) -> Job:
        """Replace the object by a job that was made from it; returns the job as stored.

        Raises
        ------
        JobChanged
            If the object is not the one that the job was made from.
        """
        head = {
            "began": job.began.isoformat(),
            "sent": job.sent,
            "result": job.result,
            "context": job.context,
            "repeats": job.repeats,
        }
        text = "".join(f"{json.dumps(line)}\n" for line in (head, *job.requests))
        try:
            answer = self.s3.put_object(
                **self.location.as_kwargs,
                Body=gzip.compress(text.encode(), mtime=0),
                **unchanged(job.etag),
            )
        except ClientError as exc:
            if is_conflict(exc):
                raise JobChanged(str(self.location)) from exc
            raise
        return replace(job, etag=answer["ETag"])

    def save(self, job: Job) -> Job:
        """Write progress; leave it to the other command if another one shares the job."""
        try:
            return self.write(job)
        except JobChanged:
            return job

    def start(self, wanted: list[Request], *, is_new: bool = False) -> Job:
        """Store and return the job of a command: a new one, or an unfinished one that is resumed.

        Parameters
        ----------
        wanted : list of dict
            What the command would send, without causes.
        is_new : bool
            Whether a job that is in the queue as a whole is not resumed.

        Raises
        ------
        UserError
            If other commands keep replacing the job.
        """
        for _ in range(_ATTEMPTS):
            found, now = self.read()
            left = found is not None and is_new and found.sent >= len(found.requests)
            job = join(None if left else found, wanted, now)
            if job == found:
                return found
            try:
                return self.write(replace(job, etag=found.etag if found else None))
            except JobChanged:
                continue
        raise UserError(f"{self.location}: other commands keep replacing this job; try again later")


def join(found: Job | None, wanted: Iterable[Request], now: datetime) -> Job:
    """Return the job that sends what is wanted; it keeps causes and progress of an open one."""
    is_open = found is not None and found.result is None
    old = found.requests if found is not None and is_open else ()
    asked = {request_key(request): request for request in wanted}
    sent_before = found.sent if found is not None else 0
    kept, sent = [], 0
    for number, request in enumerate(old):
        is_wanted = asked.pop(request_key(request), {}) != {}
        if isinstance(request.get("cause"), str) and is_wanted:
            kept.append(request)
            sent += number < sent_before
    name = uuid.uuid4().hex
    added = [{**request, "cause": f"{name}/{i}"} for i, request in enumerate(asked.values(), 1)]
    began = found.began if found is not None and kept else now
    return Job(began, (*kept, *added), sent)


def request_key(request: Request) -> str:
    """Return what a request asks for, whoever asks."""
    return json.dumps({k: v for k, v in request.items() if k != "cause"}, sort_keys=True)


def _clock(answer: Mapping[str, Any]) -> datetime:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC).replace(microsecond=0)


def submit(file: JobFile, job: Job, sqs: "SQSClient", queue: str) -> Iterator[Job]:
    """Send what is not in the queue yet; yields the job as it proceeds.

    Parameters
    ----------
    file : `~infra.jobs.job.JobFile`
        Where progress is saved.
    job : `~infra.jobs.job.Job`
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
    for attempt in range(_SEND_ATTEMPTS):
        answer = sqs.send_message_batch(
            QueueUrl=queue,
            Entries=[{"Id": name, "MessageBody": line} for name, line in left.items()],
        )
        left = {item["Id"]: left[item["Id"]] for item in answer.get("Failed", [])}
        if not left:
            return
        time.sleep(0.1 * 2**attempt)
    raise TransientFailure(
        f"{queue}: {len(left)} messages were not accepted after {_SEND_ATTEMPTS} attempts "
        f"({answer['Failed'][0].get('Message', 'no reason given')}); run the same command again"
    )
