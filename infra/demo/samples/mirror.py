"""A CRDS cache of the project's own: rules in CRDS's syntax, masks, and the server's configuration.

The rules match on what the real ones match on: detector and subarray, for NIRSpec the readout
pattern too, for FGS the exposure type; each chooses by the date of the observation.
"""

import hashlib
import pprint
from collections.abc import Iterable, Mapping
from pathlib import Path

from crds.client import proxy
from crds.core import utils

from infra.demo.samples.masks import MASKS, SampleMask, write_mask

__all__ = ["CONTEXT", "RULES", "Rules", "write_rules", "write_sample_mirror", "write_server_config"]

CONTEXT = "jwst_9001.pmap"

_DATE = ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")
_PLACE = ("META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME")
_EARLY, _LATE = "1999-01-01 00:00:00", "2022-01-01 00:00:00"

Rules = Mapping[str, tuple[tuple[str, ...], Mapping[tuple[tuple[str, ...], str], int]]]
"""For each instrument: what its rules match on, and (values, date) -> number of the mask."""

RULES: Rules = {
    "nircam": (
        _PLACE,
        {(("NRCA1", "GENERIC"), _LATE): 9001, (("NRCB1", "GENERIC"), _LATE): 9002},
    ),
    "niriss": (
        _PLACE,
        {(("NIS", "GENERIC"), _LATE): 9001, (("NIS", "SUB80"), _LATE): 9002},
    ),
    "nirspec": (
        (*_PLACE, "META.EXPOSURE.READPATT"),
        {
            (("NRS1", "GENERIC", "N/A"), _LATE): 9001,
            (("NRS1", "FULL", "NRSIRS2|NRSIRS2RAPID"), _LATE): 9002,
        },
    ),
    "miri": (
        _PLACE,
        {(("MIRIMAGE", "GENERIC"), _EARLY): 9001, (("MIRIMAGE", "GENERIC"), _LATE): 9002},
    ),
    "fgs": (
        (*_PLACE, "META.EXPOSURE.TYPE"),
        {
            (("GUIDER1", "GENERIC", "N/A"), _LATE): 9001,
            (("GUIDER1", "GENERIC", "FGS_ID-STACK"), _LATE): 9002,
        },
    ),
}


def write_sample_mirror(root: Path, masks: Iterable[SampleMask] = MASKS) -> None:
    """Write a whole CRDS cache: mappings, references and server configuration.

    Parameters
    ----------
    root : `pathlib.Path`
        The cache's directory, as CRDS_PATH names it.
    masks : iterable of `~infra.demo.samples.masks.SampleMask`
        The masks to make; the rules may name more.
    """
    write_rules(root)
    for mask in masks:
        write_mask(mask, root / "references" / "jwst" / mask.instrument.lower() / mask.name)
    write_server_config(root)


def write_rules(root: Path, context: str = CONTEXT, rules: Rules = RULES) -> None:
    """Write the rules of a context: one pipeline mapping, and two files per instrument."""
    folder = root / "mappings" / "jwst"
    folder.mkdir(parents=True, exist_ok=True)
    number = context.removeprefix("jwst_").removesuffix(".pmap")
    instruments = {}
    for instrument, (parameters, choices) in rules.items():
        name = f"jwst_{instrument}_mask_{number}.rmap"
        _write_mapping(folder / name, *_reference_mapping(instrument, parameters, choices))
        instruments[instrument.upper()] = f"jwst_{instrument}_{number}.imap"
        _write_mapping(
            folder / instruments[instrument.upper()],
            {"mapping": "INSTRUMENT", "instrument": instrument.upper(), "parkey": ("REFTYPE",)},
            pprint.pformat({"MASK": name, "DARK": "N/A", "FLAT": "N/A"}),
        )
    # Real contexts name a SYSTEM mapping, which has no rules for MASK.
    instruments["SYSTEM"] = f"jwst_system_{number}.imap"
    _write_mapping(
        folder / instruments["SYSTEM"],
        {"mapping": "INSTRUMENT", "instrument": "SYSTEM", "parkey": ("REFTYPE",)},
        pprint.pformat({"CALVER": "N/A", "DATALVL": "N/A"}),
    )
    header: dict[str, object] = {"mapping": "PIPELINE", "parkey": ("META.INSTRUMENT.NAME",)}
    _write_mapping(folder / context, header, pprint.pformat(instruments))


def write_server_config(
    root: Path, context: str = CONTEXT, bad_files: tuple[str, ...] = ()
) -> None:
    """Write ``config/jwst/server_config``: the operational context, and a catalogue of all files.

    Parameters
    ----------
    root : `pathlib.Path`
        The cache's directory; what lies in it goes into the catalogue.
    context : str
        The operational context.
    bad_files : tuple of str
        Names that the server lists as bad.
    """
    files = [path for path in sorted(root.glob("*/jwst/**/*map")) if path.is_file()]
    files += sorted(root.glob("references/jwst/**/*.fits"))
    catalogue = {
        path.name: {"size": str(path.stat().st_size), "sha1sum": _sha1(path)} for path in files
    }
    config = {
        "bad_files_list": list(bad_files),
        "connected": True,
        "context_history": [[_LATE, context, "Samples"]],
        "crds_version": {"str": "sample"},
        "download_metadata": proxy.crds_encode(catalogue),
        "edit_context": context,
        "force_remote_mode": 0,
        "last_synced": _LATE,
        "mapping_url": {"jwst": "https://crds.invalid/mappings/jwst/"},
        "mappings": [path.name for path in files if path.suffix.endswith("map")],
        "observatory": "jwst",
        "operational_context": context,
        "reference_url": {"jwst": "https://crds.invalid/references/jwst/"},
        "status": "server",
        "versions_context": context,
    }
    path = root / "config" / "jwst" / "server_config"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pprint.pformat(config))


def _reference_mapping(
    instrument: str,
    parameters: tuple[str, ...],
    choices: Mapping[tuple[tuple[str, ...], str], int],
) -> tuple[dict[str, object], str]:
    """Header and selector of a mapping for MASK."""
    header: dict[str, object] = {
        "classes": ("Match", "UseAfter"),
        "filekind": "MASK",
        "instrument": instrument.upper(),
        "mapping": "REFERENCE",
        "parkey": (parameters, _DATE),
        "substitutions": {"META.SUBARRAY.NAME": {"GENERIC": "N/A"}},
    }
    matches: dict[tuple[str, ...], list[str]] = {}
    for (values, date), number in choices.items():
        line = f"        {date!r} : 'jwst_{instrument}_mask_{number}.fits',\n"
        matches.setdefault(values, []).append(line)
    body = "".join(
        f"    {values!r} : UseAfter({{\n{''.join(lines)}    }}),\n"
        for values, lines in matches.items()
    )
    return header, f"Match({{\n{body}}})"


def _write_mapping(path: Path, header: dict[str, object], selector: str) -> None:
    """Write a mapping, signed as `crds` signs them: by the text without the signature's line."""
    common = {"derived_from": "generated", "name": path.name, "observatory": "JWST"}
    lines = [f"    {key!r} : {value!r},\n" for key, value in sorted((common | header).items())]
    before, after = f"header = {{\n{''.join(lines)}", f"}}\n\nselector = {selector}\n"
    signature = f"    'sha1sum' : {utils.str_checksum(before + after)!r},\n"
    path.write_text(before + signature + after)


def _sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
