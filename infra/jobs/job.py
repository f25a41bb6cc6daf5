"""A job: the requests of one command, their progress and their result, stored in one S3 object.

The object is replaced as a whole, on condition that its ETag has not changed since it was read. The
stored list does not decide which requests are sent: every command computes its own list. If an
unfinished job has some of these requests, they keep its causes, because a request that is sent
twice with one cause gives one result.
"""

import gzip
import json
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from core.errors import TransientFailure
from handler.s3.errors import is_missing, translate_errors
from handler.s3.objects import S3Location
from infra.aws import put_if_unchanged
from infra.cli import UserError, plural

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

Request = dict[str, Any]

_KEPT = timedelta(days=14)  # the longest retention of SQS
BATCH = 10  # messages per SendMessageBatch, the limit of SQS
_SAVE_EVERY = 5000  # requests; saving writes the whole job
_THREADS = 8
_SEND_ATTEMPTS = 6
_WRITE_ATTEMPTS = 5
# Errors of gzip, of JSON and of conversions, which a damaged job raises.
_DAMAGE = (
    ValueError, KeyError, TypeError, EOFError, OSError, OverflowError, RecursionError, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """Direct requests, each with a cause of its own, and their progress."""

    began: datetime  # by S3's clock, as are the times of products and ledger entries
    requests: tuple[Request, ...]
    sent: int = 0  # number of first requests that were sent; later ones may have been
    result: Mapping[str, Any] | None = None  # None until the job ended
    # That the Lambda function Reprocessing selected products for; empty in jobs of commands.
    context: str = ""
    repeats: int = 0  # selections in a row that found the same, already processed products
    # Of the S3 object when the job was read or written; None until the job is stored.
    etag: str | None = field(default=None, compare=False)


@dataclass
class JobFile:
    """The S3 object that stores a job."""

    s3: Any
    location: S3Location

    def read(self) -> tuple[Job | None, datetime]:
        """Return the stored job (None without one) and the current time by the clock of S3."""
        with translate_errors(f"{self.location}: reading it"):
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
                began=datetime.fromisoformat(head["began"]).astimezone(UTC),
                requests=tuple(request for request in requests if isinstance(request, dict)),
                sent=max(int(head["sent"]), 0),
                result=head["result"],
                context=str(head["context"]),
                repeats=int(head["repeats"]),
                etag=answer["ETag"],
            )
        except _DAMAGE as exc:
            raise UserError(
                f"{self.location}: not a job, expected gzipped JSON lines; delete the object, "
                "then run the same command again"
            ) from exc
        return job, _clock(answer)

    def write(self, job: Job) -> Job | None:
        """Replace the stored job by `job`; return `job` with the new ETag of the object.

        Return None, without writing, if the object's ETag is not `job.etag`, or if `job.etag` is
        None and the object exists.
        """
        head = {
            "began": job.began.isoformat(),
            "sent": job.sent,
            "result": job.result,
            "context": job.context,
            "repeats": job.repeats,
        }
        text = "".join(f"{json.dumps(line)}\n" for line in (head, *job.requests))
        content = gzip.compress(text.encode(), mtime=0)
        etag = put_if_unchanged(self.s3, self.location, content, job.etag)
        return replace(job, etag=etag) if etag else None

    def save(self, job: Job) -> Job:
        """Write a job as `write` does; if that returns None, return the job as it is."""
        return self.write(job) or job

    def start(self, wanted: list[Request], *, is_new: bool = False) -> Job:
        """Store and return a job of `wanted`; those stored already keep cause and progress.

        They do not if the stored job has a result or, with `is_new` or two weeks after it began, if
        all its requests were sent.
        `UserError` if the stored job is damaged, or other commands keep replacing it.
        """
        for _ in range(_WRITE_ATTEMPTS):
            found, now = self.read()
            is_over = (
                found is not None
                and found.sent >= len(found.requests)
                # SQS has dropped what it did not deliver by then.
                and (is_new or now - found.began > _KEPT)
            )
            job = join(None if is_over else found, wanted, now)
            if job == found:
                return found
            if written := self.write(replace(job, etag=found.etag if found else None)):
                return written
            # Another command shares the job: read its causes, too.
        raise UserError(
            f"{self.location}: other commands replaced this job {_WRITE_ATTEMPTS} times meanwhile; "
            "run the same command again"
        )


def join(found: Job | None, wanted: Iterable[Request], now: datetime) -> Job:
    """Return a job of `wanted`; requests that are also in `found` keep cause and progress."""
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
    """Return a request as JSON without its cause: equal if all other fields are equal."""
    return json.dumps({k: v for k, v in request.items() if k != "cause"}, sort_keys=True)


def _clock(answer: Mapping[str, Any]) -> datetime:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC).replace(microsecond=0)


def submit(file: JobFile, job: Job, sqs: "SQSClient", queue_url: str) -> Iterator[Job]:
    """Send requests after the first `job.sent`; yield the job after each 5,000 and the last."""
    bodies = [json.dumps(request) for request in job.requests]
    with ThreadPoolExecutor(_THREADS) as threads:
        while job.sent < len(bodies):
            some = bodies[job.sent : job.sent + _SAVE_EVERY]
            batches = [some[i : i + BATCH] for i in range(0, len(some), BATCH)]
            list(threads.map(lambda batch: send_batch(batch, sqs, queue_url), batches))
            job = file.save(replace(job, sent=job.sent + len(some)))
            yield job


def send_batch(bodies: Sequence[str], sqs: "SQSClient", queue_url: str) -> None:
    """Send messages with these bodies, at most ten; send refused ones up to six times."""
    left = {str(number): body for number, body in enumerate(bodies)}
    for attempt in range(_SEND_ATTEMPTS):
        with translate_errors(f"{queue_url}: sending messages"):
            answer = sqs.send_message_batch(
                QueueUrl=queue_url,
                Entries=[{"Id": name, "MessageBody": body} for name, body in left.items()],
            )
        left = {item["Id"]: left[item["Id"]] for item in answer.get("Failed", [])}
        if not left:
            return
        time.sleep(0.1 * 2**attempt)
    raise TransientFailure(
        f"{queue_url}: SQS refused {plural(len(left), 'message')} in {_SEND_ATTEMPTS} attempts "
        f"({answer['Failed'][0].get('Message', 'no reason given')}); run the same command again"
    )
