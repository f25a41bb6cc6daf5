"""A CRDS cache with sample rules and masks.

The rules match on the same parameters as real ones: detector and subarray, for NIRSpec the readout
pattern and for FGS the exposure type, too.
"""

import hashlib
import pprint
from collections.abc import Iterable, Mapping
from pathlib import Path

from crds.client import proxy
from crds.core import utils

from infra.demo.samples.masks import MASKS, SampleMask, write_mask

CONTEXT = "jwst_9001.pmap"

_DATE = ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")
_PLACE = ("META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME")
_EARLY, _LATE = "1999-01-01 00:00:00", "2022-01-01 00:00:00"

Rules = Mapping[str, tuple[tuple[str, ...], Mapping[tuple[tuple[str, ...], str], int]]]
"""By instrument: parameters to match on, and mask numbers by (values, USEAFTER date)."""

RULES: Rules = {
    "nircam": (_PLACE, {(("NRCA1", "GENERIC"), _LATE): 9001, (("NRCB1", "GENERIC"), _LATE): 9002}),
    "niriss": (_PLACE, {(("NIS", "GENERIC"), _LATE): 9001, (("NIS", "SUB80"), _LATE): 9002}),
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
    """Write mappings, references and server configuration; the rules may name more masks."""
    write_rules(root)
    for mask in masks:
        write_mask(mask, root / "references" / "jwst" / mask.instrument.lower() / mask.name)
    write_server_config(root)


def write_rules(root: Path, context: str = CONTEXT, rules: Rules = RULES) -> None:
    """Write a context: the pipeline mapping, and for each instrument its mapping and its rules."""
    folder = root / "mappings" / "jwst"
    folder.mkdir(parents=True, exist_ok=True)
    number = context.removeprefix("jwst_").removesuffix(".pmap")
    instruments = {}
    # Real contexts name a SYSTEM mapping, which has no rules for MASK.
    for instrument in (*rules, "system"):
        imap = instruments[instrument.upper()] = f"jwst_{instrument}_{number}.imap"
        names = {"CALVER": "N/A", "DATALVL": "N/A"}
        if instrument in rules:
            rmap = f"jwst_{instrument}_mask_{number}.rmap"
            _write_mapping(folder / rmap, *_reference_mapping(instrument, *rules[instrument]))
            names = {"MASK": rmap, "DARK": "N/A", "FLAT": "N/A"}
        header = {"mapping": "INSTRUMENT", "instrument": instrument.upper(), "parkey": ("REFTYPE",)}
        _write_mapping(folder / imap, header, pprint.pformat(names))
    pipeline = {"mapping": "PIPELINE", "parkey": ("META.INSTRUMENT.NAME",)}
    _write_mapping(folder / context, pipeline, pprint.pformat(instruments))


def write_server_config(
    root: Path, context: str = CONTEXT, bad_files: tuple[str, ...] = ()
) -> None:
    """Write ``config/jwst/server_config``, with a catalogue of all files in the cache."""
    files = [path for path in sorted(root.glob("*/jwst/**/*map")) if path.is_file()]
    files += sorted(root.glob("references/jwst/**/*.fits"))
    catalogue = {
        path.name: {
            "size": str(path.stat().st_size),
            "sha1sum": hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest(),
        }
        for path in files
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
    """Return header and selector of the rules for MASK."""
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


def _write_mapping(path: Path, header: Mapping[str, object], selector: str) -> None:
    # crds signs a mapping with the SHA-1 of its text without the line of the signature.
    common = {"derived_from": "generated", "name": path.name, "observatory": "JWST"}
    lines = [
        f"    {key!r} : {value!r},\n" for key, value in sorted((common | dict(header)).items())
    ]
    before, after = f"header = {{\n{''.join(lines)}", f"}}\n\nselector = {selector}\n"
    signature = f"    'sha1sum' : {utils.str_checksum(before + after)!r},\n"
    path.write_text(before + signature + after)
