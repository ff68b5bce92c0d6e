"""Arms compared over seeds: one table for the terminal, the report and a file of values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trillium.evaluation import format_interval
from trillium.files import write_atomically
from trillium.report.content import Cell, Headline, ReportData, Section, Settings, Table
from trillium.report.render import render_report

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class ArmsReport:
    """Say what surrounds a table of arms: its words, the settings, and what arms share."""

    title: str
    subtitle: str
    headlines: tuple[Headline, ...]
    section: str
    settings: Mapping[str, object]
    command: str
    seeds: tuple[int, ...]
    shared_seconds: float
    further: tuple[Table, ...] = ()


def render_arms(title: str, table: Table, *, shown: Sequence[str]) -> "RichTable":
    """Return the table for the terminal: the columns `shown`, names of arms never broken."""
    from rich.table import Table as RichTable

    rendered = RichTable(title=title)
    places = [table.columns.index(name) for name in shown]
    for place in places:
        rendered.add_column(table.columns[place], no_wrap=place == 0)
    for row in table.rows:
        rendered.add_row(*(cell_text(row[place]) for place in places))
    return rendered


def write_arms(folder: Path, name: str, table: Table, report: ArmsReport) -> Path:
    """Write `name` with all cells as text, and `report.html`; returns the report.

    Tables of `report.further` follow the first one, in the file by their titles.
    """
    shared = round(report.shared_seconds, 1)
    values = {"seeds": list(report.seeds), "shared_seconds": shared, "arms": _as_text(table)}
    if report.further:
        values["further"] = {one.title: _as_text(one) for one in report.further}
    write_atomically(folder / name, json.dumps(values, indent=2) + "\n")
    page = ReportData(
        title=report.title,
        subtitle=report.subtitle,
        headlines=report.headlines,
        sections=(
            Section(report.section, (table, *report.further)),
            Section("Settings", (Settings("config", report.settings),)),
        ),
        footer=f"{report.command}, {shared:.0f} s per seed shared by all arms",
    )
    path = folder / "report.html"
    write_atomically(path, render_report(page))
    return path


def cell_text(cell: Cell) -> str:
    """Return a cell with three digits and its interval; n/a for nothing."""
    if cell is None:
        return "n/a"
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return str(cell) if isinstance(cell, str | int) else format_interval(cell)


def _as_text(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, map(cell_text, row), strict=True)) for row in table.rows]
