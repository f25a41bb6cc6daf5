"""Rows of the results: how the cases of one mode compare with jwst."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Difference", "Row", "report_row"]


@dataclass(frozen=True)
class Difference:
    """One difference of a case; other cases may share its kind of exposure and `what`."""

    case: str
    what: str
    detail: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.case}: {self.what}: {self.detail}"


@dataclass
class Row:
    """One row of the results."""

    what: str
    compared: str
    cases: int = 0
    refused: int = 0
    stricter: Counter[str] = field(default_factory=Counter)
    golden: list[dict[str, Any]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def differs(self, case: str, what: str, detail: str, kind: str = "") -> None:
        """Record a difference."""
        self.differences.append(Difference(case, what, detail, kind))


def report_row(row: Row) -> Row:
    """Print the outcome of a row."""
    print(
        f"{row.what}: {row.cases} cases, {row.refused} refused by both, {len(row.differences)} differences",
        flush=True,
    )
    for difference in row.differences[:5]:
        print(f"    {str(difference)[:600]}", flush=True)
    return row
