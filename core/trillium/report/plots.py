"""Curves and bars as inline SVG whose colours are CSS variables, so that they follow the page.

matplotlib draws with marker colours; they become `var(--...)` afterwards. Figures are objects of
their own: no pyplot, no global state, and the same content gives the same text.
"""

import hashlib
import html
import io
import math
import re
import warnings

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trillium.evaluation.intervals import Interval
from trillium.report.content import Bars, Curves, Series
from trillium.report.text import show_invisible

# Marker colours: any six digits that matplotlib leaves alone and that nothing else uses.
_INK, _FAINT, _CARD = "#01a0f1", "#01a0f2", "#01a0f3"
_SERIES = ("#01b0f1", "#01b0f2", "#01b0f3", "#01b0f4", "#01b0f5", "#01b0f6")
_VARIABLES = {_INK: "--plot-ink", _FAINT: "--plot-grid", _CARD: "--card"} | {
    color: f"--series-{number}" for number, color in enumerate(_SERIES, 1)
}
# The words of every application keep their colour in every plot; other names take what is left.
_ROLES = {"chosen": 0, "rejected": 1, "after": 2, "before": 5}
# Colour is never the only difference between lines.
_DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.5, 1.4, 1.5)), (0, (9, 2)), "-")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _FAINT,
    "legend.frameon": False,
}


# Longer labels leave no room for the plot; the table under it has them whole.
_MAX_LABEL = 44


