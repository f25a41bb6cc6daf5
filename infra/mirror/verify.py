"""Verify a mirror: read every context and mask as the Lambda function does, and list the faults."""

import functools
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from core.errors import ReferenceUnavailable
from core.fits.hdus import Keywords, locate_in
from core.flags import PIXEL_FLAGS
from core.mask import Mask, definitions, full_frame, own_flags
from handler.crds.mirror import FileDigest, key_of, mapping_key
from infra.mirror.bucket import Mirror, age, contexts_of
from infra.mirror.contexts import Context, Rule

_ANY = {"GENERIC", "N/A", "FULL", "ANY", ""}
_ADVICE = "use another context, or report the file to CRDS"


@dataclass(frozen=True)
class MaskSummary:
    """Figures of a mask that has no fault."""

    size: int  # bytes
    unknown: tuple[str, ...]  # names in DQ_DEF other than GOOD and standard flags: ignored by jwst
    flagged: int  # pixels with any bit
    unnamed: int  # pixels with a bit that DQ_DEF lacks, which the step drops; 0 without DQ_DEF


@dataclass
class Report:
    """The contexts and masks of a mirror that have no fault, and one line for each fault."""

    contexts: list[Context] = field(default_factory=list)
    operational: str = ""  # name of the operational context; empty without a configuration
    masks: dict[str, MaskSummary] = field(default_factory=dict)  # by file name
    faults: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)  # contexts whose sync is not completed (yet)

    def rows(self) -> Iterator[tuple[str, str, list[Rule]]]:
        """Yield each instrument and detector with the rules that name them in any context."""
        found: dict[tuple[str, str], set[Rule]] = defaultdict(set)
        for context in self.contexts:
            for rule in context.rules:
                found[rule.instrument, rule.value("DETECTOR")].add(rule)
        for (instrument, detector), rules in sorted(found.items()):
            yield instrument, detector, sorted(rules, key=lambda rule: rule.mask)


def verify(mirror: Mirror, progress: Callable[[str], object] = lambda _: None) -> Report:
    """Return the contexts and masks of a mirror that can be used, and its faults."""
    report = Report()
    try:
        config = mirror.operational()
    except ReferenceUnavailable as exc:
        report.faults.append(str(exc))
        return report
    report.operational, catalogue = config.operational_context, config.catalogue
    names = contexts_of(config)
    stored = {key.rpartition("/")[2] for key in mirror.list_keys() if key.endswith(".pmap")}
    report.unused = sorted(stored.difference(names), key=age)
    if report.operational not in names:
        report.faults.append(
            f"{mirror.location}: has no file of its operational context {report.operational}; "
            f"run dq-init mirror sync {mirror.location} --context {report.operational}"
        )
    files = _CheckedMappings(mirror, catalogue)
    for name in names:
        progress(name)
        try:
            report.contexts.append(mirror.context(name, files))
        except ReferenceUnavailable as exc:
            report.faults.append(str(exc))
    masks = {mask for context in report.contexts for mask in context.masks}
    # The function rejects bad files by their names, and a sync does not copy them.
    for mask in sorted(masks - config.bad_files):
        progress(mask)
        rules = [rule for context in report.contexts for rule in context.rules if rule.mask == mask]
        key = key_of(mask, rules[0].instrument)
        try:
            content, uri = mirror.get(key), str(mirror.location.below(key))
            _check_digest(content, uri, catalogue)
            report.masks[mask] = _read_mask(content, uri, rules)
        except ReferenceUnavailable as exc:
            report.faults.append(str(exc))
    return report


@dataclass(frozen=True)
class _CheckedMappings:
    """A mirror's mappings; reading one with another digest raises `ReferenceUnavailable`."""

    mirror: Mirror
    catalogue: Mapping[str, FileDigest]  # digests in the mirror's configuration, by file name

    def read(self, name: str) -> str:
        text = self.mirror.read(name)
        uri = str(self.mirror.location.below(mapping_key(name)))
        _check_digest(text.encode(), uri, self.catalogue)
        return text


def _check_digest(content: bytes, uri: str, catalogue: Mapping[str, FileDigest]) -> None:
    actual, expected = FileDigest.of(content), catalogue.get(uri.rpartition("/")[2])
    if expected is None:
        raise ReferenceUnavailable(
            f"{uri}: not in the mirror's catalogue, so that the function rejects it; run dq-init "
            "mirror sync for a context that needs it"
        )
    if actual != expected:
        raise ReferenceUnavailable(
            f"{uri}: has {actual}, expected {expected}; run dq-init mirror sync for a context that "
            "needs it"
        )


def _read_mask(content: bytes, uri: str, rules: list[Rule]) -> MaskSummary:
    mask, hdus = Mask.from_bytes(content, uri), locate_in(content, uri)
    _check_shape(mask, rules)
    _check_keywords(Keywords(hdus[0].header, uri, ReferenceUnavailable), rules)
    rows, own = definitions(hdus, content, uri), own_flags(hdus, content, uri)
    unknown = tuple(sorted({row.name for row in rows} - set(PIXEL_FLAGS) - {"GOOD", ""}))
    named = functools.reduce(operator.or_, (row.value for row in rows), 0) & 0xFFFFFFFF
    unnamed = own & ~np.uint32(named) if rows else np.zeros(0)
    counts = (int(np.count_nonzero(array)) for array in (own, unnamed))
    return MaskSummary(len(content), unknown, *counts)


def _check_keywords(keywords: Keywords, rules: list[Rule]) -> None:
    """Raise `ReferenceUnavailable` if a mask's header does not fit the rules that select it."""
    instruments = {rule.instrument.upper() for rule in rules}
    detectors = {part for rule in rules for part in rule.value("DETECTOR").upper().split("|")}
    expected = {"REFTYPE": {"MASK"}, "INSTRUME": instruments, "DETECTOR": detectors}
    for keyword, values in expected.items():
        found = (keywords.text(keyword) or "").upper()
        if found not in values and not values & _ANY:
            raise ReferenceUnavailable(
                f"{keywords.name}: its {keyword} is {found!r}, expected "
                f"{' or '.join(sorted(values))}, for which the rules select it; {_ADVICE}"
            )


def _check_shape(mask: Mask, rules: list[Rule]) -> None:
    """Raise `ReferenceUnavailable` if a mask's array is too small or not as its header says.

    A mask that a rule selects for SUBARRAY FULL, GENERIC, N/A, ANY or none must contain the whole
    detector. A mask for IRS2 may have 3200 rows, and 2048 in its header.
    """
    area, shape = mask.area, mask.dq.shape
    found = f"{mask.name}: its array has {shape[0]} x {shape[1]} pixels"
    subarrays = {part for rule in rules for part in rule.value("SUBARRAY.NAME").upper().split("|")}
    rows, columns = full_frame(rules[0].instrument.upper())
    whole = (area.xstart, area.ystart) == (1, 1) and shape[0] >= rows and shape[1] >= columns
    if subarrays & _ANY and not whole:
        names = " and ".join(sorted(name or "ANY" for name in subarrays))
        raise ReferenceUnavailable(
            f"{found} ({area}), expected all {rows} x {columns} of the detector, because the rules "
            f"select it for SUBARRAY {names}; {_ADVICE}"
        )
    irs2 = shape == (3200, 2048) and area.ysize == 2048
    if (area.ysize, area.xsize) != shape and not irs2:
        raise ReferenceUnavailable(f"{found}, expected {area} as in its header; {_ADVICE}")
