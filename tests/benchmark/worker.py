"""The function in a process: one line of JSON in, one line of JSON out.

In comes an event; out goes the detail, and what the invocation cost this process.
"""

import json
import os
import resource
import sys
import time
import uuid
from types import SimpleNamespace


def context() -> SimpleNamespace:
    """The context of an invocation; each has an id of its own."""
    return SimpleNamespace(
        aws_request_id=uuid.uuid4().hex,
        function_name="dq-init",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:dq-init",
        get_remaining_time_in_millis=lambda: 900_000,
    )


def peak_mib() -> float:
    """Return the peak memory of this process; getrusage would include its parent's."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Process events until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # standard output is for results only

    from handler import app  # noqa: PLC0415  # imports are part of a cold start

    app.services_from_environment()
    if "BENCH_LEAST_GAIN" in os.environ:  # set by tests.benchmark.blocks
        app.services_from_environment().blocks.min_repeated_bytes = int(
            os.environ["BENCH_LEAST_GAIN"]
        )
    for line in sys.stdin:
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        detail = app.lambda_handler(json.loads(line), context())
        after, stop = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        cost = {
            "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "seconds": stop - start,
            "peak_mib": peak_mib(),
        }
        answers.write(json.dumps({"detail": detail, "cost": cost}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
