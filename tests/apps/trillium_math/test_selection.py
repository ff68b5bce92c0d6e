from trillium_math.agent.trajectory import Trajectory, Turn
from trillium_math.selection import (
    SelectConfig,
    choose_right,
    count_sorted,
    make_labelled,
    make_pairs,
    sort_trajectories,
)


def rolled(name, *, reward=0.0, outcome="answered", tools=("ok",), problem="p", token=50):
    """Write a trajectory: a prompt of two tokens, a turn, tool output, a last turn."""
    between = tuple(Turn("user", "```output```", status) for status in tools)
    return Trajectory(
        id=f"{problem}#{name}",
        problem_id=problem,
        gold="1",
        turns=(Turn("user", "?"), *between),
        token_ids=(5, 6, token, token, 9, 9, token),
        spans=((2, 4), (6, 7)),
        outcome=outcome,
        answer="1",
        reward=reward,
    )


RIGHT = rolled("right", reward=1.0, token=51)
WRONG = rolled("wrong", token=52)


def test_each_filter_drops_what_it_is_for_and_counts_it():
    (group,) = sort_trajectories(
        [
            RIGHT,
            WRONG,
            rolled("lost", reward=None, outcome="environment_fault", token=53),
            rolled("lucky", reward=1.0, tools=("ok", "error"), token=54),
            rolled("guessed", reward=1.0, tools=(), token=55),
            rolled("endless", outcome="turn_limit", token=56),
            rolled("long", outcome="turn_too_long", token=57),
            rolled("again", token=52),
            rolled("silent", outcome="no_answer", token=58),
        ],
        SelectConfig(),
    )
    assert [one.id for one in group.winners] == ["p#right"]
    assert [one.id for one in group.losers] == ["p#wrong", "p#silent"]
    assert dict(group.dropped) == {
        "environment_fault": 1,
        "right_after_tool_error": 1,
        "right_without_tool": 1,
        "turn_limit": 1,
        "turn_too_long": 1,
        "repeated": 1,
    }
    assert count_sorted([group])["dropped_repeated"] == 1


def test_a_pair_scores_the_policy_alone_and_shares_the_prompt():
    groups = sort_trajectories([WRONG, RIGHT], SelectConfig())
    (tree,) = make_pairs(groups, 1, is_masked=True, seed=0)
    assert tree.id == "p#right>p#wrong"
    assert tree.path(0).ids == RIGHT.token_ids
    assert tree.path(1).ids == WRONG.token_ids
    assert tree.path(0).scored == (False, False, True, True, False, False, True)
    assert tree.nodes[0].ids == (5, 6)


def test_without_the_mask_tool_output_is_scored_too():
    groups = sort_trajectories([WRONG, RIGHT], SelectConfig())
    (tree,) = make_pairs(groups, 1, is_masked=False, seed=0)
    assert tree.path(0).scored == (False, False, True, True, True, True, True)


def test_pairs_are_random_distinct_and_the_same_for_a_seed():
    many = [rolled(f"w{i}", reward=1.0, token=60 + i) for i in range(6)]
    many += [rolled(f"l{i}", token=70 + i) for i in range(3)]
    groups = sort_trajectories(many, SelectConfig())
    first, again, other = (
        [tree.id for tree in make_pairs(groups, 5, is_masked=True, seed=seed)] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len(first) == 3
    names = [name for id in first for name in id.split(">")]
    assert len(set(names)) == 6


def test_labels_and_imitation_use_problems_that_have_one_kind_only():
    alone = rolled("alone", problem="q", token=59)
    groups = sort_trajectories([RIGHT, WRONG, alone], SelectConfig())
    labelled = make_labelled(groups, 1, is_masked=True, seed=0)
    assert {tree.id: tree.labels["label"] for tree in labelled} == {
        "p#right": (1.0,),
        "p#wrong": (0.0,),
        "q#alone": (0.0,),
    }
    assert [tree.id for tree in choose_right(groups, 1, is_masked=True, seed=0)] == ["p#right"]
    assert make_pairs(groups[1:], 1, is_masked=True, seed=0) == []
