"""The function's environment, checked once."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from core.product import Encoding
from handler.s3.objects import S3Location

__all__ = ["CATALOGUE", "JOBS", "Settings"]

CATALOGUE, JOBS = "dq_catalogue/", "dq_backfills/"
"""Key prefixes in the product bucket of what `reprocess` and `backfill` write."""


@dataclass(frozen=True)
class Settings:
    """What the environment says; the README has the table of it.

    Attributes
    ----------
    output_bucket, output_prefix : str
        Where products go.
    mirror : `~handler.s3.objects.S3Location`
        The CRDS mirror; its key is the prefix, without a slash at the end.
    context : str
        ``latest``, ``build`` or the name of a context.
    event_bus : str
        EventBridge bus for processing events.
    encoding : `~core.product.Encoding`
        How science pixels are written.
    blocks : `~handler.s3.objects.S3Location` or None
        Where repeated planes may be kept; None to keep none.
    ledger : `~handler.s3.objects.S3Location` or None
        Where the result for every product is kept; None to keep none.
    uploaded_queue_url, backfill_queue_url : str or None
        Addresses of the SQS queues whose messages are attempted: as they arrive, and those of
        backfills.
    retry_delay : int
        Seconds before a message whose first attempt failed is delivered again.
    unfinished_queue_arn : str or None
        ARN of the SQS queue of messages whose every attempt failed.
    requester_pays : frozenset of str
        Buckets whose reading is paid by who reads.
    """

    output_bucket: str
    output_prefix: str
    mirror: S3Location
    context: str = "latest"
    event_bus: str = "default"
    encoding: Encoding = Encoding.NATIVE
    blocks: S3Location | None = None
    ledger: S3Location | None = None
    uploaded_queue_url: str | None = None
    backfill_queue_url: str | None = None
    retry_delay: int = 30
    unfinished_queue_arn: str | None = None
    requester_pays: frozenset[str] = frozenset()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read and check the environment.

        Parameters
        ----------
        environment : mapping of str to str
            `os.environ`, or what a test puts in its place.

        Raises
        ------
        ValueError
            If a variable is missing or invalid, or if two of the function's key prefixes overlap;
            the message names the variables.
        """
        settings = cls(
            output_bucket=_required(environment, "OUTPUT_BUCKET"),
            output_prefix=environment.get("OUTPUT_PREFIX", "dq_init/"),
            mirror=_prefix("CRDS_MIRROR", _required(environment, "CRDS_MIRROR")),
            context=environment.get("CRDS_CONTEXT") or "latest",
            event_bus=environment.get("EVENT_BUS") or "default",
            encoding=_encoding(environment, "SCIENCE_ENCODING"),
            blocks=_optional_prefix(environment, "DQ_BLOCK_URI"),
            ledger=_optional_prefix(environment, "LEDGER_URI"),
            uploaded_queue_url=environment.get("UPLOADED_QUEUE_URL") or None,
            backfill_queue_url=environment.get("BACKFILL_QUEUE_URL") or None,
            retry_delay=_positive(environment, "RETRY_DELAY", 30),
            unfinished_queue_arn=environment.get("UNFINISHED_QUEUE_ARN") or None,
            requester_pays=frozenset(
                name for name in environment.get("REQUESTER_PAYS_BUCKETS", "").split(",") if name
            ),
        )
        _check_prefixes(settings)
        return settings

    def queue_url(self, queue: str) -> str | None:
        """Return the address of one of the queues whose messages are attempted, by its ARN."""
        name = queue.rpartition(":")[2]
        known = (
            address for address in (self.uploaded_queue_url, self.backfill_queue_url) if address
        )
        return next((a for a in known if a.rpartition("/")[2] == name), self.uploaded_queue_url)


def _check_prefixes(settings: Settings) -> None:
    """Reject prefixes of which one contains the other: each writer would replace the other's."""
    bucket, mirror = settings.output_bucket, settings.mirror
    folder = f"{mirror.key}/" if mirror.key else ""
    prefixes = [
        ("OUTPUT_PREFIX", S3Location(bucket, settings.output_prefix)),
        ("the prefix of the catalogue", S3Location(bucket, CATALOGUE)),
        ("the prefix of the jobs", S3Location(bucket, JOBS)),
        *(
            (name, S3Location(location.bucket, f"{location.key}/" if location.key else ""))
            for name, location in (
                ("DQ_BLOCK_URI", settings.blocks),
                ("LEDGER_URI", settings.ledger),
            )
            if location
        ),
        *(
            ("CRDS_MIRROR", S3Location(mirror.bucket, f"{folder}{name}/"))
            for name in ("config", "mappings", "references")
        ),
    ]
    for (one, a), (other, b) in combinations(prefixes, 2):
        if a.bucket == b.bucket and (a.key.startswith(b.key) or b.key.startswith(a.key)):
            raise ValueError(
                f"{one}: s3://{a.bucket}/{a.key} overlaps {other}, s3://{b.bucket}/{b.key}, "
                "expected separate key prefixes"
            )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise ValueError(f"the environment variable {name} is not set")
    return value


def _prefix(name: str, uri: str) -> S3Location:
    try:
        return S3Location.parse_prefix(uri)
    except ValueError as exc:
        raise ValueError(f"{name}={uri!r}: {exc}") from exc


def _optional_prefix(environment: Mapping[str, str], name: str) -> S3Location | None:
    uri = environment.get(name, "")
    return _prefix(name, uri) if uri else None


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{name}={value!r}: expected a number from 1")
    return int(value)


def _encoding(environment: Mapping[str, str], name: str) -> Encoding:
    value = environment.get(name) or Encoding.NATIVE.value
    try:
        return Encoding(value)
    except ValueError as exc:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(Encoding)}") from exc
