"""The ``dq_init`` step itself: arrays and headers in, arrays and a layout out.

Nothing here imports an AWS package, opens a file or socket, or keeps state between calls.
"""

__version__ = "0.2.0"
SOFTWARE = "jwst-dq-init-lambda"
EQUALS_JWST = "3.0.0"
"""The version of `jwst` whose `dq_init` products the products of this package equal."""
