import xml.etree.ElementTree as ET

import matplotlib
from trillium.evaluation import Interval
from trillium.report.content import Bars, BarSeries, Curves, Series
from trillium.report.plots import count_left_out, draw_bars, draw_curves

LOSS = Curves(
    "Loss",
    "step",
    "loss (nats)",
    (Series("train", (1, 2, 3), (0.7, 0.5, 0.4)), Series("held-out", (1, 3), (0.7, 0.6))),
)
SOLVED = Bars(
    "Solved",
    "share of tasks",
    ("pass@1", "pass@8"),
    (
        BarSeries("before", (Interval(0.25, 0.2, 0.3), 0.5)),
        BarSeries("after", (Interval(0.35, 0.3, 0.4), 0.625)),
    ),
)


def words(svg: str) -> list[str]:
    return [element.text for element in ET.fromstring(svg).iter("text")]


def test_axes_legend_and_ticks_are_real_text():
    shown = words(draw_curves(LOSS))
    assert {"step", "loss (nats)", "train", "held-out"} <= set(shown)
    assert {"1", "2", "3"} <= set(shown)


def test_bars_carry_their_values_and_names():
    shown = words(draw_bars(SOLVED))
    assert {"pass@1", "pass@8", "share of tasks", "before", "after"} <= set(shown)
    assert {"0.250", "0.500", "0.350", "0.625"} <= set(shown)


def test_horizontal_bars_put_the_groups_beside_the_bars():
    seconds = Bars(
        "Time", "seconds", ("sample", "train"), (BarSeries("time", (10.0, 250.0)),), True
    )
    svg = draw_bars(seconds)
    assert {"sample", "train", "seconds", "10.0", "250.0"} <= set(words(svg))


def test_colours_are_variables_of_the_page_and_lines_differ_without_them():
    svg = draw_curves(LOSS)
    assert "var(--series-1)" in svg
    assert "var(--series-2)" in svg
    assert "var(--plot-ink)" in svg
    assert "#01" not in svg
    assert "stroke-dasharray" in svg


def test_chosen_and_rejected_keep_their_colours_in_plots_of_their_own():
    rejected = Curves("r", "step", "nats", (Series("rejected", (1, 2), (0.1, 0.2)),))
    assert "var(--series-2)" in draw_curves(rejected)
    assert "var(--series-1)" not in draw_curves(rejected)


def test_a_plot_describes_itself_to_readers_who_cannot_see_it():
    label = ET.fromstring(draw_curves(LOSS)).get("aria-label")
    assert label == (
        "Loss, loss (nats) over step: train goes from 0.7 to 0.4; held-out goes from 0.7 to 0.6"
    )
    assert "pass@8 after 0.625" in ET.fromstring(draw_bars(SOLVED)).get("aria-label")


def test_drawing_is_repeatable_and_leaves_no_state_behind():
    before = dict(matplotlib.rcParams)
    assert draw_curves(LOSS) == draw_curves(LOSS)
    assert dict(matplotlib.rcParams) == before


def test_nothing_to_draw_is_empty_text():
    infinite = Curves("x", "x", "y", (Series("s", (1.0, 2.0), (float("inf"), float("nan"))),))
    assert draw_curves(infinite) == ""
    assert count_left_out(infinite) == 2
    assert draw_bars(Bars("x", "y", (), ())) == ""


def test_long_and_foreign_labels_leave_room_for_the_plot():
    curves = Curves("t", "x " * 400, "漢字 [s]\n\x00", (Series("$_{" * 300, (1, 2), (1, 2)),))
    shown = words(draw_curves(curves))
    assert "漢字 [s] ⟨U+0000⟩" in shown
    assert "x " * 20 + "x..." in shown
    assert max(map(len, shown)) == 44


def test_more_lines_than_colours_still_differ():
    names = [f"run {number}" for number in range(8)]
    series = tuple(Series(name, tuple(range(40)), (0.5,) * 40) for name in names)
    svg = draw_curves(Curves("Loss", "step", "nats", series))
    assert set(names) <= set(words(svg))
    drawn = [
        path.attrib["style"]
        for path in ET.fromstring(svg).iter("path")
        if "stroke-width: 2" in path.attrib.get("style", "")
        and "var(--series" in path.attrib["style"]
    ]
    assert len(set(drawn)) == 8
