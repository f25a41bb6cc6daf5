"""A bucket that was there before is made to tell of uploads, and keeps telling others.

moto forgets that a bucket tells EventBridge; tests/e2e/test_other_buckets.py sees the whole.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from infra.__main__ import main
from infra.demo.local_aws import RAW, LocalAws
from infra.listen.notifications import is_told
from tests.infra.stacks import stack_of_outputs

NAME = "listening"


@pytest.fixture
def before(aws: LocalAws) -> Iterator[Any]:
    """What the bucket told before; it does so again afterwards."""
    s3 = aws.client("s3")
    found = s3.get_bucket_notification_configuration(Bucket=RAW)
    del found["ResponseMetadata"]
    with stack_of_outputs(aws, NAME, ()):
        yield found
    s3.put_bucket_notification_configuration(Bucket=RAW, NotificationConfiguration=found)


def test_it_asks_and_leaves_the_other_notifications_alone(
    aws: LocalAws, before: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    s3 = aws.client("s3")
    assert before["QueueConfigurations"]
    assert not is_told(s3, RAW)
    with pytest.raises(SystemExit, match="nothing was changed"):
        main(["listen", "--stack", NAME])
    main(["listen", "--stack", NAME, "--yes"])
    assert "tells EventBridge now" in capsys.readouterr().out
    after = s3.get_bucket_notification_configuration(Bucket=RAW)
    assert after["QueueConfigurations"] == before["QueueConfigurations"]
