"""The bundle: ``python -m infra.bundle build|report|python``."""

import argparse
import os
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core import __version__
from infra.bundle.build import (
    ARCHITECTURES,
    LOCK,
    PYTHON,
    REPROCESS_LOCK,
    build,
    digest,
    target_python,
)

__all__ = [
    "BUDGET",
    "ZIPPED_BUDGET",
    "Sizes",
    "measure",
]

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


_NO_PYTHON = f"There is no Python {PYTHON} on this machine (TARGET_PYTHON can name one)."


def main() -> None:
    """Run one of the commands; what a person can fix is one line."""
    try:
        _run()
    except FileNotFoundError as exc:
        sys.exit(f"infra.bundle: {exc}")


def _run() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.bundle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build", help="make the bundle (sam build calls this)")
    making.add_argument("--architecture", choices=ARCHITECTURES, required=True)
    making.add_argument("--into", type=Path, default=os.environ.get("ARTIFACTS_DIR"))
    making.add_argument("--with", dest="packages", nargs="*", default=[], help="more packages")
    making.add_argument("--reprocess", action="store_true", help="with what infra/reprocess needs")
    commands.add_parser("python", help="print where the Python that Lambda runs lies here")
    showing = commands.add_parser("report", help="print its size by package")
    showing.add_argument("bundle", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "build":
        lock = REPROCESS_LOCK if arguments.reprocess else LOCK
        if not build(arguments.architecture, arguments.into, arguments.packages, lock):
            print(
                f"{_NO_PYTHON} The modules are not compiled, and every cold start will take "
                "two seconds longer.",
                file=sys.stderr,
            )
    elif arguments.command == "python":
        print(target_python() or sys.exit(f"{_NO_PYTHON} What runs the bundle needs it."))
    else:
        report(arguments.bundle)


def report(bundle: Path) -> None:
    """Print the sizes; exit with 1 if they are over the budget."""
    sizes = measure(bundle)
    table = Table(title=f"Bundle {__version__} in {bundle}", header_style="bold")
    table.add_column("Package")
    table.add_column("MB", justify="right")
    large = [(name, size) for name, size in sizes.packages.most_common() if size >= MB]
    for name, size in large:
        table.add_row(name, f"{size / MB:.1f}")
    rest = sizes.unzipped - sum(size for _, size in large)
    table.add_row(f"{len(sizes.packages) - len(large)} others", f"{rest / MB:.1f}")
    table.add_section()
    table.add_row(f"unzipped (budget {BUDGET // MB})", f"{sizes.unzipped / MB:.1f}")
    table.add_row(f"zipped (budget {ZIPPED_BUDGET // MB})", f"{sizes.zipped / MB:.1f}")
    console = Console()
    console.print(table)
    console.print(f"SHA-256 of its files: {digest(bundle)}")
    if not sizes.is_within_budget:
        sys.exit("the bundle is over its budget")


if __name__ == "__main__":
    main()
