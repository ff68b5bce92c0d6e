import pytest
from trillium.evaluation import Interval
from trillium.report import (
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


def report_that_says(text: str) -> ReportData:
    """Build a report with every kind of block and `text` wherever text can go."""
    blocks = (
        Table(text, (text, "value"), ((text, 0.5), (text, Interval(0.4, 0.3, 0.5))), note=text),
        Curves(text, text, text, (Series(text, (1.0, 2.0), (0.5, 0.25)),), note=text),
        Bars(text, text, (text,), (BarSeries(text, (Interval(0.4, 0.3, 0.5),)),), note=text),
        SamplePairs(
            text,
            text,
            text,
            (SamplePair(text, text, Sample(text, text, False), Sample(text + "!", text, True)),),
            note=text,
        ),
        SampleRows(
            text,
            (text, text),
            (SampleRow(text, text, (Sample(text, text, False), None)),),
            note=text,
        ),
        Settings(text, {text: {text: text, "list": [text]}}),
    )
    return ReportData(
        title=text,
        subtitle=text,
        headlines=(Headline(text, text, unit=text, was=text, detail=text),),
        sections=(Section(text, blocks, intro=text),),
        footer=text,
    )


@pytest.fixture(scope="session")
def say():
    return report_that_says
