"""Reading the mirror as the function will, and telling every fault."""

import functools
import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from botocore.exceptions import ClientError

from core.errors import ReferenceUnavailable
from core.fits.hdus import Keywords, locate_in
from core.flags import PIXEL_FLAGS
from core.mask import Mask, definitions, full_frame, own_flags
from handler.crds.mirror import FileDigest, MirrorConfig, key_of
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context, Rule, read_context

__all__ = ["MaskSummary", "Report", "verify"]

_ANY_SUBARRAY = {"GENERIC", "N/A", "FULL", "ANY", ""}


@dataclass(frozen=True)
class MaskSummary:
    """A mask as it was read.

    Attributes
    ----------
    size : int
        Bytes.
    shape : tuple of int
        Rows and columns.
    unknown : tuple of str
        Names of its DQ_DEF that are no standard flags; the step ignores them.
    flagged, unnamed : int
        Pixels that carry any bit, and those that carry one that DQ_DEF does not name: the step
        drops it.
    """

    size: int
    shape: tuple[int, ...]
    unknown: tuple[str, ...]
    flagged: int
    unnamed: int


@dataclass
class Report:
    """What was found.

    Attributes
    ----------
    contexts : list of `~infra.mirror.contexts.Context`
        Those that could be read.
    operational : str
        The one that is operational.
    masks : dict of str to `MaskSummary`
        Those that are whole.
    faults : list of str
        What is wrong, a line each.
    """

    contexts: list[Context] = field(default_factory=list)
    operational: str = ""
    masks: dict[str, MaskSummary] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, str, list[Rule]]]:
        """Instrument and detector, with the rules that all contexts have for it."""
        rules: dict[tuple[str, str], set[Rule]] = defaultdict(set)
        for context in self.contexts:
            for rule in context.rules:
                rules[rule.instrument, rule.value("DETECTOR")].add(rule)
        for (instrument, detector), rules_by in sorted(rules.items()):
            yield instrument, detector, sorted(rules_by, key=lambda rule: rule.mask)


def verify(mirror: Mirror) -> Iterator[tuple[str, Report]]:
    """Read every context of a mirror, and every mask once.

    Parameters
    ----------
    mirror : `~infra.mirror.bucket.Mirror`
        The mirror.

    Yields
    ------
    tuple of str and `Report`
        What is being read, and the report, which grows meanwhile.
    """
    report = Report()
    config = _config(mirror, report)
    if config is None:
        yield "", report
        return
    listed = config.catalogue
    rules_of_mirror = _CheckedRules(mirror, listed)
    for name in _contexts(mirror, listed, report):
        yield name, report
        _read_context(name, rules_of_mirror, config, report)
    for mask, rules in _rules_by_mask(report).items():
        if mask in config.bad_files:
            continue  # the function refuses it by its name, and a sync does not copy it
        yield mask, report
        _read_mask(mask, rules, mirror, listed, report)
    yield "", report


def _config(mirror: Mirror, report: Report) -> MirrorConfig | None:
    """The mirror's configuration."""
    try:
        config = mirror.operational()
    except ReferenceUnavailable as exc:
        if isinstance(exc.__cause__, ClientError):  # a mistyped bucket is no fault of a mirror
            raise
        report.faults.append(str(exc))
        return None
    report.operational = config.operational_context
    return config


def _contexts(mirror: Mirror, listed: Mapping[str, FileDigest], report: Report) -> list[str]:
    """Every context that is there, or is said to be."""
    names = {name for name in listed if name.endswith(".pmap")} | set(mirror.contexts())
    if report.operational and report.operational not in names:
        report.faults.append(f"{report.operational}: is operational, and is not there")
    return sorted(names)


@dataclass(frozen=True)
class _CheckedRules:
    """The mirror's rule files, each held against the catalogue."""

    mirror: Mirror
    listed: Mapping[str, FileDigest]

    def read(self, name: str) -> str:
        text = self.mirror.read(name)
        _check(text.encode(), name, self.listed)
        return text


