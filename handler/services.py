"""Settings and AWS clients of the function, created once per container."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.handlers import convert_body_to_file_like_object

from handler.crds.masks import References
from handler.event import Bus
from handler.ledger import Ledger
from handler.s3.blocks import Blocks
from handler.s3.objects import enable_requester_pays
from handler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

log = logging.getLogger(__name__)

S3_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 5},
    connect_timeout=5,
    read_timeout=60,
    max_pool_connections=40,  # copies and uploads of handler.s3.assembly at once, and a few more
    # Every part has a CRC-32; a SHA-256 for the signature would protect the same bytes again.
    s3={"payload_signing_enabled": False},
)
CONTROL_PLANE_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 3},  # the next attempt publishes it otherwise
    connect_timeout=3,
    read_timeout=10,
)
_MIRROR_SECONDS = 4  # Lambda ends INIT after 10


@dataclass(frozen=True)
class Services:
    """The settings, AWS clients and S3 locations that the function uses."""

    settings: Settings
    s3: "S3Client"
    references: References
    blocks: Blocks
    ledger: Ledger
    bus: Bus
    sqs: "Callable[[], SQSClient]"  # created only if a message comes from a queue

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Services":
        """Create the services from environment variables; read the context into the caches."""
        settings = Settings.from_environment(environment)
        s3 = client("s3", S3_CONFIG)
        # urllib3 would send what it reads from a file-like body in pieces of 16 KB.
        for operation in ("PutObject", "UploadPart"):
            event = f"before-parameter-build.s3.{operation}"
            s3.meta.events.unregister(event, convert_body_to_file_like_object)
        enable_requester_pays(s3, settings.requester_pays)
        references = References.of(settings.mirror, Path(tempfile.gettempdir()) / "crds", s3)
        with read_ahead(references, settings.context):
            events = client("events", CONTROL_PLANE_CONFIG)
        return cls(
            settings,
            s3,
            references,
            Blocks(settings.blocks),
            Ledger(settings.ledger),
            Bus(settings.event_bus, events),
            partial(client, "sqs", CONTROL_PLANE_CONFIG),
        )


@contextmanager
def read_ahead(
    references: References, context: str, patience: float = _MIRROR_SECONDS
) -> Iterator[None]:
    """Read a context's pmap into the caches in a thread, while the with statement runs.

    The end of the statement waits at most `patience` seconds; a slower thread continues. An error
    is only logged: the first exposure reads the pmap again.
    """
    pool = ThreadPoolExecutor(1, "reading the mirror")
    reading = pool.submit(_prepare, references, context)
    yield
    wait([reading], patience)
    pool.shutdown(wait=False)


def _prepare(references: References, context: str) -> None:
    try:
        references.rules.prepare(context)
    except Exception:
        log.warning("the CRDS mirror cannot be read yet; the first exposure retries", exc_info=True)


@cache
def client(service: str, config: Config) -> Any:
    """Return the client of an AWS service; equal arguments return the same client."""
    return boto3.client(service, config=config)  # type: ignore[call-overload]
