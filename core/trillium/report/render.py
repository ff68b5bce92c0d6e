"""A report as one HTML file: no script, no network, no file beside it.

The page forbids everything but its own inline styles by a content security policy, and every value
is escaped by the template, because most of the text on it was written by a model.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trillium.report.content import Bars, Block, Curves, ReportData, SamplePair, SampleRow, Settings
from trillium.report.plots import count_left_out, draw_bars, draw_curves
from trillium.report.text import (
    flatten,
    format_bounds,
    format_cell,
    mark_changed_lines,
    show_invisible,
)


def render_report(report: ReportData) -> str:
    """Return the HTML page; the same report gives the same page."""
    return _environment().get_template("report.html.j2").render(report=report)


@dataclass(frozen=True)
class _Line:
    text: str
    is_changed: bool


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trillium.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": _kind,
        "plot": _plot,
        "left_out": count_left_out,
        "cell": format_cell,
        "bounds": format_bounds,
        "shown": show_invisible,
        "sides": _sides,
        "columns": _columns,
        "settings": _settings,
        "numeric": _is_numeric_column,
    }
    return environment


def _kind(block: Block) -> str:
    return type(block).__name__


def _plot(block: Curves | Bars) -> Markup:
    # The only markup that is not escaped: matplotlib wrote it and escaped the labels in it.
    return Markup(draw_curves(block) if isinstance(block, Curves) else draw_bars(block))


def _sides(pair: SamplePair) -> list[list[_Line]]:
    sides = mark_changed_lines(show_invisible(pair.left.text), show_invisible(pair.right.text))
    return [[_Line(text, is_changed) for text, is_changed in side] for side in sides]


def _columns(row: SampleRow) -> list[list[_Line]]:
    """Return the lines of each text, marked where the first one lacks them."""
    texts = [None if one is None else show_invisible(one.text) for one in row.samples]
    first = texts[0]
    columns = []
    for place, text in enumerate(texts):
        lines = [(line, False) for line in (text or "").split("\n")]
        if place and first is not None and text is not None:
            lines = mark_changed_lines(first, text)[1]
        columns.append([_Line(line, is_changed) for line, is_changed in lines])
    return columns


def _settings(settings: Settings) -> list[tuple[str, str]]:
    return list(flatten(settings.values))


def _is_numeric_column(rows: Sequence[Sequence[object]], column: int) -> bool:
    cells = [row[column] for row in rows if row[column] is not None]
    return bool(cells) and not any(isinstance(cell, str) for cell in cells)
