"""The step of jwst on local files, run by jwst's own interpreter.

Usage: with_jwst.py step INPUT OUTPUT TIMES | compare OURS THEIRS
"""

import json
import logging
import resource
import sys
import time
import warnings

STARTED = time.perf_counter()
warnings.simplefilter("ignore")


def peak_mib() -> float:
    """Return the peak memory of this process; getrusage would include its parent's."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def step(path: str, output: str, times: int) -> None:
    """Run the step several times in one process; print time and memory of each run."""
    from jwst.dq_init import DQInitStep

    logging.disable(logging.CRITICAL)
    # The step would request parameters from the CRDS server.
    DQInitStep.get_config_from_reference = classmethod(lambda cls, *a, **k: {})
    costs = []
    for _ in range(times):
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        result = DQInitStep().run(path)
        result.save(output, overwrite=True)
        result.close()
        after, stop = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        costs.append(
            {
                "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "seconds": stop - start,
                "since_start": stop - STARTED,
                "peak_mib": peak_mib(),
            }
        )
    print(json.dumps(costs))


def compare(ours: str, theirs: str) -> None:
    """Print the names of the arrays and keywords in which two products differ."""
    import numpy as np
    from stdatamodels.jwst import datamodels

    logging.disable(logging.CRITICAL)
    different = []
    with datamodels.open(ours) as a, datamodels.open(theirs) as b:
        if type(a) is not type(b):
            different.append(f"{type(a).__name__} is not {type(b).__name__}")
        for name in ("data", "pixeldq", "groupdq", "zeroframe"):
            x, y = getattr(a, name, None), getattr(b, name, None)
            if (x is None) != (y is None) or (x is not None and not np.array_equal(x, y)):
                different.append(name)
        first, second = (m.to_flat_dict(include_arrays=False) for m in (a, b))
        exempt = {
            "date",
            "filename",
            "calibration_software_version",
            "calibration_software_revision",
        }
        for key in sorted(set(first) | set(second)):
            judged = key.startswith("meta.") and key.removeprefix("meta.") not in exempt
            if judged and first.get(key) != second.get(key):
                different.append(key)
    print(json.dumps(different))


if __name__ == "__main__":
    if sys.argv[1] == "step":
        step(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        compare(sys.argv[2], sys.argv[3])
