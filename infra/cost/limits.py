"""The limits that AWS sets to a queue that drives a function that writes to S3."""

from dataclasses import dataclass

__all__ = ["AWS", "DROPPED", "Limits"]


@dataclass(frozen=True)
class Limits:
    """How fast AWS lets things go.

    Attributes
    ----------
    first_pollers : int
        Messages that Lambda's poller has in work as soon as a queue is not empty.
    more_pollers : float
        By how many more a second, while messages wait.
    most_pollers : int
        Of one event source mapping, without a MaximumConcurrency.
        All three: "Configuring scaling behavior for SQS event source mappings", AWS Lambda
        Developer Guide (five at first, 300 more a minute, 1,250).
    account : int
        Invocations at the same time in an account's region, all functions together ("Lambda
        quotas"; 1,000 unless more was asked for).
    others : int
        How many of them other functions take.
    throttled_wait : float
        Seconds after which the poller tries an invocation again that was throttled. An assumption:
        AWS says that it backs off "gradually" ("Handling errors for an SQS event source").
    puts, gets : int
        Requests a second that S3 takes of one partition of a bucket ("Best practices design
        patterns: optimizing Amazon S3 performance", Amazon S3 User Guide). More get 503 SlowDown.
    split_after : float
        Seconds of such answers after which S3 has divided a partition: some 15 to 30 minutes, it is
        told (errorreference.com/errors/aws/SlowDown); AWS says "gradually".
    attempts : int
        Of one request, as the function's client is set (`handler.function.PATIENT`); it waits a
        random part of 1, 2, 4 ... 20 seconds between them (botocore, "standard" mode).
    idle : float
        Seconds after which Lambda ends a container that has nothing to do (minutes, it is told).
    kept : float
        Seconds after which SQS drops a message: the longest that it can be told to keep one, as
        the template does.
    """

    first_pollers: int = 5
    more_pollers: float = 300 / 60
    most_pollers: int = 1250
    account: int = 1000
    others: int = 0
    throttled_wait: float = 1.0
    puts: int = 3500
    gets: int = 5500
    split_after: float = 20 * 60
    attempts: int = 6
    idle: float = 5 * 60
    kept: float = 14 * 86_400


AWS = Limits()
DROPPED = "SQS drops what waits for 14 days: send them in parts."
"""What to say of exposures whose last would wait for longer than that."""
