"""Run the trial with a container engine, if there is one; print the image it used."""

import argparse
import sys

from tests.benchmark.servers import absolute
from tests.sam_local.engine import CannotRun, Engine, engine
from tests.sam_local.image import NAME, make_image, pulled


def main() -> None:
    """Run the trial; exit with its code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runtime", type=absolute, required=True, help="interpreter beside awslambdaric"
    )
    arguments = parser.parse_args()
    try:
        with engine() as running:
            if pulled(running):
                print(f"{NAME}: AWS's own image")
            else:
                make_image(running, arguments.runtime)
                print(f"{NAME}: no registry is reached; made of this machine's Python 3.13")
            sys.exit(_trial(running))
    except CannotRun as exc:
        print(f"sam local: skipped, {exc}")


def _trial(running: Engine) -> int:
    command = (sys.executable, "-m", "tests.sam_local.trial", "--skip-pull-image")
    return running.run(*command).returncode


if __name__ == "__main__":
    main()