def draw_curves(curves: Curves) -> str:
    """Return lines over a common axis as an SVG element; empty text without a finite point."""
    series = [_finite(one) for one in curves.series]
    if not any(one.x for one in series):
        return ""
    with style.context(_STYLE | {"svg.hashsalt": _salt(curves)}):
        figure = Figure(figsize=(6.4, 3.5), layout="constrained")
        axes = figure.add_subplot()
        for place, one in enumerate(series):
            # From the seventh line on colours return, with other dashes and markers.
            turn = (place + place // 6) % 6
            color, marker = _color(one.name, place), _MARKERS[turn]
            axes.plot(
                one.x,
                one.y,
                color=color,
                linestyle="none" if one.is_points else _DASHES[turn],
                linewidth=2.0,
                marker=marker if one.is_points or len(one.x) <= 30 else None,
                markersize=4.5,
                label=_label(one.name),
            )
        if all(float(value).is_integer() for one in series for value in one.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        _finish(axes, curves.x_label, curves.y_label, n_series=len(series), grid_axis="y")
        return _to_svg(figure, describe_curves(curves))


def draw_bars(bars: Bars) -> str:
    """Return grouped bars as an SVG element; empty text when there are none."""
    if not bars.groups or not bars.series:
        return ""
    with style.context(_STYLE | {"svg.hashsalt": _salt(bars)}):
        n_bars = len(bars.groups) * len(bars.series)
        height = 1.1 + 0.36 * n_bars if bars.is_horizontal else 3.5
        figure = Figure(figsize=(6.4, height), layout="constrained")
        axes = figure.add_subplot()
        _fill_bars(axes, bars)
        if bars.is_horizontal:
            axes.invert_yaxis()
            labels, grid = (bars.value_label, ""), "x"
        else:
            labels, grid = ("", bars.value_label), "y"
        _finish(axes, *labels, n_series=len(bars.series), grid_axis=grid)
        return _to_svg(figure, describe_bars(bars))


def describe_curves(curves: Curves) -> str:
    """Return a plot's content in words, for readers who cannot see it."""
    ends = [
        f"{one.name} goes from {one.y[0]:.4g} to {one.y[-1]:.4g}"
        for one in map(_finite, curves.series)
        if one.x
    ]
    return f"{curves.title}, {curves.y_label} over {curves.x_label}: {'; '.join(ends)}"


def describe_bars(bars: Bars) -> str:
    """Return the values of a bar plot in words."""
    values = [
        f"{group} {one.name} {_mean(value):.4g}"
        for one in bars.series
        for group, value in zip(bars.groups, one.values, strict=True)
    ]
    return f"{bars.title}, {bars.value_label}: {'; '.join(values)}"


def count_left_out(curves: Curves) -> int:
    """Count the points that are not finite and so are not drawn."""
    return sum(len(one.x) - len(_finite(one).x) for one in curves.series)


def _fill_bars(axes: Axes, bars: Bars) -> None:
    n_series = len(bars.series)
    thickness = 0.72 / n_series
    decimals = _decimals([abs(_mean(value)) for one in bars.series for value in one.values])
    for place, one in enumerate(bars.series):
        offset = (place - (n_series - 1) / 2) * thickness
        positions = [group + offset for group in range(len(bars.groups))]
        means = [_mean(value) for value in one.values]
        draw = axes.barh if bars.is_horizontal else axes.bar
        draw(
            positions,
            means,
            thickness * 0.92,
            color=_color(one.name, place),
            label=_label(one.name),
        )
        for position, value in zip(positions, one.values, strict=True):
            _mark_value(axes, position, value, decimals, is_horizontal=bars.is_horizontal)
    ticks = range(len(bars.groups))
    if bars.is_horizontal:
        axes.set_yticks(ticks, [_label(group) for group in bars.groups])
        axes.margins(x=0.14)
    else:
        axes.set_xticks(ticks, [_label(group) for group in bars.groups])
        axes.margins(y=0.14)


def _mark_value(
    axes: Axes,
    position: float,
    value: float | Interval,
    decimals: int,
    *,
    is_horizontal: bool,
) -> None:
    mean = top = _mean(value)
    if isinstance(value, Interval):
        top = value.high
        ends, places = [value.low, value.high], [position, position]
        for color, width in ((_CARD, 4.0), (_INK, 1.6)):  # a rim, to be seen on any bar
            line = (ends, places) if is_horizontal else (places, ends)
            axes.plot(*line, color=color, linewidth=width)
    point, shift = ((top, position), (5, 0)) if is_horizontal else ((position, top), (0, 4))
    axes.annotate(
        f"{mean:,.{decimals}f}",
        point,
        xytext=shift,
        textcoords="offset points",
        ha="left" if is_horizontal else "center",
        va="center" if is_horizontal else "bottom",
        fontsize=10,
    )


def _finish(axes: Axes, x_label: str, y_label: str, *, n_series: int, grid_axis: str) -> None:
    axes.set_xlabel(_label(x_label))
    axes.set_ylabel(_label(y_label))
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if grid_axis == "x":
        axes.grid(axis="x", linewidth=0.7)
    else:
        axes.grid(axis="y", linewidth=0.7)
    if n_series > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=min(n_series, 3), fontsize=10)


def _to_svg(figure: Figure, description: str) -> str:
    stream = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with warnings.catch_warnings():
        # The labels stay text, so the browser's fonts decide, not the one that measures them here.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:xlink)?|version)="[^"]*"', "", text, count=3)
    text = text.replace("xlink:href", "href")
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    label = html.escape(show_invisible(description))
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _finite(series: Series) -> Series:
    points = [
        (x, y)
        for x, y in zip(series.x, series.y, strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]
    x, y = tuple(x for x, _ in points), tuple(y for _, y in points)
    return Series(series.name, x, y, series.is_points)


def _label(text: str) -> str:
    line = show_invisible(" ".join(text.split()))
    return line if len(line) <= _MAX_LABEL else f"{line[: _MAX_LABEL - 3]}..."


def _color(name: str, place: int) -> str:
    # A held-out line has the hue of its twin; dashes and markers tell them apart.
    return _SERIES[_ROLES.get(name.removeprefix("held-out "), place % len(_SERIES))]


def _decimals(magnitudes: list[float]) -> int:
    largest = max(magnitudes, default=0.0)
    return 3 if largest <= 1 else 2 if largest < 10 else 1 if largest < 1000 else 0


def _mean(value: float | Interval) -> float:
    return value.mean if isinstance(value, Interval) else value


def _salt(content: Curves | Bars) -> str:
    # Two plots on one page must not share the ids of their clipping paths.
    return hashlib.sha256(repr(content).encode()).hexdigest()
