"""Run the tests of the handler, and those of all modes, on localstack's S3 over TLS.

Then compare the bytes of every mode's product with those that moto's S3 holds, and let the probe say
what the server promises.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from infra.demo.local_aws import PRODUCTS
from tests.benchmark.servers import absolute, free_port
from tests.s3_matrix.server import Server, localstack

TESTS = ("tests/handler", "tests/scenarios/test_modes.py", "tests/scenarios/test_results.py")
BYTES = Path(__file__).parent / "test_bytes.py"


def on(server: Server, *command: str) -> int:
    """Run a command with that server as its S3."""
    environment = os.environ | {
        "S3_OF_TESTS": server.endpoint,
        "S3_OF_TESTS_CERTIFICATE": str(server.certificate),
        "AWS_CA_BUNDLE": str(server.certificate),
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return subprocess.run([sys.executable, "-m", *command], env=environment, check=False).returncode


def main() -> None:
    """Run all of it; the exit code is that of what failed first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--localstack", type=absolute, required=True, help="its interpreter")
    arguments = parser.parse_args()
    with localstack(arguments.localstack, free_port()) as server:
        print(f"localstack's S3 at {server.endpoint}", flush=True)
        # One process: the tests share the server's buckets.
        tests = ("pytest", "-n", "0", *TESTS, str(BYTES))
        failed = on(server, *tests)
        on(server, "infra", "probe", f"s3://{PRODUCTS}/probe")
    print(
        "Ceph's gateway: skipped, for it is in no package index; S3_OF_TESTS=http://... has the "
        "same tests run on any S3 that runs already"
    )
    sys.exit(failed)


if __name__ == "__main__":
    main()
