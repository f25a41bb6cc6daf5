"""A bucket's notifications."""

from typing import Any

__all__ = ["is_told", "tell"]

_EVENTBRIDGE = "EventBridgeConfiguration"


def is_told(s3: Any, bucket: str) -> bool:
    """Say whether a bucket tells EventBridge of its events."""
    return _EVENTBRIDGE in s3.get_bucket_notification_configuration(Bucket=bucket)


def tell(s3: Any, bucket: str) -> None:
    """Have a bucket tell EventBridge; the others are sent again, for S3 replaces them all."""
    found = s3.get_bucket_notification_configuration(Bucket=bucket)
    others = {name: value for name, value in found.items() if name != "ResponseMetadata"}
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={**others, _EVENTBRIDGE: {}}
    )
