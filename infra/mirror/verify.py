"""Verify a mirror: read every context and every mask as the function does, and list the faults."""

import functools
import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from core.errors import ReferenceUnavailable
from core.fits.hdus import Keywords, locate_in
from core.flags import PIXEL_FLAGS
from core.mask import Mask, definitions, full_frame, own_flags
from handler.crds.mirror import FileDigest, key_of
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context, Rule, read_context

_ANY = {"GENERIC", "N/A", "FULL", "ANY", ""}


@dataclass(frozen=True)
class MaskSummary:
    """A mask without faults."""

    size: int  # bytes
    shape: tuple[int, ...]
    unknown: tuple[str, ...]  # names in DQ_DEF that are not standard flags; the step ignores them
    flagged: int  # pixels with any bit
    unnamed: int  # pixels with a bit that DQ_DEF does not name; the step drops the bit


@dataclass
class Report:
    """The contexts and masks that could be read, and a line for each fault."""

    contexts: list[Context] = field(default_factory=list)
    operational: str = ""
    masks: dict[str, MaskSummary] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, str, list[Rule]]]:
        """Yield instrument, detector and their rules in all contexts."""
        found: dict[tuple[str, str], set[Rule]] = defaultdict(set)
        for context in self.contexts:
            for rule in context.rules:
                found[rule.instrument, rule.value("DETECTOR")].add(rule)
        for (instrument, detector), rules in sorted(found.items()):
            yield instrument, detector, sorted(rules, key=lambda rule: rule.mask)


def verify(mirror: Mirror) -> Iterator[tuple[str, Report]]:
    """Read every context of a mirror, and every mask once.

    Yields the name of what is read next, and the report, which grows meanwhile.
    """
    report = Report()
    try:
        config = mirror.operational()
    except ReferenceUnavailable as exc:
        report.faults.append(str(exc))
        yield "", report
        return
    report.operational, catalogue = config.operational_context, config.catalogue
    names = {name for name in catalogue if name.endswith(".pmap")} | set(mirror.contexts())
    if report.operational not in names:
        report.faults.append(f"{report.operational}: is operational, and does not exist")
    files = _CheckedMappings(mirror, catalogue)
    for name in sorted(names):
        yield name, report
        try:
            report.contexts.append(read_context(name, files, config.instruments))
        except ReferenceUnavailable as exc:
            report.faults.append(f"{name}: {exc}")
    masks = {mask for context in report.contexts for mask in context.masks}
    # The function rejects bad files by their names, and a sync does not copy them.
    for mask in sorted(masks - config.bad_files):
        yield mask, report
        rules = [rule for context in report.contexts for rule in context.rules if rule.mask == mask]
        try:
            content = mirror.get(key_of(mask, rules[0].instrument))
            _check_digest(content, mask, catalogue)
            report.masks[mask] = _read_mask(content, mask, rules)
        except ReferenceUnavailable as exc:
            report.faults.append(str(exc))
    yield "", report


@dataclass(frozen=True)
class _CheckedMappings:
    """The mappings of a mirror, compared with its catalogue."""

    mirror: Mirror
    catalogue: Mapping[str, FileDigest]

    def read(self, name: str) -> str:
        text = self.mirror.read(name)
        _check_digest(text.encode(), name, self.catalogue)
        return text


def _check_digest(content: bytes, name: str, catalogue: Mapping[str, FileDigest]) -> None:
    actual, expected = FileDigest.of(content), catalogue.get(name)
    if expected is None:
        raise ReferenceUnavailable(f"{name}: not in the mirror's catalogue")
    if actual != expected:
        raise ReferenceUnavailable(f"{name}: {actual}; expected {expected}")


def _read_mask(content: bytes, name: str, rules: list[Rule]) -> MaskSummary:
    mask, hdus = Mask.from_bytes(content, name), locate_in(content, name)
    _check_shape(mask, rules)
    _check_keywords(Keywords(hdus[0].header, name, ReferenceUnavailable), rules)
    rows, own = definitions(hdus, content, name), own_flags(hdus, content, name)
    unknown = tuple(sorted({row.name for row in rows} - set(PIXEL_FLAGS) - {"GOOD", ""}))
    named = functools.reduce(operator.or_, (row.value for row in rows), 0) & 0xFFFFFFFF
    unnamed = own & ~np.uint32(named) if rows else np.zeros(0)
    counts = (int(np.count_nonzero(array)) for array in (own, unnamed))
    return MaskSummary(len(content), mask.dq.shape, unknown, *counts)


def _check_keywords(keywords: Keywords, rules: list[Rule]) -> None:
    """Check that a mask is for the instrument and detectors of the rules that choose it."""
    instruments = {rule.instrument.upper() for rule in rules}
    detectors = {part for rule in rules for part in rule.value("DETECTOR").upper().split("|")}
    expected = {"REFTYPE": {"MASK"}, "INSTRUME": instruments, "DETECTOR": detectors}
    for keyword, values in expected.items():
        found = (keywords.text(keyword) or "").upper()
        if found not in values and not values & _ANY:
            raise ReferenceUnavailable(
                f"{keywords.name}: its {keyword} is {found!r}, and rules choose it for "
                f"{', '.join(sorted(values))}"
            )


def _check_shape(mask: Mask, rules: list[Rule]) -> None:
    """Check that a mask for any subarray covers the detector, and that its header is right."""
    area, shape = mask.area, mask.dq.shape
    subarrays = {part for rule in rules for part in rule.value("SUBARRAY.NAME").upper().split("|")}
    rows, columns = full_frame(rules[0].instrument.upper())
    whole = (area.xstart, area.ystart) == (1, 1) and shape[0] >= rows and shape[1] >= columns
    if subarrays & _ANY and not whole:
        raise ReferenceUnavailable(
            f"{mask.name}: {area}, its array is {shape}, expected all {rows} x {columns} pixels of "
            f"the detector: rules choose it for {', '.join(sorted(s or 'ANY' for s in subarrays))}"
        )
    irs2 = shape == (3200, 2048) and area.ysize == 2048
    if (area.ysize, area.xsize) != shape and not irs2:
        raise ReferenceUnavailable(f"{mask.name}: its array is {shape}, its header says {area}")
