"""The metadata of an exposure as its last HDU has them: a document of ASDF.

Keywords of the header say the same and win. The text is looked at, not parsed, which would cost
more than the rest of the step, unless the header lacks a keyword that decides something and is
mentioned there.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from core.errors import InputRejected
from core.hdus import Hdu, Reader, find_all

__all__ = ["check_metadata", "without_metadata"]

log = logging.getLogger(__name__)

_DECIDING: Mapping[str, str] = MappingProxyType(
    {
        "EXP_TYPE": "exposure.type",
        "READPATT": "exposure.readpatt",
        "INSTRUME": "instrument.name",
        "DETECTOR": "instrument.detector",
        "DATE-OBS": "observation.date",
        "TIME-OBS": "observation.time",
        "SUBARRAY": "subarray.name",
        "SUBSTRT1": "subarray.xstart",
        "SUBSTRT2": "subarray.ystart",
        "SUBSIZE1": "subarray.xsize",
        "SUBSIZE2": "subarray.ysize",
        "FASTAXIS": "subarray.fastaxis",
        "SLOWAXIS": "subarray.slowaxis",
        "MSTR_RD1": "subarray.multistripe_reads1",
        "MSTR_SK1": "subarray.multistripe_skips1",
        "MSTR_RD2": "subarray.multistripe_reads2",
        "MSTR_SK2": "subarray.multistripe_skips2",
        "MSTR_RPT": "subarray.repeat_stripe",
        "MSTR_ILV": "subarray.interleave_reads1",
        "SSTR_STP": "subarray.superstripe_step",
        "SSTR_NST": "subarray.num_superstripe",
    }
)
"""What decides kind, mask or geometry: keyword -> where the document has it, below ``meta``."""

_NODES = ("ScalarEvent", "AliasEvent", "MappingStartEvent", "SequenceStartEvent")
_MOST_EVENTS = 200_000
_DEEPEST = 100
_LONGEST_PATH = 3
"""Keys of a path that decides: meta, a section, a value."""
_QUALITY = frozenset({"PIXELDQ", "GROUPDQ", "ERR", "DQ"})
_NUMBERED = re.compile(rb"(?<![\w.])fits:(\d+)(?![\d,])")
"""An HDU that the document names by its number: ``source: fits:2``."""
_NAMED = re.compile(rb"(?<![\w.])source: *['\"]?fits:([ -~]{1,68}?),(\d{1,9})")
"""An HDU that the document names by EXTNAME and EXTVER: ``source: fits:SCI,1``."""
_LARGEST_DOCUMENT = 4 * 1024 * 1024
_ASDF = b"#ASDF "
_END_OF_YAML = re.compile(rb"\r?\n\.\.\.(?:\r?\n|$)")
_START_OF_YAML = re.compile(rb"(?:^|\n)---")


def check_metadata(hdus: tuple[Hdu, ...], read: Reader, name: str) -> None:
    """Check that the document is whole, and says nothing that decides which the header does not.

    An exposure without a document is accepted, with a warning in the log.

    Parameters
    ----------
    hdus : tuple of `~core.hdus.Hdu`
        Of the exposure.
    read : callable
        ``read(start, length)`` returns a byte range of the file.
    name : str
        Its name, for messages.

    Raises
    ------
    InputRejected
        If the document is damaged, kind, mask or geometry depend on a keyword that it has and the
        header lacks, or it names an HDU that the file lacks, or by a number that the product
        changes.
    """
    warning = without_metadata(hdus)
    if warning:
        log.warning("%s: %s", name, warning)
        return
    document = _document(find_all(hdus, "ASDF")[0], read, name)
    _check_numbers(hdus, document, name)
    _check_names(hdus, document, name)
    lacking = {keyword for keyword in _DECIDING if keyword not in hdus[0].header}
    _check_nothing_is_said_there_only(lacking, document, name)


def without_metadata(hdus: tuple[Hdu, ...]) -> str | None:
    """Return the warning about an exposure that has no ASDF extension; None if it has one."""
    if find_all(hdus, "ASDF"):
        return None
    return "no ASDF extension; jwst 3.0.0 opens it as a data model, but not by its file name"


def _document(hdu: Hdu, read: Reader, name: str) -> bytes:
    """The document's text; a reader that fetches what lies around a header has it already."""
    if hdu.data_length > _LARGEST_DOCUMENT:
        raise InputRejected(
            f"{name}: its ASDF HDU has {hdu.data_length} bytes, expected at most "
            f"{_LARGEST_DOCUMENT}"
        )
    text = read(hdu.data_start, hdu.data_length)
    if not text.startswith(_ASDF) or not _END_OF_YAML.search(text):
        raise InputRejected(
            f"{name}: its ASDF HDU starts with {text[:8]!r} and is damaged, compressed or breaks "
            "off: no jwst data model opens it"
        )
    return text


