"""The metadata of an exposure as its last HDU has them: a document of ASDF.

Keywords of the header say the same and win. The text is looked at, not parsed, which would cost
more than the rest of the step, unless the header lacks a keyword that decides something and is
mentioned there.
"""

import logging
import re
from collections.abc import Callable, Mapping
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
        If the document is damaged, or kind, mask or geometry depend on a keyword that
        it has and the header lacks.
    """
    warning = without_metadata(hdus)
    if warning:
        log.warning("%s: %s", name, warning)
        return
    document = _document(find_all(hdus, "ASDF")[0], read, name)
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


def _check_nothing_is_said_there_only(lacking: set[str], document: bytes, name: str) -> None:
    mentioned = {
        keyword for keyword in lacking if _DECIDING[keyword].rpartition(".")[2].encode() in document
    }
    if not mentioned:  # in most exposures: nothing to parse for
        return
    meta = _metadata(document, name)
    only_there = sorted(
        keyword for keyword in mentioned if _value(meta, _DECIDING[keyword]) is not None
    )
    if only_there:
        raise InputRejected(
            f"{name}: {', '.join(only_there)} in the ASDF metadata only, expected in the header"
        )


def _metadata(document: bytes, name: str) -> Any:
    start, end = _START_OF_YAML.search(document), _END_OF_YAML.search(document)
    if start is None or end is None:
        raise InputRejected(f"{name}: its ASDF HDU has no YAML document")
    # Without its first line, which says what the document is, in tags that are of no interest.
    body = document[start.end() : end.start()].partition(b"\n")[2]
    import yaml  # noqa: PLC0415  # hardly ever needed, and not light

    try:
        tree = yaml.load(body, Loader=_plain_loader())  # noqa: S506  # a safe loader's child
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InputRejected(f"{name}: its ASDF metadata cannot be read: {exc}") from exc
    return tree.get("meta") if isinstance(tree, dict) else None


def _value(meta: Any, path: str) -> Any:
    for part in path.split("."):
        meta = meta.get(part) if isinstance(meta, dict) else None
    return meta


def _plain_loader() -> Any:
    """Read every tag of ASDF's as the mapping, list or text that it stands before."""
    import yaml  # noqa: PLC0415

    class Plain(yaml.SafeLoader):
        pass

    def construct(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> object:
        makers: Mapping[type[yaml.Node], Callable[[Any], Any]] = {
            yaml.MappingNode: lambda node: loader.construct_mapping(node, deep=True),
            yaml.SequenceNode: lambda node: loader.construct_sequence(node, deep=True),
        }
        return makers.get(type(node), loader.construct_scalar)(node)

    Plain.add_multi_constructor("", construct)
    return Plain
