"""Two functions write one product at once, on a server that resolves such races.

Ceph does so in buckets without versioning (docs/reference/s3-servers.md).
"""

import threading
from typing import Any

import pytest

from handler.s3.assembly import Assembly
from infra.demo.local_aws import RAW
from tests.conftest import Harness

PLAIN = "products-without-versions"
ROUNDS = 8


@pytest.fixture
def plain(function: Harness) -> Harness:
    """The function, with products in a bucket that keeps no versions."""
    s3 = function.aws.client("s3")
    s3.create_bucket(Bucket=PLAIN)
    return function.with_settings(output_bucket=PLAIN, ledger=None)


@pytest.mark.parametrize("path", ["one PUT", "multipart"])
def test_of_two_writers_one_writes_and_both_publish(
    path: str, plain: Harness, exposure: bytes, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)
    original = Assembly.write

    def together(*arguments: Any) -> Any:
        both.wait(timeout=60)
        return original(*arguments)

    monkeypatch.setattr(Assembly, "write", together)
    s3 = plain.aws.client("s3")
    for number in range(ROUNDS):
        key = f"races/{path[:3]}{number}_uncal.fits"
        s3.put_object(Bucket=RAW, Key=key, Body=exposure if path == "one PUT" else large)
        details: list[dict[str, Any]] = []
        threads = [
            threading.Thread(target=lambda: details.append(plain.run(key)))  # noqa: B023
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [detail["status"] for detail in details] == ["Complete", "Complete"]
        (identifier,) = {detail["id"] for detail in details}
        published = {d["id"] for d in plain.announcements() if d["output"]["bucket"] == PLAIN}
        assert published == {identifier}, "the other function publishes the same result"
        assert "Uploads" not in s3.list_multipart_uploads(Bucket=PLAIN)
