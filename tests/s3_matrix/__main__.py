"""Run the tests of the handler on two other S3s: localstack's over TLS, and Ceph's gateway.

On localstack: the tests of the handler, of all modes and all results; on Ceph: those of assembly,
results, races and kills. On both, the product of every mode is compared with moto's, and every
guarantee is tried. A guarantee that a server does not keep (docs/reference/s3-servers.md) is printed and does not
fail the run.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from infra.demo.local_aws import isolated_environment
from tests.benchmark.servers import absolute, free_port
from tests.s3_matrix.ceph import CannotRun, ceph, install
from tests.s3_matrix.server import Server, localstack

GUARANTEES = "tests/s3_matrix/test_guarantees.py"
BYTES = "tests/s3_matrix/test_bytes.py"
ON_LOCALSTACK = (
    "tests/handler",
    "tests/scenarios/test_modes.py",
    "tests/scenarios/test_results.py",
    BYTES,
)
ASSEMBLY = "tests/handler/s3/test_assembly.py"
ON_CEPH = (
    ASSEMBLY,
    "tests/scenarios/test_results.py",
    "tests/scenarios/test_kills.py",
    BYTES,
    "tests/s3_matrix/test_races.py",
    # Ceph encrypts with KMS only what comes over TLS.
    f"--deselect={ASSEMBLY}::test_encrypted_buckets_work_with_part_copies",
)


def on(server: Server, *command: str) -> int:
    """Run a command that uses a server as S3."""
    places = dict.fromkeys(("S3_OF_TESTS", "AWS_ENDPOINT_URL_S3"), server.endpoint)
    environment = os.environ | places
    if server.certificate is not None:
        environment |= dict.fromkeys(
            ("S3_OF_TESTS_CERTIFICATE", "AWS_CA_BUNDLE"), str(server.certificate)
        )
    return subprocess.run([sys.executable, "-m", *command], env=environment, check=False).returncode


def tried(name: str, server: Server, tests: tuple[str, ...]) -> int:
    """Run tests and the trials of guarantees; return pytest's exit code of the tests."""
    print(f"{name} at {server.endpoint}", flush=True)
    # One process: the tests share the server's buckets.
    failed = on(server, "pytest", "-n", "0", *tests)
    on(server, "pytest", "-n", "0", "-rA", "--tb=no", GUARANTEES)  # printed, not asserted
    return failed


def main() -> None:
    """Run all tests; exit with the code of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--localstack", type=absolute, required=True, help="its interpreter")
    parser.add_argument("--ceph", type=absolute, required=True, help="where its packages go")
    arguments = parser.parse_args()
    with isolated_environment():
        failed = on_both(arguments.localstack, arguments.ceph)
    sys.exit(failed)


def on_both(interpreter: Path, packages: Path) -> int:
    """Run both servers, one after the other; return the exit code of the tests that failed."""
    with localstack(interpreter, free_port()) as server:
        failed = tried("localstack's S3", server, ON_LOCALSTACK)
    try:
        install(packages)
    except CannotRun as exc:
        print(f"Ceph's gateway: skipped, {exc}")
        return failed
    with ceph(packages) as server:
        return tried("Ceph's gateway", server, ON_CEPH) or failed


if __name__ == "__main__":
    main()
