import numpy as np
import pytest
from trillium.policies.tiny import tiny_tokenizer
from trillium_code.pairs import RankConfig, build_pairs
from trillium_code.prompts import JointPrompt
from trillium_code.ranking import codedpo
from trillium_code.records import CodePair, Sample, TaskMatrix, TaskSamples, read_records, to_row

SAMPLES = TaskSamples(
    "t/inc",
    (1, 2, 3),
    (
        Sample((4, 5), "\n return n + 1", "length"),
        Sample((4, 5, 9), "\n return n + 1", "stop"),
        Sample((6, 9), "\n return n", "stop"),
        Sample((7, 7), "\n return 1 +", "length"),
    ),
)


def matrix(**changes):
    fields = {
        "task_id": "t/inc",
        "programs": ("def inc(n): return n + 1", "def inc(n): return n", "def inc(n): return 1 +"),
        "members": ((0, 1), (2,), (3,)),
        "tests": ("assert inc(1) == 2", "assert inc(2) == 3", "assert inc(0) == 5", "assert True"),
        "passed": (
            (True, True, False, True),
            (False, False, False, True),
            (False, False, False, False),
        ),
        "stub_passed": (False, False, False, True),
        "is_flaky": (False, False, False, False),
        "lost": (),
    }
    return TaskMatrix(**{**fields, **changes})


def test_a_pair_holds_the_sampled_tokens_of_a_sample_that_ended_by_itself():
    ranking, (pair,) = build_pairs(SAMPLES, matrix(), "inc", RankConfig())
    assert (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids) == ((1, 2, 3), (4, 5, 9), (6, 9))
    assert ranking.reason == "paired"
    assert ranking.pass_fracs == (1.0, 0.0, 0.0)
    assert (ranking.census.n_uncalled, ranking.census.n_impossible) == (1, 1)


def test_the_tree_of_a_pair_scores_the_completions_and_nothing_else():
    _, (pair,) = build_pairs(SAMPLES, matrix(), "inc", RankConfig())
    tree = pair.tree()
    assert tree.path(0).ids == (1, 2, 3, 4, 5, 9)
    assert tree.path(0).scored == (False,) * 3 + (True,) * 3
    assert tree.path(1).ids == (1, 2, 3, 6, 9)
    assert tree.columns == {"margin": pair.gap}


@pytest.mark.parametrize("scorer", ["codedpo", "random"])
def test_a_program_that_was_always_cut_off_is_never_chosen(scorer):
    cut = TaskSamples(
        "t/inc", (1,), tuple(Sample(s.ids, s.text, "length") for s in SAMPLES.samples)
    )
    ranking, pairs = build_pairs(cut, matrix(), "inc", RankConfig(scorer=scorer))
    assert pairs == []
    assert ranking.reason == "nothing_to_tell_apart"


def test_a_program_whose_sandbox_failed_is_left_out():
    ranking, pairs = build_pairs(SAMPLES, matrix(lost=(0,)), "inc", RankConfig())
    assert pairs == []
    assert (ranking.reason, ranking.census.n_impossible) == ("no_tests", 3)
    one, _ = build_pairs(SAMPLES, matrix(lost=(0, 2)), "inc", RankConfig())
    assert one.reason == "one_program"


def test_without_tests_there_is_no_pair():
    bare = matrix(tests=(), passed=((), (), ()), stub_passed=(), is_flaky=())
    ranking, pairs = build_pairs(SAMPLES, bare, "inc", RankConfig())
    assert (ranking.reason, pairs) == ("no_tests", [])


def test_several_rejected_programs_give_several_pairs():
    _, pairs = build_pairs(SAMPLES, matrix(), "inc", RankConfig(n_rejected=2))
    assert [(pair.id, pair.rejected_ids) for pair in pairs] == [
        ("t/inc/0", (6, 9)),
        ("t/inc/1", (7, 7)),
    ]


@pytest.mark.parametrize("record", [SAMPLES, matrix()])
def test_records_survive_a_file(tmp_path, record):
    import json

    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(to_row(record)) + "\n")
    assert read_records(path, type(record)) == [record]


