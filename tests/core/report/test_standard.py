from trillium.evaluation import compare
from trillium.report.standard import (
    comparison_bars,
    comparison_headline,
    comparison_table,
    cost_section,
    stage_bars,
    training_curves,
)

RESULT = compare({"a": 0.0, "b": 0.5, "c": 0.5}, {"a": 0.5, "b": 0.5, "c": 0.75})
LOG = [
    {"step": 1.0, "loss": 0.7, "logps/chosen": -40.0, "logps/rejected": -41.0},
    {"step": 2.0, "loss": 0.6, "logps/chosen": -42.0, "logps/rejected": -50.0},
    {"step": 2.0, "eval_loss": 0.65},
]


def test_a_comparison_is_one_row_with_its_counts():
    table = comparison_table("Held out", {"pass@1": RESULT})
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["better"], row["equal"], row["worse"]) == (2, 1, 0)
    assert row["before"] == RESULT.before
    assert row["p"] == 0.5


def test_a_headline_shows_both_values_and_the_interval_of_the_gain():
    headline = comparison_headline("pass@1", RESULT)
    assert (headline.was, headline.value) == ("0.333", "0.583")
    assert headline.detail == "+0.250 (+0.000 to +0.500, 95% interval)"


def test_bars_stand_side_by_side():
    bars = comparison_bars("x", {"pass@1": RESULT}, value_label="share")
    assert [one.name for one in bars.series] == ["before", "after"]
    assert bars.series[1].values == (RESULT.after,)


def test_chosen_and_rejected_log_probabilities_have_plots_of_their_own():
    plots = {plot.title: plot for plot in training_curves(LOG)}
    assert list(plots) == [
        "Loss",
        "Log-probability of chosen responses",
        "Log-probability of rejected responses",
    ]
    (rejected,) = plots["Log-probability of rejected responses"].series
    assert (rejected.name, rejected.x, rejected.y) == ("rejected", (1.0, 2.0), (-41.0, -50.0))


def test_held_out_measures_are_drawn_beside_their_training_twins():
    loss = training_curves(LOG)[0]
    assert [(one.name, one.x, one.y) for one in loss.series] == [
        ("loss", (1.0, 2.0), (0.7, 0.6)),
        ("held-out loss", (2.0,), (0.65,)),
    ]


def test_stages_keep_their_order():
    assert stage_bars({"train": 2.0, "sample": 5.0}).groups == ("train", "sample")


def test_what_a_run_took_is_times_by_stage_and_then_numbers():
    section = cost_section({"judge_after": 2.5}, [("peak memory", "1.00 GiB")])
    bars, table = section.blocks
    assert (bars.groups, bars.series[0].values) == (("judge after",), (2.5,))
    assert table.rows == (("peak memory", "1.00 GiB"),)
