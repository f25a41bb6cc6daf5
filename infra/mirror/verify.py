"""Reading the mirror as the function will, and telling every fault."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from astropy.io import fits

from core.errors import ReferenceUnavailable
from core.flags import PIXEL_FLAGS
from core.mask import Mask, full_frame
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context, Rule, key_of, read_context
from infra.mirror.sources import Facts, catalogue, operational_context

__all__ = ["Found", "Report", "verify"]

_ANY_SUBARRAY = {"GENERIC", "N/A", "FULL", "ANY", ""}


@dataclass(frozen=True)
class Found:
    """A mask as it was read.

    Attributes
    ----------
    size : int
        Bytes.
    shape : tuple of int
        Rows and columns.
    unknown : tuple of str
        Names of its DQ_DEF that are no standard flags; the step ignores them.
    """

    size: int
    shape: tuple[int, ...]
    unknown: tuple[str, ...]


@dataclass
class Report:
    """What was found.

    Attributes
    ----------
    contexts : list of `~infra.mirror.contexts.Context`
        Those that could be read.
    operational : str
        The one that is operational.
    masks : dict of str to `Found`
        Those that are whole.
    faults : list of str
        What is wrong, a line each.
    """

    contexts: list[Context] = field(default_factory=list)
    operational: str = ""
    masks: dict[str, Found] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, str, list[Rule]]]:
        """Instrument and detector, with the rules that all contexts have for it."""
        rules: dict[tuple[str, str], set[Rule]] = defaultdict(set)
        for context in self.contexts:
            for rule in context.rules:
                rules[rule.instrument, rule.value("DETECTOR")].add(rule)
        for (instrument, detector), found in sorted(rules.items()):
            yield instrument, detector, sorted(found, key=lambda rule: rule.mask)


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
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        listed = _listed(mirror, report)
        for name in _contexts(mirror, listed, report):
            yield name, report
            _read_context(name, mirror, root, listed, report)
        for mask, rules in _rules_by_mask(report).items():
            yield mask, report
            _read_mask(mask, rules, mirror, root / "mask.fits", listed, report)
    yield "", report


def _listed(mirror: Mirror, report: Report) -> dict[str, Facts]:
    """The mirror's catalogue."""
    try:
        info = mirror.config()
    except ReferenceUnavailable as exc:
        report.faults.append(str(exc))
        return {}
    if not info:
        report.faults.append("config/jwst/server_config: is not there")
        return {}
    report.operational = operational_context(info)
    found = catalogue(info)
    return {name: Facts(int(f["size"]), f["sha1sum"]) for name, f in found.items()}


def _contexts(mirror: Mirror, listed: dict[str, Facts], report: Report) -> list[str]:
    """Every context that is there, or is said to be."""
    names = {name for name in listed if name.endswith(".pmap")} | set(mirror.contexts())
    if report.operational and report.operational not in names:
        report.faults.append(f"{report.operational}: is operational, and is not there")
    return sorted(names)


def _read_context(
    name: str, mirror: Mirror, root: Path, listed: dict[str, Facts], report: Report
) -> None:
    def fetch(file: str) -> None:
        path = root / key_of(file, "")
        if not path.exists():
            mirror.get(key_of(file, ""), path)
        _check(path, file, listed)

    try:
        report.contexts.append(read_context(name, root, fetch))
    except ReferenceUnavailable as exc:
        report.faults.append(f"{name}: {exc}")


def _check(path: Path, name: str, listed: dict[str, Facts]) -> None:
    found, expected = Facts.of(path), listed.get(name)
    if expected is None:
        raise ReferenceUnavailable(f"{name}: the mirror's catalogue does not know it")
    if found != expected:
        raise ReferenceUnavailable(f"{name}: is {found}, expected {expected}")


def _rules_by_mask(report: Report) -> dict[str, list[Rule]]:
    found: dict[str, list[Rule]] = defaultdict(list)
    for context in report.contexts:
        for rule in context.rules:
            if rule.mask in context.masks:
                found[rule.mask].append(rule)
    return dict(sorted(found.items()))


def _read_mask(
    name: str,
    rules: list[Rule],
    mirror: Mirror,
    path: Path,
    listed: dict[str, Facts],
    report: Report,
) -> None:
    instrument = rules[0].instrument
    try:
        mirror.get(key_of(name, instrument), path)
        _check(path, name, listed)
        with fits.open(path, memmap=False) as hdus:
            mask = Mask.from_hdus(hdus, name)
            _check_cover(mask, rules)
            unknown = _unknown_names(hdus)
    except (ReferenceUnavailable, OSError) as exc:
        report.faults.append(str(exc))
        return
    report.masks[name] = Found(path.stat().st_size, mask.dq.shape, unknown)


def _unknown_names(hdus: fits.HDUList) -> tuple[str, ...]:
    if "DQ_DEF" not in hdus or hdus["DQ_DEF"].data is None:
        return ()
    names = {str(row["NAME"]).strip() for row in hdus["DQ_DEF"].data}
    return tuple(sorted(names - set(PIXEL_FLAGS) - {"GOOD", ""}))


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
