"""A detector's masks, one after another: what each of them gains and loses."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from core.flags import PIXEL_FLAGS
from core.mask import Mask
from infra.look.flags import Look
from infra.look.masks import mask_in
from infra.look.pictures import Picture, plane
from infra.mirror.bucket import Mirror
from infra.terminal import Mistake

__all__ = ["Chapter", "chapters", "history_look", "history_table"]

_WIDTH, _HEIGHT, _EDGE = 900, 220, 40


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
    Mistake
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
        raise Mistake(f"{mirror.location}: no rule chooses a mask for {detector}")
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


def history_table(told: list[Chapter]) -> str:
    """Return the HTML below the picture: curves, and a row for each mask."""
    counts = [chapter.counts() for chapter in told]
    names = [name for name in PIXEL_FLAGS if any(name in one for one in counts)]
    headings = "".join(
        f'<th scope="col">{escape(text)}</th>'
        for text in (
            "Mask",
            "From",
            "Subarray",
            "Contexts",
            "Any flag",
            "Gained",
            "Lost",
            "%",
            *names,
        )
    )
    rows, before = "", None
    for number, (chapter, one) in enumerate(zip(told, counts, strict=True)):
        rows += _row(number, chapter, one, names, before)
        before = chapter.mask.dq
    flagged = [int(np.count_nonzero(chapter.mask.dq)) for chapter in told]
    unusable = [one.get("DO_NOT_USE", 0) for one in counts]
    return (
        f"<h2>Flagged pixels</h2>{_curves(told, flagged, unusable)}<h2>Masks</h2>"
        f'<div class="wide"><table><thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table>'
        "</div><p class='key'>% is the share of all pixels that are DO_NOT_USE. Gained and lost: "
        "pixels of any flag, against the row before. A row shows its mask above.</p>"
    )


def _row(
    number: int,
    chapter: Chapter,
    counts: dict[str, int],
    names: list[str],
    before: NDArray[np.uint32] | None,
) -> str:
    dq = chapter.mask.dq
    gained = lost = ""
    if before is not None:
        gained = f"{int(np.count_nonzero((before == 0) & (dq != 0))):,}"
        lost = f"{int(np.count_nonzero((before != 0) & (dq == 0))):,}"
    contexts = f"{chapter.first[5:9]} to {chapter.last[5:9]}"
    share = 100 * counts.get("DO_NOT_USE", 0) / dq.size
    cells = [
        chapter.mask.name,
        chapter.after[:10],
        chapter.subarray,
        contexts,
        f"{int(np.count_nonzero(dq)):,}",
        gained,
        lost,
        f"{share:.2f}",
        *(f"{counts.get(name, 0):,}" for name in names),
    ]
    told = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr data-plane="{number}" tabindex="0">{told}</tr>'


def _curves(told: list[Chapter], flagged: list[int], unusable: list[int]) -> str:
    """Two lines over the masks, in order."""
    most = max([*flagged, 1])
    lines = "".join(
        f'<polyline points="{_points(values, most)}" fill="none" stroke="var(--{colour})" '
        'stroke-width="2"/>'
        for values, colour in ((flagged, "second"), (unusable, "first"))
    )
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="var(--{colour})"/>'
        for values, colour in ((flagged, "second"), (unusable, "first"))
        for x, y in _places(values, most)
    )
    ends = (
        f'<text x="{_EDGE}" y="{_HEIGHT - 8}">{told[0].after[:10]}</text>'
        f'<text x="{_WIDTH - _EDGE}" y="{_HEIGHT - 8}" text-anchor="end">'
        f"{told[-1].after[:10]}</text>"
        f'<text x="{_EDGE}" y="16">{most:,} pixels</text>'
    )
    return (
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Flagged pixels by mask">{lines}{dots}{ends}</svg>'
        '<p class="key"><span class="swatch second"></span>any flag'
        '<span class="swatch first"></span>DO_NOT_USE</p>'
    )


def _places(values: list[int], most: int) -> Iterable[tuple[float, float]]:
    step = (_WIDTH - 2 * _EDGE) / max(len(values) - 1, 1)
    room = _HEIGHT - 2 * _EDGE
    for number, value in enumerate(values):
        yield _EDGE + number * step, _HEIGHT - _EDGE - room * value / most


def _points(values: list[int], most: int) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in _places(values, most))
