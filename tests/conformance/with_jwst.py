"""Run by jwst's own interpreter: `DQInitStep` on each case, and the comparison.

Usage: with_jwst.py run FOLDER | compare FOLDER
"""

import logging
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)


def run(folder: Path) -> None:
    """Make jwst's product of every case, or note why it refuses."""
    from jwst.dq_init import DQInitStep
    from jwst.stpipe import Step

    # Without this, every call asks the CRDS server for parameters of the step.
    Step.get_config_from_reference = classmethod(lambda cls, *a, **k: {})
    for case in sorted(path.parent for path in folder.glob("*/case.json")):
        mask = case / "mask.fits"
        user = case / "user_dq.fits"
        try:
            step = DQInitStep()
            step.override_mask = str(mask) if mask.exists() else "N/A"
            step.user_supplied_dq = str(user) if user.exists() else None
            result = step.run(str(case / "exposure_uncal.fits"))
            result.save(str(case / "jwst.fits"))
            result.close()
        except Exception as exc:
            (case / "jwst.refused").write_text(f"{type(exc).__name__}: {exc}")


if __name__ == "__main__":
    {"run": run}[sys.argv[1]](Path(sys.argv[2]))
