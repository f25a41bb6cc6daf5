"""The function: its settings and its services, the one object that every call carries."""

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

from handler.crds.masks import References
from handler.events import Attempt
from handler.ledger import Ledger
from handler.publish import Announcer, Bus
from handler.s3.blocks import Blocks
from handler.s3.objects import ObjectStore, agree_to_pay
from handler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

__all__ = ["Services", "client"]

log = logging.getLogger(__name__)

S3_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 5},
    connect_timeout=5,
    read_timeout=60,
    max_pool_connections=40,  # as many copies at once, and uploads beside them
    # CRC-32 guards every part; a SHA-256 of the same bytes for the signature would guard no more.
    s3={"payload_signing_enabled": False},
)

CONTROL_PLANE_CONFIG = Config(
    # An announcement that is not taken soon is sent by the next attempt.
    retries={"mode": "standard", "max_attempts": 3},
    connect_timeout=3,
    read_timeout=10,
)

_MIRROR_SECONDS = 4
"""How long INIT waits for the mirror: Lambda ends it after ten seconds."""


@dataclass(frozen=True)
class Services:
    """Settings and services.

    Attributes
    ----------
    settings : `~handler.settings.Settings`
        The function's environment.
    s3 : boto3 client
        S3.
    references : `~handler.crds.masks.References`
        The CRDS mirror; caches what it has read.
    blocks : `~handler.s3.blocks.Blocks`
        Blocks of repeated planes; remembers which have been checked.
    ledger : `~handler.ledger.Ledger`
        The results of all products.
    bus : `~handler.publish.Bus`
        What results are announced on.
    sqs : callable
        Makes the SQS client, which is needed only where messages come from a queue.
    """

    settings: Settings
    s3: "S3Client"
    references: References
    blocks: Blocks
    ledger: Ledger
    bus: Bus
    sqs: "Callable[[], SQSClient]"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Services":
        """Read the environment and make the clients.

        While the mirror answers what every exposure needs of it, the next client is made.

        Parameters
        ----------
        environment : mapping of str to str
            `os.environ`.

        Raises
        ------
        ValueError
            If a variable is missing or makes no sense.
        """
        settings = Settings.from_environment(environment)
        scratch = Path(tempfile.gettempdir()) / "crds"
        s3 = client("s3", S3_CONFIG)
        agree_to_pay(s3, settings.requester_pays)
        references = References.of(settings.mirror, scratch, s3)
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

    def announcer(self, attempt: Attempt) -> Announcer:
        """Return what announces how one exposure ended, with an S3 that counts its bytes."""
        return Announcer(self.bus, self.ledger, attempt, ObjectStore(self.s3))


@contextmanager
def read_ahead(
    references: References, context: str, patience: float = _MIRROR_SECONDS
) -> Iterator[None]:
    """Read the context beside something else, and wait for it; but not for long.

    What fails here fails again, and is announced, when an exposure is processed. What takes too
    long goes on beside it: both write the same into the caches.
    """
    beside = ThreadPoolExecutor(1, "reading the mirror")
    reading = beside.submit(_prepare, references, context)
    yield
    wait([reading], patience)
    beside.shutdown(wait=False)


def _prepare(references: References, context: str) -> None:
    try:
        references.rules.prepare(context)
    except Exception:
        log.warning("the mirror could not be read yet", exc_info=True)


@cache
def client(service: str, config: Config) -> Any:
    """Make a client of an AWS service, once per container."""
    return boto3.client(service, config=config)  # type: ignore[call-overload]
