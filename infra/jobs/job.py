"""A job: the requests of one command, its progress and its result, in one S3 object.

The object is replaced as a whole, on condition that its ETag has not changed since it was read. The
stored list does not decide which requests are sent: every command computes its own list, and keeps
the causes of the requests that an unfinished job has in common with it. A request that is sent
twice with one cause gives one result.
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

Request = dict[str, Any]

_BATCH = 10  # messages per SendMessageBatch, the limit of SQS
_SAVE_EVERY = 5000  # requests; saving writes the whole job
_THREADS = 8
_SEND_ATTEMPTS = 6
_WRITE_ATTEMPTS = 5


class JobChanged(Exception):
    """The stored job was replaced since it was read."""


@dataclass(frozen=True)
class Job:
    """Direct requests, each with a cause of its own, and their progress."""

    began: datetime  # by S3's clock, as are the times of products and ledger entries
    requests: tuple[Request, ...]
    sent: int = 0  # requests from the first on that are in the queue; more may be
    result: Mapping[str, Any] | None = None  # None until the job ended
    context: str = ""  # of the selection, if the job is one
    repeats: int = 0  # selections in a row that found the same, already processed products
    etag: str | None = field(default=None, compare=False)  # None until the job is stored


@dataclass
class JobFile:
    """The S3 object that stores a job."""

    s3: Any
    location: S3Location

    def read(self) -> tuple[Job | None, datetime]:
        """Return the stored job, None if there is none, and the time by S3's clock."""
        try:
            answer = self.s3.get_object(**self.location.as_kwargs)
        except ClientError as exc:
            if is_missing(exc):
                return None, _clock(exc.response)
            raise
        content = answer["Body"].read()
        try:
            head, *requests = map(json.loads, gzip.decompress(content).splitlines())
            job = Job(
                began=datetime.fromisoformat(head["began"]),
                requests=tuple(request for request in requests if isinstance(request, dict)),
                sent=max(int(head["sent"]), 0),
                result=head["result"],
                context=str(head["context"]),
                repeats=int(head["repeats"]),
                etag=answer["ETag"],
            )
        except (ValueError, KeyError, TypeError, EOFError, OSError, RecursionError) as exc:
            raise UserError(
                f"{self.location}: not a job ({type(exc).__name__}), expected gzipped JSON lines; "
                "delete the object to start again"
            ) from exc
        return job, _clock(answer)

    def write(self, job: Job) -> Job:
        """Replace the stored job; return the new one with its ETag.

        Raises
        ------
        JobChanged
            If the object no longer has the job's ETag.
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
        """Write progress, unless another command shares the job and wrote it meanwhile."""
        try:
            return self.write(job)
        except JobChanged:
            return job

    def start(self, wanted: list[Request], *, is_new: bool = False) -> Job:
        """Store the job of a command, resuming an unfinished one; `is_new`: unless all is sent."""
        for _ in range(_WRITE_ATTEMPTS):
            found, now = self.read()
            is_left = found is not None and is_new and found.sent >= len(found.requests)
            job = join(None if is_left else found, wanted, now)
            if job == found:
                return found
            try:
                return self.write(replace(job, etag=found.etag if found else None))
            except JobChanged:
                continue  # another command shares the job: read its causes, too
        raise UserError(f"{self.location}: other commands keep replacing this job; try again later")


def join(found: Job | None, wanted: Iterable[Request], now: datetime) -> Job:
    """Return a job of the wanted requests; those of the unfinished job keep cause and progress."""
    missing = {request_key(request): request for request in wanted}
    kept, sent = [], 0
    if found is not None and found.result is None:
        for number, request in enumerate(found.requests):
            has_cause = isinstance(request.get("cause"), str)
            if has_cause and missing.pop(request_key(request), None) is not None:
                kept.append(request)
                sent += number < found.sent
    name = uuid.uuid4().hex
    added = [{**request, "cause": f"{name}/{i}"} for i, request in enumerate(missing.values(), 1)]
    began = found.began if found is not None and kept else now
    return Job(began, (*kept, *added), sent)


def request_key(request: Request) -> str:
    """Return a text that is equal for requests that differ in their cause only."""
    return json.dumps({k: v for k, v in request.items() if k != "cause"}, sort_keys=True)


def _clock(answer: Mapping[str, Any]) -> datetime:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC).replace(microsecond=0)


def submit(file: JobFile, job: Job, sqs: "SQSClient", queue_url: str) -> Iterator[Job]:
    """Send the requests that are not in the queue yet; yield the job each time it is saved."""
    bodies = [json.dumps(request) for request in job.requests]
    with ThreadPoolExecutor(_THREADS) as threads:
        while job.sent < len(bodies):
            some = bodies[job.sent : job.sent + _SAVE_EVERY]
            batches = [some[i : i + _BATCH] for i in range(0, len(some), _BATCH)]
            list(threads.map(lambda batch: _send(batch, sqs, queue_url), batches))
            job = file.save(replace(job, sent=job.sent + len(some)))
            yield job


def _send(bodies: Sequence[str], sqs: "SQSClient", queue_url: str) -> None:
    """Send at most ten messages; send those again that SQS does not accept."""
    left = {str(number): body for number, body in enumerate(bodies)}
    for attempt in range(_SEND_ATTEMPTS):
        answer = sqs.send_message_batch(
            QueueUrl=queue_url,
            Entries=[{"Id": name, "MessageBody": body} for name, body in left.items()],
        )
        left = {item["Id"]: left[item["Id"]] for item in answer.get("Failed", [])}
        if not left:
            return
        time.sleep(0.1 * 2**attempt)
    raise TransientFailure(
        f"{queue_url}: {len(left)} messages were not accepted after {_SEND_ATTEMPTS} attempts "
        f"({answer['Failed'][0].get('Message', 'no reason given')}); run the same command again"
    )
