"""EventBridge notifications of a bucket."""

from typing import Any

__all__ = ["enable_events", "sends_events"]

_EVENTBRIDGE = "EventBridgeConfiguration"


def sends_events(s3: Any, bucket: str) -> bool:
    """Say whether a bucket sends its events to EventBridge."""
    return _EVENTBRIDGE in s3.get_bucket_notification_configuration(Bucket=bucket)


def enable_events(s3: Any, bucket: str) -> None:
    """Make a bucket send its events to EventBridge, and keep its other notifications.

    S3 replaces the whole configuration, and would validate every destination in it, also one that
    was deleted long ago (PutBucketNotificationConfiguration in the API reference of S3).
    """
    found = s3.get_bucket_notification_configuration(Bucket=bucket)
    others = {name: value for name, value in found.items() if name != "ResponseMetadata"}
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={**others, _EVENTBRIDGE: {}},
        SkipDestinationValidation=True,
    )
