"""Pages of an archive's catalogue: detectors by month, and the exposures of each cell."""

import re
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import duckdb

from infra.look.page import plain_page

__all__ = ["write_catalogue"]

_LISTED = 500
_CELLS = """
SELECT coalesce(detector, '?') AS detector, coalesce(nullif(observed[:7], ''), '?') AS month,
       count(*) AS exposures, count(failure_error) AS failures,
       sum(do_not_use) / nullif(sum(pixels), 0) AS fraction,
       coalesce(list_sort(list(DISTINCT mask) FILTER (mask IS NOT NULL)), []) AS masks
FROM read_parquet(?) GROUP BY ALL ORDER BY ALL
"""
_EXPOSURES = """
SELECT input_key, mask, context, do_not_use / nullif(pixels, 0), failure_error, product_key
FROM read_parquet(?) WHERE coalesce(detector, '?') = ?
AND coalesce(nullif(observed[:7], ''), '?') = ? ORDER BY ALL LIMIT ?
"""


def write_catalogue(path: Path, folder: Path) -> Path:
    """Write the pages of a catalogue's Parquet file; returns the first of them."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = duckdb.execute(_CELLS, [str(path)]).fetchall()
    by_detector: dict[str, dict[str, tuple[Any, ...]]] = defaultdict(dict)
    for detector, month, *told in cells:
        by_detector[detector][month] = tuple(told)
        name = _file(detector, month)
        found = duckdb.execute(_EXPOSURES, [str(path), detector, month, _LISTED]).fetchall()
        (folder / name).write_text(_cell_page(detector, month, told, found))
    months = sorted({month for _, month, *_ in cells})
    index = folder / "catalogue.html"
    total = sum(row[2] for row in cells)
    facts = (("Products", f"{total:,}"), ("Detectors", str(len(by_detector))))
    index.write_text(
        plain_page("Products by detector and month", facts, _grid(by_detector, months))
    )
    return index


def _file(detector: str, month: str) -> str:
    words = re.sub(r"[^A-Za-z0-9-]+", "_", f"{detector}-{month}".replace("?", "unknown"))
    return f"{words.lower()}.html"


def _grid(by_detector: dict[str, dict[str, tuple[Any, ...]]], months: list[str]) -> str:
    head = "".join(f'<th scope="col">{escape(month)}</th>' for month in months)
    rows = ""
    for detector, told in sorted(by_detector.items()):
        cells = "".join(_grid_cell(detector, month, told.get(month)) for month in months)
        rows += f'<tr><th scope="row">{escape(detector)}</th>{cells}</tr>'
    return (
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><p class='key'>Exposures; the share of pixels that "
        "are DO_NOT_USE; masks used; failures. Each cell leads to its exposures.</p>"
    )


def _grid_cell(detector: str, month: str, told: tuple[Any, ...] | None) -> str:
    if told is None:
        return "<td></td>"
    exposures, failures, fraction, masks = told
    share = "" if fraction is None else f"<br>{100 * fraction:.2f} %"
    failed = f'<br><b style="color: var(--first)">{failures} failed</b>' if failures else ""
    plural = "s" * (len(masks) != 1)
    return (
        f'<td class="heat"><a href="{_file(detector, month)}">{exposures:,}</a>{share}'
        f"<br>{len(masks)} mask{plural}{failed}</td>"
    )


def _cell_page(detector: str, month: str, told: Iterable[Any], found: list[tuple[Any, ...]]) -> str:
    exposures, failures, _, masks = told
    facts = (
        ("Exposures", f"{exposures:,}"),
        ("Failures", str(failures)),
        ("Masks", ", ".join(masks) or "none"),
    )
    rows = "".join(
        f"<tr><td>{escape(key or product)}</td><td>{escape(mask or '')}</td>"
        f"<td>{escape(context or '')}</td><td>{'' if share is None else f'{100 * share:.2f}'}</td>"
        f"<td>{escape(error or '')}</td></tr>"
        for key, mask, context, share, error, product in found
    )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Exposure", "Mask", "Context", "% DO_NOT_USE", "Failure")
    )
    left = f"<p>The first {_LISTED} are listed.</p>" if exposures > _LISTED else ""
    body = (
        '<p><a href="catalogue.html">All detectors</a></p><div class="wide"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>{left}"
    )
    return plain_page(f"{detector}, {month}", facts, body)
