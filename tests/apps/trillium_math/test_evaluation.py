from dataclasses import replace

import pytest
from trillium.errors import DataError
from trillium_math.agent.trajectory import Trajectory, Turn
from trillium_math.evaluation import (
    compare_policies,
    evaluate,
    evaluate_files,
    measure,
)
from trillium_math.grading import Grader
from trillium_math.problems import Problem
from trillium_math.problems.problem_files import write_problems
from trillium_math.records import write_records
from trillium_math.voting import cluster_answers, majority_is_right

PROBLEMS = [
    Problem("p", "?", "1", family="easy", difficulty=1),
    Problem("q", "?", "1", family="hard", difficulty=5),
]


def rolled(problem, answer, *, tools=("ok",), reward=None, index=0):
    right = float(answer in {"1", "1.0"}) if reward is None else reward
    return Trajectory(
        id=f"{problem}#{index}",
        problem_id=problem,
        gold="1",
        turns=tuple(Turn("user", "", status) for status in tools),
        token_ids=(5, *range(10, 11 + len(tools))),
        spans=tuple((i + 1, i + 2) for i in range(len(tools) + 1)),
        outcome="answered" if answer else "no_answer",
        answer=answer,
        reward=right,
    )


def same(one, other):
    return float(one) == float(other)


TRAJECTORIES = [
    *(rolled("p", answer) for answer in ("1", "2", "1.0", None)),
    *(rolled("q", answer, tools=("error", "ok")) for answer in ("2", "2", "1", "3")),
]


def test_accuracy_pass_at_k_and_majority_are_means_over_problems():
    found = evaluate(PROBLEMS, TRAJECTORIES, (1, 2), same)
    means = {name: interval.mean for name, interval in found.measures.items()}
    # pass@2 by counting: p misses with 1 of 6 pairs, q with 3 of 6.
    assert means == pytest.approx(
        {
            "accuracy": 0.375,
            "pass@2": (5 / 6 + 3 / 6) / 2,
            "maj@2": (4 / 6 + 1.5 / 6) / 2,
            "majority": 0.5,
        }
    )
    assert all(i.low <= i.mean <= i.high for i in found.measures.values())


def test_results_are_split_by_family_difficulty_and_turns():
    found = evaluate(PROBLEMS, TRAJECTORIES, (1,), same)
    families = [(group.name, group.n, group.accuracy.mean) for group in found.by_family]
    assert families == [("easy", 1, 0.5), ("hard", 1, 0.25)]
    assert [group.name for group in found.by_difficulty] == ["1", "5"]
    turns = [(group.name, group.n, group.accuracy.mean) for group in found.by_turns]
    assert turns == [("2", 4, 0.5), ("3", 4, 0.25)]
    assert found.tool_error_rate == pytest.approx(4 / 12)


def test_what_the_sandbox_lost_is_left_out():
    lost = rolled("p", None, tools=("lost",))
    lost = Trajectory(**{**lost.__dict__, "reward": None, "outcome": "environment_fault"})
    assert measure([*TRAJECTORIES[:4], lost], (1,), same) == measure(TRAJECTORIES[:4], (1,), same)
    few = measure([TRAJECTORIES[0], lost], (2,), same)
    assert few.by_problem == {"p": {"accuracy": 1.0, "majority": 1.0}}


def test_a_lost_trajectory_costs_the_measures_that_need_it_and_no_others():
    """One of four lost: pass@4 is about the other problem, accuracy and pass@2 about both."""
    lost = replace(TRAJECTORIES[0], reward=None, outcome="environment_fault")
    after = [lost, *TRAJECTORIES[1:]]
    found = evaluate(PROBLEMS, after, (1, 2, 4), same)
    assert found.n_problems == {
        **{"accuracy": 2, "pass@2": 2, "pass@4": 1, "maj@2": 2, "majority": 2},
    }
    assert found.measures["accuracy"].mean == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert found.measures["pass@4"].mean == 1.0
    gains = compare_policies(TRAJECTORIES, after, (1, 2, 4), same)
    assert {name: gain.n_tasks for name, gain in gains.items()} == found.n_problems
    assert compare_policies(after, TRAJECTORIES, (1, 2, 4), same).keys() == gains.keys()
    assert gains["accuracy"].gain.mean == pytest.approx((1 / 3 - 1 / 2) / 2)


def test_the_majority_joins_equal_answers_and_breaks_ties_by_order():
    assert majority_is_right([rolled("p", a) for a in ("2", "1", "1.0")], same)
    assert not majority_is_right([rolled("p", a) for a in ("2", "1")], same)
    assert majority_is_right([rolled("p", a) for a in ("1", "2")], same)
    assert not majority_is_right([rolled("p", None)], same)


@pytest.mark.parametrize("order", [1, -1])
def test_answers_of_different_worth_are_two_whatever_comes_first(order):
    """To a reference of 50 the answer 50% is right and 0.5 is not, yet to 50% both are the same."""
    votes = [rolled("p", "50%", reward=1.0), *[rolled("p", "0.5", reward=0.0)] * 3][::order]
    with Grader() as grader:
        assert grader.is_same("50%", "0.5")
        assert len({*cluster_answers(votes, grader.is_same)}) == 2
        assert not majority_is_right(votes, grader.is_same)
    # Without a judgement between them: 3.0 is taken for 3 and not the other way round.
    alike = [rolled("p", answer, reward=0.0) for answer in ("3", "3.0")][::order]
    assert cluster_answers(alike, lambda one, other: (one, other) == ("3", "3.0")) == (0, 1)


def test_policies_are_compared_on_the_problems_they_share():
    after = [rolled("p", "1") for _ in range(4)]
    found = compare_policies(TRAJECTORIES, after, (1,), same)
    assert found["accuracy"].n_tasks == 1
    assert found["accuracy"].gain.mean == 0.5


def test_files_are_measured_like_what_they_hold(tmp_path):
    trajectories, problems = tmp_path / "t.jsonl", tmp_path / "p.jsonl"
    write_records(trajectories, TRAJECTORIES)
    write_problems(problems, PROBLEMS)
    found = evaluate_files(trajectories, problems, (1, 2))
    assert found.measures["accuracy"].mean == 0.375
    with pytest.raises(DataError, match=r"no problem has 9 judged trajectories"):
        evaluate_files(trajectories, problems, (9,))
    with pytest.raises(DataError, match=r"holds no trajectories"):
        evaluate_files(problems, problems, (1,))
    write_problems(problems, PROBLEMS[:1])
    with pytest.raises(DataError, match=r"lacks 1 problems of .*, the first is q"):
        evaluate_files(trajectories, problems, (1,))
