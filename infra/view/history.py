"""The page of all masks of a detector by date, with the flags that each gains and loses."""

from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from core.flags import PIXEL_FLAGS
from core.mask import Mask
from handler.crds.mirror import key_of
from handler.crds.rules import is_applicable
from infra.cli import UserError, printable
from infra.mirror.bucket import Mirror
from infra.view.flags import Page
from infra.view.pictures import Picture, plane

_COLUMNS = ("Mask", "From", "Subarray", "Contexts", "Any flag", "Gained", "Lost", "%")


@dataclass(frozen=True)
class MaskPeriod:
    """A mask: date and subarray of its last rule in the newest context, and its contexts."""

    mask: Mask
    after: str  # USEAFTER of the rule: from which date and time of observation it holds
    subarray: str  # value of SUBARRAY in the rule; empty if it has none
    first: str  # oldest context that selects the mask
    last: str  # newest context that selects the mask

    def counts(self) -> dict[str, int]:
        """Return the number of pixels with each flag that occurs, by its name."""
        flagged = self.mask.dq[self.mask.dq != 0]
        found = {name: int(np.count_nonzero(flagged & bit)) for name, bit in PIXEL_FLAGS.items()}
        return {name: number for name, number in found.items() if number}


def mask_in(mirror: Mirror, name: str, instrument: str) -> Mask:
    """Read and return a mask, named by its file name, from a mirror."""
    return Mask.from_bytes(mirror.get(key_of(name, instrument)), name)


def mask_periods(mirror: Mirror, detector: str) -> list[MaskPeriod]:
    """Return the masks that any context of a mirror selects for a detector, by date.

    Masks of other shapes than the most common one are left out, because a page shows one shape.
    """
    detectors: set[str] = set()
    found: dict[str, tuple[str, str, str, str, str]] = {}
    for context in mirror.contexts():
        for rule in mirror.context(context).rules:
            of_rule = rule.value("DETECTOR").split("|")
            detectors.update(of_rule)
            if detector not in of_rule or not is_applicable(rule.mask):
                continue
            _, _, _, first, _ = found.get(rule.mask, ("", "", "", context, ""))
            subarray = rule.value("SUBARRAY.NAME")
            found[rule.mask] = (rule.instrument, rule.after, subarray, first, context)
    if not found:
        known = ", ".join(sorted(detectors)) or "none yet; run dq-init mirror sync"
        raise UserError(
            f"{mirror.location}: no rule selects a mask for {detector}, expected one of: {known}"
        )
    periods = [
        MaskPeriod(mask_in(mirror, name, instrument), *rest)
        for name, (instrument, *rest) in found.items()
    ]
    ((shape, _),) = Counter(period.mask.dq.shape for period in periods).most_common(1)
    common = [period for period in periods if period.mask.dq.shape == shape]
    return sorted(common, key=lambda period: (period.after, period.mask.name))


def history_page(detector: str, periods: list[MaskPeriod], mirror: str) -> Page:
    """Return the page of a detector, with a plane of its picture for each mask."""
    planes = tuple(
        plane(p.mask.dq, f"{p.mask.name}, from {p.after[:10]}", is_fast=True) for p in periods
    )
    facts = (
        ("Detector", detector),
        ("Masks", f"{len(periods)}, from {periods[0].after[:10]} on"),
        ("Mirror", mirror),
    )
    ny, nx = periods[0].mask.dq.shape
    return Page(f"Masks of {detector}", facts, Picture(planes, (ny, nx)))


def history_table(periods: list[MaskPeriod]) -> dict[str, Any]:
    """Return the variables of history.html: a plot, headings, and a row for each mask."""
    counts = [period.counts() for period in periods]
    names = [name for name in PIXEL_FLAGS if any(name in found for found in counts)]
    rows, before = [], None
    for period, found in zip(periods, counts, strict=True):
        dq = period.mask.dq
        gained = lost = ""
        if before is not None:
            gained = f"{int(np.count_nonzero((before == 0) & (dq != 0))):,}"
            lost = f"{int(np.count_nonzero((before != 0) & (dq == 0))):,}"
        rows.append(
            [
                period.mask.name,
                period.after[:10],
                period.subarray,
                f"{period.first[5:9]} to {period.last[5:9]}",
                f"{int(np.count_nonzero(dq)):,}",
                gained,
                lost,
                f"{100 * found.get('DO_NOT_USE', 0) / dq.size:.2f}",
                *(f"{found.get(name, 0):,}" for name in names),
            ]
        )
        before = dq
    return {"plot": _plot(periods, counts), "columns": [*_COLUMNS, *names], "rows": rows}


def _plot(periods: list[MaskPeriod], counts: list[dict[str, int]]) -> str:
    """Return a plot of flagged pixels by mask: an SVG as data URI.

    Browsers do not run scripts of an SVG in an img element.
    """
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.add_subplot()
    x = range(len(periods))
    flagged = [int(np.count_nonzero(period.mask.dq)) for period in periods]
    axes.plot(x, flagged, "o-", color="#0b6db0", label="any flag")
    unusable = [found.get("DO_NOT_USE", 0) for found in counts]
    axes.plot(x, unusable, "o-", color="#c8400a", label="DO_NOT_USE")
    dates = [printable(period.after[:10]) for period in periods]
    # parse_math: a date is text of a rule file, in which $ must not begin a formula.
    axes.set_xticks(x, dates, parse_math=False, fontsize="small")
    axes.tick_params(axis="x", rotation=30)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("pixels")
    axes.legend()
    image = BytesIO()
    figure.savefig(image, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{b64encode(image.getvalue()).decode()}"
