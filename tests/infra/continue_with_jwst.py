"""Run a block of docs/laptop.md in jwst's interpreter: continue_with_jwst.py CONFORMANCE BLOCK.

The steps get references that are made here, instead of those of CRDS.
"""

import logging
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
sys.path.insert(0, sys.argv[1])
import detector_pipeline  # noqa: E402  # tests/conformance
from jwst.stpipe import Step  # noqa: E402

REFERENCES = detector_pipeline.references_of(Path())  # of exposure_uncal.fits
Step.get_reference_file = lambda _, model, kind: REFERENCES.get(kind, "N/A")
Step.prefetch_references = False
exec(Path(sys.argv[2]).read_text())  # noqa: S102
