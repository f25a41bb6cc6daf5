"""The table that shows a selection at a terminal."""

import json

from rich.box import SIMPLE
from rich.table import Table

from infra.cli import plural
from infra.console import Console, lines
from infra.cost.estimate import exposure_usd
from infra.reprocess.select import Effect, Selection, WindowTotals


def show(selection: Selection, product: str, console: Console, *, as_json: bool) -> None:
    """Print the totals of a selection by detector and window, as a table or as JSON.

    `product` is native, float32 or virtual, as the stack builds it.
    """
    totals, to = selection.totals(), selection.after.context
    if as_json:
        windows = [{"of": window, **vars(total)} for window, total in totals.items()]
        print(json.dumps({"to": to, "windows": windows}))
        return
    by_pixels = selection.comparison is not None
    table = Table(
        box=SIMPLE, title=f"Products that change with {to}", pad_edge=False, collapse_padding=True
    )
    table.add_column(lines("Detector,", "window"), no_wrap=True)
    for heading in (("Expo-", "sures"), ("by", "name"), ("by", "content"), ("by", "pixels")):
        table.add_column(lines(*heading), justify="right")
    table.add_column(lines("Flags that its", "pixels gain and lose"), overflow="fold")
    sums, usd, requested = [0, 0, 0, 0], 0.0, 0
    for (instrument, detector, window), total in totals.items():
        counts = _counts(total)
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        requested += total.by_change[Effect.REQUESTED.value]
        usd += exposure_usd(total.bytes // total.exposures, product) * counts[2 + by_pixels]
        if any(counts[1:]):
            flags = [f"+{number} {name}" for name, number in sorted(total.gained.items())]
            flags += [f"-{number} {name}" for name, number in sorted(total.lost.items())]
            cells = _cells(counts, by_pixels=by_pixels)
            table.add_row(lines(f"{instrument} {detector}", window), *cells, ", ".join(flags))
    table.add_section()
    table.add_row("all", *_cells(sums, by_pixels=by_pixels), "")
    console.print(table)
    number = sums[2 + by_pixels]
    found = "other pixels" if by_pixels else "a mask of other content; pixels were not compared"
    cost = "less than 0.01" if number and usd < 0.01 else f"about {usd:.2f}"
    console.print(f"{plural(number, 'product')} with {found}; rebuilding costs {cost} USD.")
    if requested:
        console.print(
            "Left unchanged, because a request named the mask, user DQ or version: "
            f"{plural(requested, 'product')}."
        )
    for problem, number in selection.problems().items():
        text = f"{plural(number, 'product')} not selected, cannot be decided: {problem}"
        console.print(text, soft_wrap=True, style="bold red")


def _counts(total: WindowTotals) -> list[int]:
    """Return the products in all, and those changed by name, by content and by pixels.

    Each number includes the next.
    """
    pixels = total.by_change[Effect.PIXELS.value]
    content = total.by_change[Effect.CONTENT.value] + pixels
    return [total.exposures, total.by_change[Effect.NAME.value] + content, content, pixels]


def _cells(counts: list[int], *, by_pixels: bool) -> list[str]:
    return [*map(str, counts[:3]), str(counts[3]) if by_pixels else "-"]
