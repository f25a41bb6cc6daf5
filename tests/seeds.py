"""Seeds of random tests: a few in ``make test``, more in ``make fuzz``."""

import os


def seeds(few: int) -> range:
    """Return `few` seeds, or as many as the environment variable ``TEST_SEEDS`` says."""
    return range(int(os.environ.get("TEST_SEEDS", few)))
