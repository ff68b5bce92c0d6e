"""Reports: plain values in (`content`), one self-contained HTML page out (`render_report`).

`standard` has the blocks that every application shows.
"""

from trillium.report.content import (
    Bars,
    BarSeries,
    Curves,
    Headline,
    ReportData,
    Sample,
    SamplePair,
    SamplePairs,
    SampleRow,
    SampleRows,
    Section,
    Series,
    Settings,
    Table,
)
from trillium.report.render import render_report

__all__ = [
    "BarSeries",
    "Bars",
    "Curves",
    "Headline",
    "ReportData",
    "Sample",
    "SamplePair",
    "SamplePairs",
    "SampleRow",
    "SampleRows",
    "Section",
    "Series",
    "Settings",
    "Table",
    "render_report",
]
