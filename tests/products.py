"""Comparison of products that were built at different times or in another form."""

from core.in_memory import render
from core.virtual import unpack

_LENGTH = len("2026-11-28T00:00:00.000")


def undated(product: bytes) -> bytes:
    """Return a product without the value of DATE."""
    start = product.index(b"DATE    = '") + len(b"DATE    = '")
    return product[:start] + product[start + _LENGTH :]


def expand(product: bytes, exposure: bytes) -> bytes:
    """Return the assembled product of a virtual one."""
    return render(unpack(product, "x")[0], exposure)
