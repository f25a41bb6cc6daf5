"""Run code of the docs in the folder of an exposure, by jwst's own interpreter.

Usage: continue_with_jwst.py FOLDER < CODE
"""

import os
import sys
from pathlib import Path

import crds
from detector_pipeline import references_of  # beside this file

folder = Path(sys.argv[1])
os.chdir(folder)
references = references_of(folder) | {"mask": str(folder / "mask.fits")}


def _getreferences(_: object, reftypes: tuple[str, ...], **__: object) -> dict[str, str]:
    """Select the references that were made for the exposure, in place of CRDS."""
    return {kind: references.get(kind, "N/A") for kind in reftypes}


crds.getreferences = _getreferences
exec(sys.stdin.read(), {})  # noqa: S102  # the code of the page
