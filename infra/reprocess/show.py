"""What a selection and an audit come to, as a person at a terminal sees it."""

import json

from rich.box import SIMPLE
from rich.table import Table

from infra.cli import plural
from infra.console import Console, lines
from infra.cost.estimate import exposure_usd
from infra.reprocess.affected import Affected
from infra.reprocess.audit import Finding
from infra.reprocess.select import Change, Tally

__all__ = ["show", "show_findings"]


def show_findings(findings: list[Finding], console: Console) -> None:
    """Print what an audit has found."""
    for finding in findings:
        console.print(f"{finding.product}: {finding.what}", soft_wrap=True)
    console.print(f"{len(findings)} findings")


def show(answer: Affected, console: Console, *, as_json: bool) -> None:
    """Print what a context affects, by detector and window."""
    tallies = answer.tallies()
    if as_json:
        rows = [{"of": key, **tally.to_plain()} for key, tally in tallies.items()]
        print(json.dumps({"to": answer.to, "windows": rows}))
        return
    _show_tallies(answer, tallies, console)
    for problem, number in answer.problems().items():
        console.print(f"{number} cannot be decided: {problem}", soft_wrap=True, style="bold red")


def _show_tallies(
    answer: Affected, tallies: dict[tuple[str, str, str], Tally], console: Console
) -> None:
    by_pixels = answer.selection.differences is not None
    title = f"Products that change with {answer.to}"
    table = Table(box=SIMPLE, title=title, pad_edge=False, collapse_padding=True)
    table.add_column(lines("Detector,", "window"), no_wrap=True)
    for heading in (("Expo-", "sures"), ("by", "name"), ("by", "content"), ("by", "pixels")):
        table.add_column(lines(*heading), justify="right")
    table.add_column(lines("Flags that its", "pixels gain and lose"), overflow="fold")
    total, usd = Tally(), 0.0
    for (instrument, detector, window), tally in tallies.items():
        total.merge(tally)
        counts = _counts(tally)
        usd += exposure_usd(tally.size // max(tally.exposures, 1)) * counts[1 + by_pixels]
        if sum(counts):
            cells = _cells(tally, by_pixels=by_pixels)
            table.add_row(lines(f"{instrument} {detector}", window), *cells, _flags(tally))
    table.add_section()
    table.add_row("all", *_cells(total, by_pixels=by_pixels), "")
    console.print(table)
    number = _counts(total)[1 + by_pixels]
    found = "other pixels" if by_pixels else "a mask of other content; pixels were not compared"
    console.print(
        f"{plural(number, 'product')} with {found}; rebuilding costs "
        f"{'less than 0.01' if number and usd < 0.01 else f'about {usd:.2f}'} USD."
    )
    left = total.by_change[Change.EXPRESSLY.value]
    if left:
        console.print(
            f"Left alone, because a request named the mask, user DQ or version: "
            f"{plural(left, 'product')}."
        )


def _cells(tally: Tally, *, by_pixels: bool) -> list[str]:
    name, content, pixels = _counts(tally)
    return [str(n) for n in (tally.exposures, name, content, pixels if by_pixels else "-")]


def _counts(tally: Tally) -> tuple[int, int, int]:
    """Products of another name, another content, other pixels: each among those before it."""
    pixels = tally.by_change[Change.PIXELS.value]
    content = tally.by_change[Change.CONTENT.value] + pixels
    return tally.by_change[Change.NAME.value] + content, content, pixels


def _flags(tally: Tally) -> str:
    gained = [f"+{n} {name}" for name, n in sorted(tally.gained.items())]
    lost = [f"-{n} {name}" for name, n in sorted(tally.lost.items())]
    return ", ".join(gained + lost)
