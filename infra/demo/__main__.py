"""The demo: ``python -m infra.demo``."""

import sys

from infra.cli import how_to_install

if __name__ == "__main__":
    try:
        # Imported here, because an interrupt or a missing package can end the import, too.
        from infra.demo.demo import main

        main()
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; run it again to start from the beginning")
    except ModuleNotFoundError as exc:
        sys.exit(f"demo: {how_to_install(exc)}")
