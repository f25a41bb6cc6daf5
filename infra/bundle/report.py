"""Size of the bundle by package, against the budget."""

import zipfile
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

__all__ = ["BUDGET", "ZIPPED_BUDGET", "Sizes", "measure"]

MB = 1_000_000
BUDGET, ZIPPED_BUDGET = 200 * MB, 60 * MB


@dataclass(frozen=True)
class Sizes:
    """Bytes of a bundle.

    Attributes
    ----------
    packages : `collections.Counter`
        Bytes of each directory or file at the top.
    zipped : int
        Bytes of the archive that is uploaded.
    """

    packages: Counter[str]
    zipped: int

    @property
    def unzipped(self) -> int:
        """Bytes of all files."""
        return self.packages.total()

    @property
    def is_within_budget(self) -> bool:
        """Whether Lambda would take it, with room left."""
        return self.unzipped <= BUDGET and self.zipped <= ZIPPED_BUDGET


def measure(bundle: Path) -> Sizes:
    """Add up a bundle.

    Parameters
    ----------
    bundle : `pathlib.Path`
        Its directory.
    """
    packages: Counter[str] = Counter()
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(bundle.rglob("*")):
            if path.is_file():
                name = path.relative_to(bundle)
                packages[name.parts[0]] += path.stat().st_size
                packed.write(path, name)
    return Sizes(packages, archive.tell())
