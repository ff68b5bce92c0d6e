"""Pairs of steps, from hand-written mistakes and a policy that can mend them."""

from dataclasses import replace

import pytest
from pydantic import BaseModel
from trillium.runs import Run
from trillium_math.agent.steps import split_steps
from trillium_math.localisation.mistake import Located, Mistake
from trillium_math.localisation.monte_carlo import MonteCarloLocaliser
from trillium_math.mending import MendPlan, mend_stage
from trillium_math.problems import Problem
from trillium_math.records import read_records
from trillium_math.rectification import Mended, rectify
from trillium_math.selection import SelectConfig

PROBLEM = Problem("p", "(3 + 4) * 5?", "35")
TURN = "I add first.\n```python\na = 3 + 4\n{}\nprint(b)\n```"
PLAN = MendPlan(
    SelectConfig(), unit="line", n_samples=4, chunk_size=1, budget=None, seed=0
)  # fmt: skip


@pytest.fixture
def mistake(play):
    return play(PROBLEM, TURN.format("b = a * 6"), r"\boxed{42}")


def mend(policy, say, *lines):
    """Continue the dialogue with each of `lines` in turn, and right code after it."""
    state = {"n": 0}

    def script(text):
        turn = text.rpartition("<|im_start|>assistant\n")[2]
        if "output" in text:
            result = text.rpartition("```output\n")[2].partition("\n")[0]
            return say(f"\\boxed{{{result}}}")
        line = "b = a * 6" if "a * 6" in turn else lines[state["n"] % len(lines)]
        state["n"] += 1
        return say(TURN.format(line)[len(turn) :])

    policy.script = script


def mended(mistake, toolbox, step=2, **settings):
    options = {"unit": "line", "n_samples": 4, "seed": 0, **settings}
    located = Located(step, "test")
    (found,) = rectify([mistake], [located], toolbox, SelectConfig(), **options)
    return found


def test_the_pair_is_two_steps_below_the_right_ones(mistake, policy, toolbox, tokenizer, say):
    mend(policy, say, "b = a * 5")
    found = mended(mistake, toolbox)
    assert (found.end, found.n_right, found.step, found.n_steps) == ("paired", 1, 2, 6)
    tree = found.tree
    assert tree.id == "p#wrong@2"
    root, *_ = tree.nodes
    assert not any(root.scored[: len(found.prefix)])
    assert tokenizer.decode(found.prefix) == (
        "<|im_start|>user\n(3 + 4) * 5?<|im_end|>\n<|im_start|>assistant\n"
        "I add first.\n```python\na = 3 + 4\n"
    )
    leaves = []
    for index in (0, 1):
        path = tree.path(index)
        assert path.ids[: len(found.prefix)] == found.prefix
        assert path.scored == (False,) * len(found.prefix) + (True,) * (
            len(path.ids) - len(found.prefix)
        )
        leaves.append(tokenizer.decode(path.ids[len(found.prefix) :]))
    assert leaves == ["b = a * 5\n", "b = a * 6\n"]


