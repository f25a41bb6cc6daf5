"""Explanation of a product: its exposure, the rules that name its mask, and its window."""

from core.errors import InputRejected
from core.exposure import Exposure
from core.stripes import DETECTOR_SIZE
from handler.crds.masks import MaskChoice, References
from handler.crds.parameters import FITS_KEYWORDS
from infra.mirror.contexts import read_context


def explain(
    exposure: Exposure, choice: MaskChoice, references: References | None
) -> dict[str, str]:
    """Return facts about an exposure and its mask, by heading.

    `references` is None if an option, not the rules, named the mask.
    """
    words = (exposure.keywords.text(name) for name in ("INSTRUME", "DETECTOR", "EXP_TYPE"))
    shape = "{} integrations, {} groups, {} rows, {} columns".format(*exposure.shape)
    return {
        "Exposure": f"{' '.join(filter(None, words))}, {exposure.kind.value}: {shape}",
        "Rule": _rules(exposure, choice, references) if references else "named by an option",
        **_windows(exposure),
    }


def _rules(exposure: Exposure, choice: MaskChoice, references: References) -> str:
    instrument = exposure.keywords.word("INSTRUME") or ""
    context = read_context(choice.context, references.rules, frozenset({instrument}))
    found = []
    for rule in (rule for rule in context.rules if rule.mask == choice.mask):
        values = (f"{FITS_KEYWORDS[name]} {value}" for name, value in rule.parameters)
        found.append(f"{', '.join(values)}, observed from {rule.after}")
    return f"{context.mappings[-1]}: {'; or '.join(found) or 'no mask applies'}"


def _windows(exposure: Exposure) -> dict[str, str]:
    """Return the 1-based ranges of pixels read out, and any stripes, as texts by heading.

    The window on the detector is left out if the keywords place it outside the detector.
    """
    try:
        area, stripes = exposure.subarray, exposure.stripes
        axes = [exposure.keywords.integer(name) or 0 for name in ("FASTAXIS", "SLOWAXIS")]
    except InputRejected:  # without a mask, the step does not need the keywords
        return {}
    if area is None:
        return {}
    x = (area.xstart, area.xstart + area.xsize - 1)
    y = (area.ystart, area.ystart + area.ysize - 1)
    texts = [f"{first} to {last}" for first, last in (x, y)]
    if stripes and abs(axes[1]) in {1, 2}:  # stripes read other rows than the subarray's
        texts[abs(axes[1]) - 1] = "in stripes"
    found = {"Science window": "x {}, y {}".format(*texts)}
    if sorted(map(abs, axes)) == [1, 2]:
        ends = [x if abs(axis) == 1 else y for axis in axes]
        fast, slow = (
            (DETECTOR_SIZE + 1 - last, DETECTOR_SIZE + 1 - first) if axis < 0 else (first, last)
            for axis, (first, last) in zip(axes, ends, strict=True)
        )
        rows = "in stripes" if stripes else "{} to {}".format(*slow)
        shown = fast if stripes else (*fast, *slow)
        if min(shown) >= 1 and max(shown) <= DETECTOR_SIZE:
            found["Detector window"] = "fast axis {} to {}, slow axis {}".format(*fast, rows)
    return found | ({"Stripes": str(stripes)} if stripes else {})