def _check_numbers(hdus: tuple[Hdu, ...], document: bytes, name: str) -> None:
    """Check that HDUs named by number keep it: the product has its new HDUs behind SCI."""
    names = [hdu.name for hdu in hdus]
    kept = names.index("SCI") + 1 if "SCI" in names else 1
    kept = next((place for place in range(kept) if names[place] in _QUALITY), kept)
    moved = [number for found in _NUMBERED.findall(document) if (number := int(found[:9])) >= kept]
    if moved:
        raise InputRejected(
            f"{name}, ASDF: names HDU {moved[0]} by its number, which the product's new HDUs "
            "change; expected the number of an HDU before them, or a name"
        )


def _check_names(hdus: tuple[Hdu, ...], document: bytes, name: str) -> None:
    """Check that the file has every HDU that the document names; the data models need them all."""
    present = {(hdu.name, hdu.header.get("EXTVER", 1)) for hdu in hdus}
    for extension, version in _NAMED.findall(document):
        named = extension.decode().strip().upper(), int(version)
        if named not in present and named[0] != "PRIMARY":  # astropy: the primary HDU of any EXTVER
            raise InputRejected(
                f"{name}, ASDF: names {named[0]} with EXTVER {named[1]}, which the file lacks, "
                "expected an HDU of the file"
            )


def _check_nothing_is_said_there_only(lacking: set[str], document: bytes, name: str) -> None:
    mentioned = {
        keyword for keyword in lacking if _DECIDING[keyword].rpartition(".")[2].encode() in document
    }
    if not mentioned:  # in most exposures: nothing to parse for
        return
    values = _values(document, name)
    only_there = sorted(keyword for keyword in mentioned if _has_value(values, _DECIDING[keyword]))
    if only_there:
        raise InputRejected(
            f"{name}: {', '.join(only_there)} in the ASDF metadata only, expected in the header"
        )


def _has_value(values: set[str], path: str) -> bool:
    """Return whether the document gives a value: itself, or by an alias or a merge on its way."""
    parts = f"meta.{path}".split(".")
    above = [".".join(parts[:depth]) for depth in range(len(parts))]
    merges = {f"{way}.<<".lstrip(".") for way in above}
    by_reference = {f"{way}*" for way in [*above, *merges]} | merges
    return not values.isdisjoint({f"meta.{path}", f"meta.{path}*"} | by_reference)


def _values(document: bytes, name: str) -> set[str]:
    """Return the paths, such as ``meta.exposure.type``, at which the document has values.

    A path that ends in ``*`` has an alias. The document's events are read one by one and nothing is
    built of them: merges, aliases and numbers are not evaluated, so a small document cannot take
    much time or memory.
    """
    start, end = _START_OF_YAML.search(document), _END_OF_YAML.search(document)
    if start is None or end is None:
        raise InputRejected(f"{name}: its ASDF HDU has no YAML document")
    # Without its first line, which holds the document's tag.
    body = document[start.end() : end.start()].partition(b"\n")[2]
    import yaml  # noqa: PLC0415  # rarely needed, and slow to import

    events = yaml.parse(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return set(_paths(events, name))
    except (yaml.YAMLError, ValueError) as exc:
        raise InputRejected(f"{name}: its ASDF metadata cannot be read: {exc}") from exc


def _paths(events: Iterable[Any], name: str) -> Iterator[str]:
    """Yield the path of every value that is not null, as far as such paths can matter."""
    keys: list[str | None] = []  # the key that each open collection is at; None before a key
    mappings: list[bool] = []  # whether each open collection is a mapping
    for number, event in enumerate(events):
        if number > _MOST_EVENTS or len(keys) > _DEEPEST:
            raise InputRejected(
                f"{name}: ASDF metadata of {number} keys and values, {len(keys)} levels deep, "
                f"expected at most {_MOST_EVENTS} and {_DEEPEST}"
            )
        kind = type(event).__name__
        is_key = bool(mappings) and mappings[-1] and keys[-1] is None
        is_value = kind in _NODES and not is_key and None not in keys
        if is_value and len(keys) <= _LONGEST_PATH and not _is_null(event):
            yield ".".join(map(str, keys)) + "*" * (kind == "AliasEvent")
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            keys.append(None)
            mappings.append(kind == "MappingStartEvent")
            continue
        if kind in ("MappingEndEvent", "SequenceEndEvent"):
            keys.pop()
            mappings.pop()
            is_key = bool(mappings) and mappings[-1] and keys[-1] is None
        if keys:
            keys[-1] = str(getattr(event, "value", "")) if is_key else None


def _is_null(event: Any) -> bool:
    """Return whether a node is YAML's null (yaml.org/type/null.html)."""
    plain = getattr(event, "style", None) in (None, "")
    return plain and getattr(event, "value", None) in ("", "~", "null", "Null", "NULL")