def test_a_pair_survives_a_file(tmp_path):
    import json

    pair = CodePair("a/0", "a", (1,), (2,), (3,), "x", "y", 0.5)
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(to_row(pair)) + "\n")
    assert read_records(path, CodePair) == [pair]


def test_dstc_puts_a_test_behind_each_program_under_a_prompt_that_asks_for_both():
    joint = JointPrompt((9, 8), tiny_tokenizer(), "completion")
    config = RankConfig(scorer="dstc")
    ranking, (pair,) = build_pairs(SAMPLES, matrix(), "inc", config, joint=joint)
    assert ranking.pair_tests == ((0, 0),)
    assert pair.prompt_ids == (9, 8)
    decode = joint.tokenizer.decode
    assert decode(pair.chosen_ids) == "\n return n + 1\n\n\nassert inc(1) == 2\n"
    assert decode(pair.rejected_ids) == "\n return n\n\n\nassert inc(1) == 2\n"
    assert pair.chosen.endswith("return n + 1\n\nassert inc(1) == 2\n")


def test_random_pairs_depend_on_the_seed_and_need_no_evidence():
    config = RankConfig(scorer="random", min_chosen_pass_frac=1.0)
    chosen = {build_pairs(SAMPLES, matrix(), "inc", config, seed=n)[1][0].chosen for n in range(20)}
    assert chosen == set(matrix().programs[:2])
    strict = config.model_copy(update={"min_agreement": 9})
    assert build_pairs(SAMPLES, matrix(), "inc", strict, seed=1) == build_pairs(
        SAMPLES, matrix(), "inc", config, seed=1
    )


REPEATED = TaskSamples("t/inc", (1, 2, 3), tuple(Sample((4 + i, 9), "", "stop") for i in range(6)))
COMMON = {
    "members": ((0, 1, 2, 3), (4,), (5,)),
    "tests": ("assert inc(1) == 2", "assert inc(2) == 3", "assert inc(0) == 5"),
    "passed": ((True, False, False), (False, True, True), (False, False, False)),
    "stub_passed": (False,) * 3,
    "is_flaky": (False,) * 3,
}


@pytest.mark.parametrize("scorer", ["codet", "codedpo"])
def test_samples_that_spell_one_program_vote_together_only_when_asked(scorer):
    """CodeT: 1 program x 1 test against 1 x 2, or 4 samples x 1 test against 1 x 2."""
    once = RankConfig(scorer=scorer, min_chosen_pass_frac=0.0)
    often = once.model_copy(update={"counts_repeats": True})
    found = [build_pairs(REPEATED, matrix(**COMMON), "inc", config)[0] for config in (once, often)]
    assert [ranking.pairs[0].chosen for ranking in found] == [1, 0]
    if scorer == "codet":
        assert [ranking.scores for ranking in found] == [(1.0, 2.0, 0.0), (4.0, 2.0, 0.0)]
    else:
        passed = np.array(COMMON["passed"])[[0, 0, 0, 0, 1, 2]]
        assert found[1].scores == pytest.approx(tuple(codedpo(passed).programs[[0, 4, 5]]))


def test_votes_decide_which_test_dstc_trusts():
    joint = JointPrompt((9, 8), tiny_tokenizer(), "completion")
    passed = ((True, True, False), (False, False, True), (False, False, False))
    often = matrix(**{**COMMON, "passed": passed, "members": ((0,), (1, 2, 3, 4), (5,))})
    for counts, rejected_test in ((False, 0), (True, 2)):
        config = RankConfig(scorer="dstc", counts_repeats=counts)
        ranking, _ = build_pairs(REPEATED, often, "inc", config, joint=joint)
        assert (ranking.pairs[0].chosen, ranking.pairs[0].rejected) == (0, 2)
        assert ranking.pair_tests[0][1] == rejected_test


def test_a_program_that_differs_between_runs_has_no_part_in_the_ranking():
    ranking, (pair,) = build_pairs(SAMPLES, matrix(unsteady=(1,)), "inc", RankConfig())
    assert ranking.scores[1] == ranking.pass_fracs[1] == -1.0
    assert pair.rejected == matrix().programs[2]
