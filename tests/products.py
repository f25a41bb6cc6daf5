"""Comparison of products that were built at different times."""

_LENGTH = len("2026-11-28T00:00:00.000")


def undated(product: bytes) -> bytes:
    """Return a product without the value of DATE."""
    start = product.index(b"DATE    = '") + len(b"DATE    = '")
    return product[:start] + product[start + _LENGTH :]
