"""The masks of a mirror, to look at."""

from core.mask import Mask
from handler.references.keys import key_of
from infra.mirror.bucket import Mirror

__all__ = ["mask_in"]


def mask_in(mirror: Mirror, name: str, instrument: str) -> Mask:
    """Fetch a mask.

    Raises
    ------
    ReferenceUnavailable
        If it is not there, or is no mask.
    """
    return Mask.from_bytes(mirror.get(key_of(name, instrument)), name)