def _read_context(name: str, rules: _CheckedRules, config: MirrorConfig, report: Report) -> None:
    try:
        report.contexts.append(read_context(name, rules, config.instruments))
    except ReferenceUnavailable as exc:
        report.faults.append(f"{name}: {exc}")


def _check(content: bytes, name: str, listed: Mapping[str, FileDigest]) -> None:
    actual, expected = FileDigest.of(content), listed.get(name)
    if expected is None:
        raise ReferenceUnavailable(f"{name}: the mirror's catalogue does not know it")
    if actual != expected:
        raise ReferenceUnavailable(f"{name}: {actual}; expected {expected}")


def _rules_by_mask(report: Report) -> dict[str, list[Rule]]:
    rules_by: dict[str, list[Rule]] = defaultdict(list)
    for context in report.contexts:
        for rule in context.rules:
            if rule.mask in context.masks:
                rules_by[rule.mask].append(rule)
    return dict(sorted(rules_by.items()))


def _read_mask(
    name: str,
    rules: list[Rule],
    mirror: Mirror,
    listed: Mapping[str, FileDigest],
    report: Report,
) -> None:
    try:
        content = mirror.get(key_of(name, rules[0].instrument))
        _check(content, name, listed)
        mask = Mask.from_bytes(content, name)
        _check_cover(mask, rules)
        hdus = locate_in(content, name)
        _check_purpose(Keywords(hdus[0].header, name, ReferenceUnavailable), rules)
    except ReferenceUnavailable as exc:
        report.faults.append(str(exc))
        return
    rows, own = definitions(hdus, content, name), own_flags(hdus, content, name)
    unknown = tuple(sorted({row.name for row in rows} - set(PIXEL_FLAGS) - {"GOOD", ""}))
    named = functools.reduce(operator.or_, (row.value for row in rows), 0) & 0xFFFFFFFF
    unnamed = own & ~np.uint32(named) if rows else np.zeros(0)
    counts = (int(np.count_nonzero(array)) for array in (own, unnamed))
    report.masks[name] = MaskSummary(len(content), mask.dq.shape, unknown, *counts)


def _check_purpose(keywords: Keywords, rules: list[Rule]) -> None:
    """A mask says itself what it is, and of which detector; its rules must mean the same."""
    instruments = {rule.instrument.upper() for rule in rules}
    detectors = {part for rule in rules for part in rule.value("DETECTOR").upper().split("|")}
    expected = {"REFTYPE": {"MASK"}, "INSTRUME": instruments, "DETECTOR": detectors}
    for keyword, meant in expected.items():
        found = (keywords.text(keyword) or "").upper()
        if found not in meant and not meant & _ANY_SUBARRAY:
            raise ReferenceUnavailable(
                f"{keywords.name}: its {keyword} is {found!r}, and rules choose it for "
                f"{', '.join(sorted(meant))}"
            )


def _check_cover(mask: Mask, rules: list[Rule]) -> None:
    """A mask for any subarray covers the detector; one for a subarray is as large as it says."""
    area, shape = mask.area, mask.dq.shape
    named = {part for rule in rules for part in rule.value("SUBARRAY.NAME").upper().split("|")}
    rows, columns = full_frame(rules[0].instrument.upper())
    whole = (area.xstart, area.ystart) == (1, 1) and shape[0] >= rows and shape[1] >= columns
    if named & _ANY_SUBARRAY and not whole:
        raise ReferenceUnavailable(
            f"{mask.name}: {area}, its array is {shape}, expected all {rows} x {columns} pixels of "
            f"the detector: the rules choose it for {sorted(named)}"
        )
    irs2 = shape == (3200, 2048) and area.ysize == 2048
    if (area.ysize, area.xsize) != shape and not irs2:
        raise ReferenceUnavailable(f"{mask.name}: its array is {shape}, its header says {area}")
