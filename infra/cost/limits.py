"""The limits that AWS sets to a queue that drives a function that writes to S3."""

from dataclasses import dataclass

__all__ = ["AWS", "DROPPED", "PER_DAY", "Limits"]

PER_DAY = 500
"""Exposures of 92 MB that the observatory takes: 46 GB, four fifths of what two contacts a day
bring down, each at least 28.6 GB (JWST User Documentation, "JWST Solid State Recorder")."""


@dataclass(frozen=True)
class Limits:
    """The rates that AWS allows.

    Attributes
    ----------
    first_pollers : int
        Messages that Lambda's poller has in work as soon as a queue is not empty.
    more_pollers : float
        By how many more a second, while messages wait ("Configuring scaling behavior for SQS
        event source mappings", AWS Lambda Developer Guide: five at first, 300 more a minute).
    account : int
        Invocations at the same time in an account's region, all functions together ("Lambda
        quotas"; 1,000 unless more was asked for).
    puts : int
        PUT-class requests a second that S3 takes of one partition of a bucket ("Best practices
        design patterns: optimizing Amazon S3 performance", Amazon S3 User Guide).
    split_after : float
        Seconds after which S3 has doubled that for a busy bucket: 15 to 30 minutes according to
        errorreference.com/errors/aws/SlowDown; AWS says "gradually".
    kept : float
        Seconds after which SQS drops a message: the longest retention, as the template sets it.
    """

    first_pollers: int = 5
    more_pollers: float = 300 / 60
    account: int = 1000
    puts: int = 3500
    split_after: float = 20 * 60
    kept: float = 14 * 86_400


AWS = Limits()
DROPPED = "SQS drops what waits for 14 days: send them in parts."
"""What to say of exposures whose last would wait for longer than that."""
