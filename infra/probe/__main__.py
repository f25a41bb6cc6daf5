"""Find out, by trying, whether an S3 keeps the promises that the function relies on.

``python -m infra probe s3://bucket/prefix`` writes some 100 MB below the prefix, and removes them.
Another server than AWS's is named by AWS_ENDPOINT_URL_S3 (and AWS_CA_BUNDLE).
"""

import json
import sys
import uuid

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table

from handler.function import PATIENT, client
from handler.s3.locations import S3Location
from infra.probe.promises import Promise, Scratch, tried
from infra.terminal import Mistake, parser_of

__all__ = ["main"]


def main(words: list[str]) -> None:
    """Try every promise; the exit code is 1 if one is not kept."""
    parser = parser_of("probe", __doc__)
    parser.add_argument(
        "place", type=S3Location.parse_prefix, help="s3://bucket/prefix to write to"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    arguments = parser.parse_args(words)
    place = arguments.place
    scratch = Scratch(place.below(f"probe-{uuid.uuid4().hex[:8]}"), client("s3", PATIENT))
    try:
        scratch.client.head_bucket(Bucket=place.bucket)
    except (ClientError, BotoCoreError) as exc:
        raise Mistake(f"{place}: cannot be reached: {exc}") from exc
    found = []
    try:
        for promise, is_kept, reason in tried(scratch):
            found.append((promise, is_kept, reason))
            if not arguments.json:
                print(f"{'kept    ' if is_kept else 'NOT KEPT'}  {promise.name}", flush=True)
    finally:
        scratch.remove()
    (_as_json if arguments.json else _explain)(found)
    sys.exit(0 if all(is_kept for _, is_kept, _ in found) else 1)


def _as_json(found: list[tuple[Promise, bool, str]]) -> None:
    rows = [
        {"promise": promise.name, "kept": is_kept, "otherwise": promise.otherwise, "reason": reason}
        for promise, is_kept, reason in found
    ]
    print(json.dumps(rows, indent=2))


def _explain(found: list[tuple[Promise, bool, str]]) -> None:
    """Say what breaks by what is not kept."""
    broken = [(promise, reason) for promise, is_kept, reason in found if not is_kept]
    if not broken:
        print(f"all {len(found)} promises are kept")
        return
    table = Table(title="What that breaks", header_style="bold")
    for heading in ("Not kept", "So", "It answered"):
        table.add_column(heading, overflow="fold")
    for promise, reason in broken:
        table.add_row(promise.name, promise.otherwise, reason or "as if it were right")
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
