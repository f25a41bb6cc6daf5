"""Where things lie in a CRDS mirror, which is laid out as a CRDS cache.

config/jwst/server_config                      what the mirror holds, and what latest means
mappings/jwst/jwst_1321.pmap                   rules: contexts, instruments, reference types
references/jwst/nircam/jwst_nircam_mask_0033.fits
references/jwst/jwst_nircam_mask_0033.fits     the same in a flat mirror
"""

__all__ = ["CONFIG", "MAPPINGS", "REFERENCES", "key_of", "mapping_key", "reference_keys"]

CONFIG = "config/jwst/server_config"
MAPPINGS, REFERENCES = "mappings/jwst/", "references/jwst/"


def mapping_key(name: str) -> str:
    """Return the key of a rule file, below the mirror's prefix."""
    return f"{MAPPINGS}{name}"


def reference_keys(name: str, instrument: str) -> tuple[str, str]:
    """Return the keys that a reference file may have: in its instrument's folder, and flat.

    Parameters
    ----------
    name : str
        File name.
    instrument : str
        INSTRUME, in any case.
    """
    return f"{REFERENCES}{instrument.lower()}/{name}", f"{REFERENCES}{name}"


def key_of(name: str, instrument: str) -> str:
    """Return the key of a file as a sync writes it; rule files have no instrument."""
    return mapping_key(name) if name.endswith("map") else reference_keys(name, instrument)[0]
