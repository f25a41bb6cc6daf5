"""Build the bundle, print its size by package, or print the path of Lambda's Python version.

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
_NO_PYTHON = f"Python {PYTHON}: not found on this machine; install it, or name it in TARGET_PYTHON."


def main() -> None:
    """Build a bundle, report its sizes or print a Python's path, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m infra.bundle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="build the bundle (sam build calls this)")
    command.add_argument("--architecture", choices=ARCHITECTURES, required=True)
    into = os.environ.get("ARTIFACTS_DIR")
    command.add_argument("--into", type=Path, default=into, required=into is None)
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
                effect = "The modules are not compiled, which adds 2 s to every cold start."
                print(f"infra.bundle: {_NO_PYTHON} {effect}", file=sys.stderr)
        elif arguments.command == "python":
            print(target_python() or sys.exit(f"infra.bundle: {_NO_PYTHON}"))
        else:
            report(arguments.bundle)
    except FileNotFoundError as exc:
        sys.exit(f"infra.bundle: {exc}")


@dataclass(frozen=True)
class Sizes:
    """Sizes of a bundle in bytes: of each package (file or folder at its top), and as .zip."""

    packages: Counter[str]
    zipped: int

    @property
    def is_within_budget(self) -> bool:
        """Whether the total is at most `BUDGET` unzipped and `ZIPPED_BUDGET` as .zip."""
        return self.packages.total() <= BUDGET and self.zipped <= ZIPPED_BUDGET


def measure(bundle: Path) -> Sizes:
    """Return the sizes of a bundle in a folder."""
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
    """Print sizes and SHA-256 of a bundle; exit with 1 if it is not `is_within_budget`."""
    sizes = measure(bundle)
    unzipped = sizes.packages.total()
    rows = {name: size for name, size in sizes.packages.most_common() if size >= MB}
    rows[f"{len(sizes.packages) - len(rows)} others"] = unzipped - sum(rows.values())
    rows |= {"unzipped": unzipped, "zipped": sizes.zipped}
    print(f"Bundle {__version__} in {bundle}")
    for name, size in rows.items():
        print(f"{size / MB:8.1f} MB  {name}")
    print(f"SHA-256 of its files: {digest(bundle)}")
    if not sizes.is_within_budget:
        limits = f"{BUDGET // MB} MB unzipped and {ZIPPED_BUDGET // MB} MB zipped"
        sys.exit(f"infra.bundle: {bundle}: too large, expected at most {limits}")


if __name__ == "__main__":
    main()
