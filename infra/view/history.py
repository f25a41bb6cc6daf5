"""A detector's masks, one after another: what each of them gains and loses."""

from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from core.flags import PIXEL_FLAGS
from core.mask import Mask
from handler.crds.mirror import key_of
from infra.cli import UserError, printable
from infra.mirror.bucket import Mirror
from infra.view.flags import Look
from infra.view.pictures import Picture, plane

__all__ = [
    "Chapter",
    "chapters",
    "history_look",
    "history_table",
    "mask_in",
]


def mask_in(mirror: Mirror, name: str, instrument: str) -> Mask:
    """Fetch a mask.

    Raises
    ------
    ReferenceUnavailable
        If it is not there, or is no mask.
    """
    return Mask.from_bytes(mirror.get(key_of(name, instrument)), name)


_COLUMNS = ("Mask", "From", "Subarray", "Contexts", "Any flag", "Gained", "Lost", "%")


@dataclass(frozen=True)
class Chapter:
    """A mask, and when it was in force.

    Attributes
    ----------
    mask : `~core.mask.Mask`
        The mask.
    after : str
        Date and time of observation from which a rule chooses it.
    subarray : str
        For which subarrays.
    first, last : str
        The mirror's contexts in which it is chosen.
    """

    mask: Mask
    after: str
    subarray: str
    first: str
    last: str

    def counts(self) -> dict[str, int]:
        """Return pixels by mnemonic."""
        flagged = self.mask.dq[self.mask.dq != 0]
        found = {name: int(np.count_nonzero(flagged & bit)) for name, bit in PIXEL_FLAGS.items()}
        return {name: number for name, number in found.items() if number}


def chapters(mirror: Mirror, detector: str) -> list[Chapter]:
    """Read the masks that any context of a mirror chooses for a detector, by date.

    Those of the most usual shape are told: a page shows one shape.

    Raises
    ------
    UserError
        If no rule names the detector.
    ReferenceUnavailable
        If a file is not there, or is no mask.
    """
    found: dict[str, tuple[str, str, str, str, str]] = {}
    for context in mirror.contexts():
        for rule in mirror.context(context).rules:
            if rule.value("DETECTOR") != detector or rule.mask == "N/A":
                continue
            _, _, _, first, _ = found.get(rule.mask, ("", "", "", context, ""))
            subarray = rule.value("SUBARRAY.NAME")
            found[rule.mask] = (rule.instrument, rule.after, subarray, first, context)
    if not found:
        raise UserError(f"{mirror.location}: no rule chooses a mask for {detector}")
    read = [
        Chapter(mask_in(mirror, name, instrument), after, subarray, first, last)
        for name, (instrument, after, subarray, first, last) in found.items()
    ]
    ((shape, _),) = Counter(chapter.mask.dq.shape for chapter in read).most_common(1)
    usual = [chapter for chapter in read if chapter.mask.dq.shape == shape]
    return sorted(usual, key=lambda chapter: (chapter.after, chapter.mask.name))


def history_look(detector: str, told: list[Chapter], mirror: str) -> Look:
    """Return the page's picture: a plane for each mask."""
    planes = tuple(
        plane(
            chapter.mask.dq, f"{chapter.mask.name}, from {chapter.after[:10]}", is_one_of_many=True
        )
        for chapter in told
    )
    facts = (
        ("Detector", detector),
        ("Masks", f"{len(told)}, from {told[0].after[:10]} on"),
        ("Mirror", mirror),
    )
    ny, nx = told[0].mask.dq.shape
    return Look(f"Masks of {detector}", facts, Picture(planes, (ny, nx)))


def history_table(told: list[Chapter]) -> dict[str, Any]:
    """Return what history.html shows below the picture: a plot, and a row for each mask."""
    counts = [chapter.counts() for chapter in told]
    names = [name for name in PIXEL_FLAGS if any(name in one for one in counts)]
    rows, before = [], None
    for chapter, one in zip(told, counts, strict=True):
        rows.append(_row(chapter, one, names, before))
        before = chapter.mask.dq
    return {"plot": _plot(told, counts), "columns": [*_COLUMNS, *names], "rows": rows}


def _row(
    chapter: Chapter,
    counts: dict[str, int],
    names: list[str],
    before: NDArray[np.uint32] | None,
) -> list[str]:
    dq = chapter.mask.dq
    gained = lost = ""
    if before is not None:
        gained = f"{int(np.count_nonzero((before == 0) & (dq != 0))):,}"
        lost = f"{int(np.count_nonzero((before != 0) & (dq == 0))):,}"
    return [
        chapter.mask.name,
        chapter.after[:10],
        chapter.subarray,
        f"{chapter.first[5:9]} to {chapter.last[5:9]}",
        f"{int(np.count_nonzero(dq)):,}",
        gained,
        lost,
        f"{100 * counts.get('DO_NOT_USE', 0) / dq.size:.2f}",
        *(f"{counts.get(name, 0):,}" for name in names),
    ]


def _plot(told: list[Chapter], counts: list[dict[str, int]]) -> str:
    """Return a plot as a data URI: in an img element no script of an SVG runs."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(told))
    flagged = [int(np.count_nonzero(chapter.mask.dq)) for chapter in told]
    axes.plot(places, flagged, "o-", color="#0b6db0", label="any flag")
    unusable = [one.get("DO_NOT_USE", 0) for one in counts]
    axes.plot(places, unusable, "o-", color="#c8400a", label="DO_NOT_USE")
    # parse_math: a date is text of a rule file, in which $ must not begin a formula.
    axes.set_xticks(
        places, [printable(one.after[:10]) for one in told], parse_math=False, fontsize="small"
    )
    axes.tick_params(axis="x", rotation=30)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("pixels")
    axes.legend()
    image = BytesIO()
    figure.savefig(image, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{b64encode(image.getvalue()).decode()}"
