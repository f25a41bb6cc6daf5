"""Build the deployment package, report its size, or print the path of a Python like Lambda's.

``python -m infra.bundle build|report|python``
"""

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

MB = 1_000_000
# Lambda's limits are 250 MB unzipped and 50 MB for direct uploads of a .zip file:
# docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html (sam deploys by way of S3)
BUDGET, ZIPPED_BUDGET = 200 * MB, 60 * MB
_NO_PYTHON = f"Python {PYTHON}: not found on this machine (TARGET_PYTHON can name it)."


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m infra.bundle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="build the bundle (sam build calls this)")
    command.add_argument("--architecture", choices=ARCHITECTURES, required=True)
    command.add_argument("--into", type=Path, default=os.environ.get("ARTIFACTS_DIR"))
    command.add_argument("--with", dest="packages", nargs="*", default=[], help="more packages")
    command.add_argument("--reprocess", action="store_true", help="with what infra/reprocess needs")
    commands.add_parser("python", help=f"print the path of a Python {PYTHON}")
    commands.add_parser("report", help="print the size by package").add_argument(
        "bundle", type=Path
    )
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            lock = REPROCESS_LOCK if arguments.reprocess else LOCK
            if not build(arguments.architecture, arguments.into, arguments.packages, lock):
                print(
                    f"{_NO_PYTHON} The modules are not compiled, and every cold start will take "
                    "two seconds longer.",
                    file=sys.stderr,
                )
        elif arguments.command == "python":
            print(target_python() or sys.exit(f"{_NO_PYTHON} It is needed to run the bundle."))
        else:
            report(arguments.bundle)
    except FileNotFoundError as exc:
        sys.exit(f"infra.bundle: {exc}")


@dataclass(frozen=True)
class Sizes:
    """Bytes of a bundle: of each file or folder at its top, and of its .zip archive."""

    packages: Counter[str]
    zipped: int

    @property
    def is_within_budget(self) -> bool:
        """Whether Lambda accepts it, with a margin."""
        return self.packages.total() <= BUDGET and self.zipped <= ZIPPED_BUDGET


def measure(bundle: Path) -> Sizes:
    """Measure a bundle."""
    packages: Counter[str] = Counter()
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(bundle.rglob("*")):
            if path.is_file():
                name = path.relative_to(bundle)
                packages[name.parts[0]] += path.stat().st_size
                packed.write(path, name)
    return Sizes(packages, archive.getbuffer().nbytes)


def report(bundle: Path) -> None:
    """Print the sizes; exit with 1 if they exceed the budget."""
    sizes = measure(bundle)
    unzipped = sizes.packages.total()
    table = Table(title=f"Bundle {__version__} in {bundle}", header_style="bold")
    table.add_column("Package")
    table.add_column("MB", justify="right")
    large = [(name, size) for name, size in sizes.packages.most_common() if size >= MB]
    for name, size in large:
        table.add_row(name, f"{size / MB:.1f}")
    rest = unzipped - sum(size for _, size in large)
    table.add_row(f"{len(sizes.packages) - len(large)} others", f"{rest / MB:.1f}")
    table.add_section()
    table.add_row(f"unzipped (budget {BUDGET // MB})", f"{unzipped / MB:.1f}")
    table.add_row(f"zipped (budget {ZIPPED_BUDGET // MB})", f"{sizes.zipped / MB:.1f}")
    console = Console()
    console.print(table)
    console.print(f"SHA-256 of its files: {digest(bundle)}")
    if not sizes.is_within_budget:
        sys.exit("the bundle is over its budget")


if __name__ == "__main__":
    main()