def test_a_leaf_has_no_end_of_text_even_where_the_step_ended_its_turn(
    mistake, policy, toolbox, tokenizer, say
):
    policy.script = lambda text: say(r"So \boxed{35}")
    found = mended(mistake, toolbox, step=5)
    assert found.end == "paired"
    assert tokenizer.decode(found.chosen) == r"So \boxed{35}"
    assert tokenizer.decode(found.rejected) == r"\boxed{42}"
    assert mistake.trajectory.token_ids[-1] == 2
    assert 2 not in {*found.chosen, *found.rejected}
    # The tool's output is in the prefix, and none of it is scored.
    assert tokenizer.decode(found.prefix).endswith(
        "```output\n42\n```<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chosen_steps_are_the_policys_own_tokens(mistake, policy, toolbox, tokenizer, say):
    """`12` has two spellings in tokens; what was sampled is kept."""
    apart = tokenizer("1").input_ids + tokenizer("2").input_ids
    spelled = [*tokenizer("b = a * 5 + ").input_ids, *apart, *tokenizer(" - ").input_ids, *apart]
    policy.script = lambda text: (
        say(r"\boxed{35}") if "output" in text else [*spelled, *say("\nprint(b)\n```")]
    )
    found = mended(mistake, toolbox)
    assert list(found.chosen) == [*spelled, *tokenizer("\n").input_ids]


def test_the_same_step_again_is_no_pair(mistake, policy, toolbox, say):
    """The step before the error is right, so right continuations repeat it."""
    mend(policy, say, "b = a * 5")
    found = mended(mistake, toolbox, step=1)
    assert (found.end, found.n_right, found.chosen) == ("same_step", 1, ())


def test_a_step_that_differs_in_its_indent_alone_is_another(play, policy, toolbox, tokenizer, say):
    """Inside the loop 4 is added five times, behind it once."""
    turn = "```python\nb = 0\nfor i in range(5):\n    b += 3\n{}b += 4\nprint(b)\n```"
    wrong = play(PROBLEM, turn.format(""), r"\boxed{19}")
    policy.script = lambda text: say(
        r"\boxed{35}" if "output" in text else "    b += 4\nprint(b)\n```"
    )
    found = mended(wrong, toolbox, step=3)
    assert found.end == "paired"
    assert tokenizer.decode(found.chosen) == "    b += 4\n"
    assert tokenizer.decode(found.rejected) == "b += 4\n"


def test_what_cannot_be_mended_is_said(mistake, policy, toolbox, say):
    mend(policy, say, "b = a * 7")
    assert mended(mistake, toolbox).end == "no_right_continuation"
    (lost,) = rectify(
        [mistake], [Located(None, "judged right")], toolbox, SelectConfig(),
        unit="line", n_samples=4, seed=0,
    )  # fmt: skip
    assert (lost.end, lost.step, lost.why) == ("not_located", None, "judged right")


def test_right_steps_are_drawn_by_seed_among_different_ones(mistake, policy, toolbox, say):
    chosen = set()
    for seed in range(8):
        mend(policy, say, "b = a * 5", "b = 5 * a")
        found = mended(mistake, toolbox, seed=seed)
        mend(policy, say, "b = a * 5", "b = 5 * a")
        assert mended(mistake, toolbox, seed=seed) == found
        chosen.add(found.chosen)
    assert len(chosen) == 2


class Nothing(BaseModel):
    """A configuration with nothing in it."""


def run_stage(folder, mistakes, localiser, toolbox, plan=PLAN):
    with Run.open(folder, Nothing(), seed=0) as run:
        stage = run.stage("mend", {})
        if stage.is_due:
            mend_stage(stage, "mend.jsonl", mistakes, localiser, toolbox, plan, {"wrong": 3})
        return stage.record.counts, read_records(stage.path("mend.jsonl"), Mended)


@pytest.fixture
def mistakes(mistake):
    """Two wrong trajectories of one problem, and one of another."""
    other = replace(PROBLEM, id="q")
    again = Mistake(replace(mistake.trajectory, id="p#again"), PROBLEM, mistake.steps)
    there = replace(mistake.trajectory, id="q#wrong", problem_id="q")
    return [mistake, Mistake(there, other, mistake.steps), again]


def test_a_problem_with_its_pair_is_not_mended_again(mistakes, policy, toolbox, say, tmp_path):
    mend(policy, say, "b = a * 5")
    localiser = MonteCarloLocaliser(n_rollouts=2).open(toolbox)
    counts, found = run_stage(tmp_path, mistakes, localiser, toolbox)
    assert [(one.id, one.end) for one in found] == [("p#wrong", "paired"), ("q#wrong", "paired")]
    assert (counts["paired"], counts["over_budget"], counts["wrong"]) == (2, 0, 3)
    assert counts["located_by_rollouts_fail"] == 2
    assert counts["sampled_tokens"] > 0


def test_nothing_is_begun_beyond_the_budget(mistakes, policy, toolbox, say, tmp_path):
    mend(policy, say, "b = a * 5")
    localiser = MonteCarloLocaliser(n_rollouts=2).open(toolbox)
    plan = replace(PLAN, budget=1)
    counts, found = run_stage(tmp_path, mistakes, localiser, toolbox, plan)
    assert [one.id for one in found] == ["p#wrong"]
    assert counts["over_budget"] == 1  # p has its pair; q was not begun
    none, nothing = run_stage(tmp_path / "none", mistakes, localiser, toolbox,
                              replace(PLAN, budget=0))  # fmt: skip
    assert (none["over_budget"], nothing) == (3, [])


def test_a_stage_that_is_killed_continues_to_the_same_bytes(
    mistakes, policy, toolbox, say, tmp_path
):
    mend(policy, say, "b = a * 5")
    localiser = MonteCarloLocaliser(n_rollouts=2).open(toolbox)
    whole, _ = run_stage(tmp_path / "whole", mistakes, localiser, toolbox)

    class Killed:
        n_left = 1

        def locate(self, found, *, seed):
            if not self.n_left:
                raise KeyboardInterrupt
            self.n_left -= 1
            return localiser.locate(found, seed=seed)

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path / "killed", mistakes, Killed(), toolbox)
    again, _ = run_stage(tmp_path / "killed", mistakes, localiser, toolbox)
    files = [tmp_path / name / "mend.jsonl" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert {**again, "peak_memory_bytes": 0} == {**whole, "peak_memory_bytes": 0}


def test_steps_of_a_mended_trajectory_begin_where_the_cut_was(mistake, policy, toolbox, say):
    """Splitting a continued trajectory gives the same steps before the cut as the wrong one's."""
    mend(policy, say, "b = a * 5")
    for step, (start, _) in enumerate(mistake.steps[:4]):
        partial = toolbox.roller.cut(
            mistake.trajectory, PROBLEM, mistake.prefix_length(step), id="again"
        )
        (one,) = toolbox.roller.complete([partial], toolbox.generator, toolbox.sampling, seed=0)
        steps = split_steps(one.token_ids, one.spans, toolbox.dialogue.decode)
        assert tuple(steps[:step]) == mistake.steps[:step]
        assert steps[step][0] == start
