"""Settings of the function, read from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import TypeVar

from core.product import Encoding, Form
from handler.s3.objects import S3Location

Choice = TypeVar("Choice", bound=StrEnum)

# Key prefixes in the bucket of the products, used by `dq-init reprocess` and `dq-init backfill`.
CATALOGUE, JOBS = "dq_catalogue/", "dq_backfills/"


@dataclass(frozen=True)
class Settings:
    """Settings of the function; docs/reference/settings.md lists their environment variables."""

    output_bucket: str  # bucket and key prefix of the products
    output_prefix: str
    mirror: S3Location
    context: str = "latest"  # ``latest``, ``build`` or the name of a context
    event_bus: str = "default"
    encoding: Encoding = Encoding.NATIVE  # data type of the science pixels in products
    form: Form = Form.ASSEMBLED
    blocks: S3Location | None = None
    ledger: S3Location | None = None  # prefix of the ledger; None for no ledger
    uploaded_queue_url: str | None = None
    backfill_queue_url: str | None = None
    retry_delay: int = 30  # seconds until the second delivery of a message that failed
    unfinished_queue_arn: str | None = None
    requester_pays: frozenset[str] = frozenset()  # names of Requester Pays buckets

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Return the settings in environment variables, or raise ValueError for an invalid one."""
        settings = cls(
            output_bucket=_required(environment, "OUTPUT_BUCKET"),
            output_prefix=environment.get("OUTPUT_PREFIX", "dq_init/"),
            mirror=_prefix("CRDS_MIRROR", _required(environment, "CRDS_MIRROR")),
            context=environment.get("CRDS_CONTEXT") or "latest",
            event_bus=environment.get("EVENT_BUS") or "default",
            encoding=_choice(environment, "SCIENCE_ENCODING", Encoding.NATIVE),
            form=_choice(environment, "PRODUCT_FORM", Form.ASSEMBLED),
            blocks=_optional_prefix(environment, "DQ_BLOCK_URI"),
            ledger=_optional_prefix(environment, "LEDGER_URI"),
            uploaded_queue_url=environment.get("UPLOADED_QUEUE_URL") or None,
            backfill_queue_url=environment.get("BACKFILL_QUEUE_URL") or None,
            retry_delay=_positive(environment, "RETRY_DELAY", cls.retry_delay),
            unfinished_queue_arn=environment.get("UNFINISHED_QUEUE_ARN") or None,
            requester_pays=bucket_names(environment.get("REQUESTER_PAYS_BUCKETS", "")),
        )
        _check_prefixes(settings)
        return settings

    def queue_url(self, arn: str) -> str | None:
        """Return the URL of the queue with this ARN; None unless a setting has that URL."""
        name = arn.rpartition(":")[2]
        urls = filter(None, (self.uploaded_queue_url, self.backfill_queue_url))
        return next((url for url in urls if url.rpartition("/")[2] == name), None)


def bucket_names(text: str) -> frozenset[str]:
    """Return the names of buckets in a text that separates them by commas."""
    return frozenset(filter(None, text.split(",")))


def _check_prefixes(settings: Settings) -> None:
    """Raise ValueError if prefixes overlap: each writer would replace objects of the other."""
    bucket, mirror = settings.output_bucket, settings.mirror
    prefixes = {
        "OUTPUT_PREFIX": S3Location(bucket, settings.output_prefix),
        "the prefix of the catalogue": S3Location(bucket, CATALOGUE),
        "the prefix of the jobs": S3Location(bucket, JOBS),
    }
    for name, location in (("DQ_BLOCK_URI", settings.blocks), ("LEDGER_URI", settings.ledger)):
        if location:
            prefixes[name] = S3Location(location.bucket, f"{location.key}/" if location.key else "")
    found = [*prefixes.items()]
    found += [
        ("CRDS_MIRROR", mirror.below(f"{name}/")) for name in ("config", "mappings", "references")
    ]
    for (one, a), (other, b) in combinations(found, 2):
        if a.bucket == b.bucket and (a.key.startswith(b.key) or b.key.startswith(a.key)):
            raise ValueError(
                f"{one}: s3://{a.bucket}/{a.key} overlaps {other}, s3://{b.bucket}/{b.key}, "
                "expected separate key prefixes"
            )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise ValueError(f"{name}: the environment variable is not set, expected a value; set it")
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
        raise ValueError(f"{name}={value!r}: expected a whole number of at least 1")
    return int(value)


def _choice(environment: Mapping[str, str], name: str, default: Choice) -> Choice:
    value, choices = environment.get(name) or default.value, type(default)
    try:
        return choices(value)
    except ValueError as exc:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(choices)}") from exc
