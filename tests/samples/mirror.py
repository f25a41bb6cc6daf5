"""A CRDS cache with sample rules and masks.

The rules match on the same parameters as real ones: detector and subarray, for NIRSpec the readout
pattern and for FGS the exposure type, too.
"""

import pprint
from collections.abc import Iterable, Mapping
from pathlib import Path

from infra.demo.samples import CONTEXT, write_mapping, write_server_config
from tests.samples.masks import MASKS, SampleMask, write_mask

__all__ = ["CONTEXT", "RULES", "Rules", "write_rules", "write_sample_mirror", "write_server_config"]

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
            write_mapping(folder / rmap, *_reference_mapping(instrument, *rules[instrument]))
            names = {"MASK": rmap, "DARK": "N/A", "FLAT": "N/A"}
        header = {"mapping": "INSTRUMENT", "instrument": instrument.upper(), "parkey": ("REFTYPE",)}
        write_mapping(folder / imap, header, pprint.pformat(names))
    pipeline = {"mapping": "PIPELINE", "parkey": ("META.INSTRUMENT.NAME",)}
    write_mapping(folder / context, pipeline, pprint.pformat(instruments))


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
