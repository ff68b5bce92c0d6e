"""What trees tell about judgement and steps, by hand."""

from dataclasses import replace

import pytest
from trillium_math.agent.trajectory import Trajectory
from trillium_math.records import write_records
from trillium_math.rectification import Mended
from trillium_math.report_blocks import mistake_section, search_section, tree_section
from trillium_math.search.measures import calibrate_judgement, measure_tree_steps
from trillium_math.search.record import SearchNode, SearchTree


def node(parent, confidence, reward=None):
    outcome = "" if reward is None else "answered"
    return SearchNode(parent, (5,), (parent >= 0,), 1.0, confidence, 0.0, 1, 0.0, 0.0, outcome,
                      reward)  # fmt: skip


# Two first steps: below the first one end is right and one wrong, below the second both wrong.
TREE = SearchTree(
    "p",
    (
        node(-1, 0.0),
        node(0, 0.5),
        node(0, 0.5),
        node(1, 0.9, 1.0),
        node(1, 0.8, 0.0),
        node(2, 0.3, 0.0),
        node(2, 0.2, 0.0),
    ),
    self_evaluation=1.0,
)


def test_judgement_is_compared_at_the_ends():
    found = calibrate_judgement([TREE], n_bins=2)
    assert found.n == 4
    assert found.auc == 1.0
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.09 + 0.04) / 4)
    # 2/4 |0.85 - 0.5| + 2/4 |0.25 - 0|
    assert found.ece == pytest.approx(0.3)
    assert calibrate_judgement([replace(TREE, self_evaluation=0.0)]) is None


def test_a_step_is_right_while_something_below_it_ends_well():
    found = measure_tree_steps([TREE])
    # Ends 3: right, right; 4: right, wrong; 5 and 6: wrong from the first step on.
    assert found.by_position == ((4, 2), (4, 1))
    assert found.first_error == {0: 2, 1: 1}
    assert found.accuracy.mean == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert measure_tree_steps([SearchTree("p", TREE.nodes[:1], 1.0)]) is None


def test_the_report_has_a_section_only_where_something_was_searched(tmp_path):
    assert tree_section(tmp_path, ("select_0",)) is None
    write_records(tmp_path / "search_0.jsonl", [TREE])
    # The file of another method that ran in the folder before is none of this run.
    assert tree_section(tmp_path, ("select_0",)) is None
    section = tree_section(tmp_path, ("search_0", "select_0"))
    assert section.intro.startswith("1 trees, 7 nodes.")
    assert [block.title for block in section.blocks] == [
        "Steps of the search trees",
        "The policy's judgement of finished solutions: predicted and met",
        "The policy's judgement of finished solutions",
    ]
    assert section.blocks[0].rows == ((1, 4, 0.5, 2), (2, 4, 0.25, 1))


def test_first_wrong_steps_are_counted_where_they_were_located(tmp_path):
    assert mistake_section(tmp_path, ("collect_0",)) is None
    rows = [
        Mended("p#0", "p", 1, 3, "rollouts fail", (0.5, 0.0), "same_step"),
        Mended("p#1", "p", 0, 1, "last step", (), "no_right_continuation"),
        Mended("p#2", "p", None, 4, "judged right", (), "not_located"),
    ]
    write_records(tmp_path / "mend_0.jsonl", rows)
    assert mistake_section(tmp_path, ("collect_0",)) is None
    section = mistake_section(tmp_path, ("collect_0", "mend_0"))
    assert section.intro == "2 of 3 wrong trajectories have a first wrong step."
    assert section.blocks[0].rows == ((1, 2, 0.5, 1), (2, 1, 0.0, 1), (3, 1, 0.0, 0))


def test_curves_of_both_policies_stand_in_one_plot():
    def rolled(answer, index):
        return Trajectory(f"p#{index}", "p", "1", (), (5, 6), ((1, 2),), "answered", answer,
                          float(answer == "1"))  # fmt: skip

    before = [rolled(answer, i) for i, answer in enumerate("12")]
    after = [rolled(answer, i) for i, answer in enumerate("11")]
    section = search_section(before, after, lambda one, other: one == other)
    plot, table = section.blocks
    assert [series.name for series in plot.series] == [
        *("majority, before", "oracle, before", "majority, after", "oracle, after")
    ]
    assert [series.y for series in plot.series] == [(0.5, 0.5), (0.5, 1.0), (1.0, 1.0), (1.0, 1.0)]
    assert plot.series[0].x == (1.0, 2.0)
    assert len(table.rows) == 8
    assert search_section(before[:1], after[:1], lambda one, other: one == other) is None
