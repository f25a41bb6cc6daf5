"""What AWS charges: us-east-1, USD, as its public pages said on 2026-11-25.

https://aws.amazon.com/s3/pricing, /lambda/pricing, /sqs/pricing, /eventbridge/pricing,
/cloudwatch/pricing, /xray/pricing. What is free in a month or for a new account is not taken off.
"""

from dataclasses import dataclass

__all__ = ["DATE", "PRICES", "Prices"]

DATE = "2026-11-25"
_MILLION = 1e6


@dataclass(frozen=True)
class Prices:
    """USD for one of each.

    Attributes
    ----------
    put, get : float
        A PUT-class (PUT, COPY, POST, LIST) and a GET-class request of S3.
    gigabyte_second, invocation : float
        Of Lambda on arm64.
    message : float
        A request to SQS.
    event : float
        A custom event of EventBridge.
    logged_gigabyte : float
        Taken in by CloudWatch Logs.
    trace : float
        Recorded by X-Ray.
    metric, alarm, dashboard : float
        Of CloudWatch, for a month.
    """

    put: float = 0.005 / 1000
    get: float = 0.0004 / 1000
    gigabyte_second: float = 0.0000133334
    invocation: float = 0.20 / _MILLION
    message: float = 0.40 / _MILLION
    event: float = 1.00 / _MILLION
    logged_gigabyte: float = 0.50
    trace: float = 5.00 / _MILLION
    metric: float = 0.30
    alarm: float = 0.10
    dashboard: float = 3.00


PRICES = Prices()
