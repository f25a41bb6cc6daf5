"""Keys of the files in a CRDS mirror, which is laid out as a CRDS cache.

config/jwst/mirror.json                        state of the mirror; a plain copy of a cache has none
config/jwst/server_config                      configuration as CRDS writes it
mappings/jwst/jwst_1321.pmap                   mappings: contexts, instruments, reference types
references/jwst/nircam/jwst_nircam_mask_0033.fits
references/jwst/jwst_nircam_mask_0033.fits     the same file in a flat mirror

Names come from mappings and servers. Each is checked here before it becomes a key or a path.
"""

import re

from core.errors import ReferenceUnavailable
from handler.references.lean_crds import CRDS_NAME_RE_STR

__all__ = [
    "CONFIG",
    "MAPPINGS",
    "REFERENCES",
    "STATE",
    "check_context",
    "check_instrument",
    "check_mapping",
    "check_reference",
    "key_of",
    "mapping_key",
    "reference_keys",
]

CONFIG, STATE = "config/jwst/server_config", "config/jwst/mirror.json"
MAPPINGS, REFERENCES = "mappings/jwst/", "references/jwst/"

# The patterns of crds.core.config, which matches names only from their beginning.
_CONTEXT = re.compile(r"jwst(_\d{4,})?\.pmap", re.ASCII)
_MAPPING = re.compile(rf"(?=jwst[_.]){CRDS_NAME_RE_STR}[pir]map", re.ASCII)
_REFERENCE = re.compile(rf"(?=jwst_){CRDS_NAME_RE_STR}(fits|asdf|json|yaml)", re.ASCII)
_INSTRUMENT = re.compile(r"[a-z][a-z0-9]{1,16}", re.ASCII | re.IGNORECASE)


def check_context(name: object) -> str:
    """Return the name of a context, or raise `ReferenceUnavailable` if it is not one."""
    return _checked(name, _CONTEXT, "a context such as jwst_1321.pmap")


def check_mapping(name: object) -> str:
    """Return the name of a mapping, or raise `ReferenceUnavailable` if it is not one."""
    if isinstance(name, str) and _CONTEXT.fullmatch(name):
        return name
    return _checked(name, _MAPPING, "the name of a CRDS mapping")


def check_reference(name: object) -> str:
    """Return the name of a reference file, or raise `ReferenceUnavailable` if it is not one."""
    return _checked(name, _REFERENCE, "the name of a CRDS reference file")


def check_instrument(name: object) -> str:
    """Return the name of an instrument, or raise `ReferenceUnavailable` if it is not one."""
    return _checked(name, _INSTRUMENT, "the name of an instrument")


def mapping_key(name: str) -> str:
    """Return the key of a mapping, below the mirror's prefix."""
    return f"{MAPPINGS}{check_mapping(name)}"


def reference_keys(name: str, instrument: str) -> tuple[str, str]:
    """Return the keys that a reference file may have: in its instrument's folder, and flat.

    Parameters
    ----------
    name : str
        File name.
    instrument : str
        INSTRUME, in any case.

    Raises
    ------
    ReferenceUnavailable
        If one of them is not a name that CRDS gives.
    """
    check_reference(name)
    return f"{REFERENCES}{check_instrument(instrument).lower()}/{name}", f"{REFERENCES}{name}"


def key_of(name: str, instrument: str) -> str:
    """Return the key of a file as `mirror sync` writes it; mappings have no instrument."""
    return mapping_key(name) if name.endswith("map") else reference_keys(name, instrument)[0]


def _checked(name: object, pattern: re.Pattern[str], expected: str) -> str:
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise ReferenceUnavailable(f"{str(name)[:100]!r}: expected {expected}")
    return name
