"""Explanation of a product: the exposure, the rule that chose its mask, and its window."""

from dataclasses import dataclass

from core.errors import InputRejected
from core.exposure import Exposure
from core.stripes import DETECTOR_SIZE
from handler.crds.masks import MaskChoice, References
from handler.crds.parameters import FITS_KEYWORDS
from infra.mirror.contexts import read_context


@dataclass(frozen=True)
class Explanation:
    """Facts about an exposure and its mask, as ``--check`` prints them."""

    exposure: str
    kind: str
    shape: tuple[int, int, int, int]  # integrations, groups, rows, columns
    rules: tuple[str, ...]  # the rules that name the mask
    science_window: str | None = None
    detector_window: str | None = None
    stripes: str | None = None


def explain(exposure: Exposure, choice: MaskChoice, references: References | None) -> Explanation:
    """Explain an exposure's mask; without references, an option named it."""
    words = (exposure.keywords.text(name) for name in ("INSTRUME", "DETECTOR", "EXP_TYPE"))
    return Explanation(
        " ".join(filter(None, words)),
        exposure.kind.value,
        exposure.shape,
        _rules(exposure, choice, references) if references else ("named by an option",),
        *_windows(exposure),
    )


def _rules(exposure: Exposure, choice: MaskChoice, references: References) -> tuple[str, ...]:
    instrument = exposure.keywords.word("INSTRUME") or ""
    context = read_context(choice.context, references.rules, frozenset({instrument}))
    rules = [rule for rule in context.rules if rule.mask == choice.mask]
    found = []
    for rule in rules:
        values = (f"{FITS_KEYWORDS[name]} {value}" for name, value in rule.parameters)
        found.append(f"{context.mappings[-1]}: {'; '.join(values)}; observed from {rule.after}")
    return tuple(found) or (f"{context.mappings[-1]}: no mask applies",)


def _windows(exposure: Exposure) -> tuple[str | None, str | None, str | None]:
    """Return the pixels that were read out, from 1, in the science and the detector frame."""
    try:
        area, stripes = exposure.subarray, exposure.stripes
        axes = [exposure.keywords.integer(name) or 0 for name in ("FASTAXIS", "SLOWAXIS")]
    except InputRejected:  # without a mask, the step does not need the keywords
        return None, None, None
    if area is None:
        return None, None, None
    spans = {
        1: (area.xstart, area.xstart + area.xsize - 1),
        2: (area.ystart, area.ystart + area.ysize - 1),
    }
    keywords = str(stripes) if stripes else None
    science = f"x {spans[1][0]} to {spans[1][1]}, y {spans[2][0]} to {spans[2][1]}"
    if sorted(map(abs, axes)) != [1, 2]:
        return science, None, keywords
    texts = []
    for name, axis in zip(("fast axis", "slow axis"), axes, strict=True):
        first, last = spans[abs(axis)]
        if axis < 0:  # read backwards
            first, last = DETECTOR_SIZE + 1 - last, DETECTOR_SIZE + 1 - first
        texts.append(f"{name} {first} to {last}")
    return science, ", ".join(texts), keywords
