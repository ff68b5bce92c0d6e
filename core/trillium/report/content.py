"""What a report can show, as plain frozen values: no application's words, no HTML, no files.

A report is a title, a few headline figures and sections; a section holds tables, curves, bars,
sample pairs and settings in the order in which they are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trillium.evaluation.intervals import Interval

Cell = str | int | float | Interval | None  # None is shown as n/a


@dataclass(frozen=True)
class Headline:
    """One figure that a reader should take away."""

    label: str
    value: str
    unit: str = ""
    was: str = ""  # the value before, where there is one
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Series:
    """One line of a plot, or points; a value that is not finite is left out and counted."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    is_points: bool = False


@dataclass(frozen=True)
class Curves:
    """Lines over a common axis; labels carry their unit."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    note: str = ""


@dataclass(frozen=True)
class BarSeries:
    """One value per group, with its interval where there is one."""

    name: str
    values: tuple[float | Interval, ...]


@dataclass(frozen=True)
class Bars:
    """Grouped bars; `is_horizontal` suits long group names."""

    title: str
    value_label: str
    groups: tuple[str, ...]
    series: tuple[BarSeries, ...]
    is_horizontal: bool = False
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """A text that a model wrote, with what was found out about it."""

    text: str
    verdict: str = ""
    is_good: bool | None = None  # None: no judgement


@dataclass(frozen=True)
class SamplePair:
    """Two texts for the same prompt."""

    name: str
    prompt: str
    left: Sample
    right: Sample


@dataclass(frozen=True)
class SamplePairs:
    """Samples side by side: before and after, chosen and rejected."""

    title: str
    left_label: str
    right_label: str
    pairs: tuple[SamplePair, ...]
    note: str = ""


@dataclass(frozen=True)
class SampleRow:
    """Texts of several systems for the same prompt; None where a system has none."""

    name: str
    prompt: str
    samples: tuple[Sample | None, ...]


@dataclass(frozen=True)
class SampleRows:
    """Samples of several systems side by side, a label for each."""

    title: str
    labels: tuple[str, ...]
    rows: tuple[SampleRow, ...]
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """Nested settings, shown as dotted keys and folded away until asked for."""

    title: str
    values: Mapping[str, object]


Block = Table | Curves | Bars | SamplePairs | SampleRows | Settings


@dataclass(frozen=True)
class Section:
    """A heading, an optional sentence, and what belongs under it."""

    title: str
    blocks: tuple[Block, ...]
    intro: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows; equal data gives an equal file."""

    title: str
    subtitle: str  # one sentence: which policy, which tasks, which objective
    headlines: tuple[Headline, ...]
    sections: tuple[Section, ...]
    footer: str = ""  # the command that made it, version, date
