import pytest
from trillium_code.label_quality import LabelQuality, judge_labels
from trillium_code.pairs import Ranking
from trillium_code.ranking import Pair, TestCensus
from trillium_code.records import TaskResult

NONE = TestCensus((), 0, 0, 0, 0)


def ranking(task, *pairs):
    found = tuple(Pair(chosen, rejected, 1.0) for chosen, rejected in pairs)
    return Ranking(task, (), (), NONE, found, "paired" if pairs else "no_tests")


def test_pairs_are_counted_by_what_hidden_tests_say_of_both_programs():
    truth = [
        TaskResult("a", "easy", (True, False, True, None), ("",) * 4),
        TaskResult("b", "easy", (False, False), ("",) * 2),
        TaskResult("c", "easy", (True,), ("",)),
    ]
    rankings = [
        ranking("a", (0, 1), (1, 0), (0, 2), (0, 3)),
        ranking("b", (0, 1)),
        ranking("c"),
        ranking("without_tests", (0, 1)),
    ]
    quality = judge_labels(rankings, truth)
    assert quality == LabelQuality(
        n_right=1, n_inverted=1, n_both_right=1, n_both_wrong=1, n_paired=2, n_tasks=3
    )
    assert quality.share(quality.n_right) == pytest.approx(0.25)
    assert (quality + quality).n_pairs == 8


def test_without_a_pair_there_is_no_share():
    assert judge_labels([], []).share(0) is None
