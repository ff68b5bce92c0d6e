"""A scripted policy searches: what it samples, where it goes, and what it tells its ancestors."""

from dataclasses import replace

import pytest
from pydantic import BaseModel
from trillium.runs import Run
from trillium_math.problems import Problem
from trillium_math.records import read_records
from trillium_math.search.config import SearchConfig
from trillium_math.search.mcts import Search
from trillium_math.search.record import SearchTree
from trillium_math.search.stage import search_stage

PROBLEM = Problem("p", "3 * 4?", "12")
CODE = "```python\nprint(3 * {})\n```"
CONFIG = SearchConfig(n_iterations=4, n_first=4, n_actions=2, max_depth=2, self_evaluation=0)


@pytest.fixture
def searcher(policy, toolbox, say):
    """Return a function that searches with a policy that takes its first turns in order."""

    def open_search(config=CONFIG, judge=None, firsts=None):
        openings = firsts or [CODE.format(4), CODE.format(5), CODE.format(4), r"\boxed{7}"]
        state = {"n": 0}

        def script(text):
            if "output" in text:
                return say(rf"\boxed{{{text.rpartition('```output')[2].split()[0]}}}")
            state["n"] += 1
            return say(openings[(state["n"] - 1) % len(openings)])

        policy.script = script
        return Search(
            toolbox.roller, toolbox.dialogue, toolbox.generator, toolbox.sampling, judge, config
        )

    return open_search


def test_a_tree_has_the_visits_and_values_of_the_arithmetic(searcher):
    """Right code (node 1), wrong code (2), a repetition, and a wrong answer at once (3).

    Priors are 1, as the server tells no likelihoods. Iteration 1 takes node 1 and finds its end
    (4) right. Node 1 scores 1 + sqrt(1)/2 and then 1 + sqrt(2)/3 against sqrt(1) and sqrt(2) of
    node 2, so it is taken thrice; with 1 + sqrt(3)/4 it loses to sqrt(3): iteration 4 finds the
    end (5) of node 2 wrong.
    """
    (tree,) = searcher().grow([PROBLEM], seed=0)
    assert [node.parent for node in tree.nodes] == [-1, 0, 0, 0, 1, 2]
    assert [node.n for node in tree.nodes] == [4, 3, 1, 0, 3, 1]
    assert [node.q for node in tree.nodes[1:]] == [1.0, -1.0, -1.0, 1.0, -1.0]
    # Children of the root weigh 3, 1 and, without a visit, 1.
    assert tree.nodes[0].v == pytest.approx((3 - 1 - 1) / 5)
    assert [node.outcome for node in tree.nodes] == ["", "", "", *["answered"] * 3]
    assert [node.reward for node in tree.nodes[3:]] == [0.0, 1.0, 0.0]
    # The third first turn and both second ends repeat a sibling.
    assert (tree.n_repeated, tree.n_faults) == (3, 0)
    assert (tree.worth(4), tree.worth(5), tree.worth(1)) == (1.0, 0.0, 1.0)


def test_nodes_hold_what_was_sampled_and_what_the_tool_said(searcher, tokenizer):
    (tree,) = searcher().grow([PROBLEM], seed=0)
    first = tree.nodes[1]
    assert tokenizer.decode(first.ids) == (
        CODE.format(4) + "<|im_end|>\n<|im_start|>user\n```output\n12\n```<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    said = [token for token, flag in zip(first.ids, first.scored, strict=True) if flag]
    assert tokenizer.decode(said) == CODE.format(4) + "<|im_end|>"
    whole = tree.path(4)
    assert tokenizer.decode(whole.ids).endswith(r"\boxed{12}<|im_end|>")
    assert whole.n_scored == sum(sum(tree.nodes[i].scored) for i in (1, 4))


class Prefers:
    """A judge that believes in whatever holds a text."""

    def __init__(self, text):
        self.text = text
        self.n_asked = 0

    def assess(self, partials):
        self.n_asked += len(partials)
        return [float(any(self.text in turn.content for turn in one.turns)) for one in partials]


def test_the_search_follows_the_judgement_until_outcomes_tell_otherwise(searcher):
    """Wrong code is believed in: 1 against 0. Its end, worth -1 + 1, takes that back."""
    judge = Prefers("* 5")
    config = CONFIG.model_copy(update={"self_evaluation": 1.0, "n_iterations": 1})
    (tree,) = searcher(config, judge).grow([PROBLEM], seed=0)
    assert [node.n for node in tree.nodes] == [1, 0, 1, 0, 1]
    assert [node.confidence for node in tree.nodes[1:]] == [0.0, 1.0, 0.0, 1.0]
    # Reward 1 of the code, then 0 - 1 of its end.
    assert (tree.nodes[2].q, tree.nodes[4].q, tree.nodes[4].value) == (0.0, -1.0, 0.0)
    assert judge.n_asked == 4


def test_problems_search_together_and_each_has_its_own_tree(searcher, policy):
    other = Problem("q", "3 * 5?", "15")
    trees = searcher(firsts=[CODE.format(4), CODE.format(5)]).grow([PROBLEM, other], seed=0)
    assert [tree.problem_id for tree in trees] == ["p", "q"]
    assert [tree.nodes[tree.children[1][0]].reward for tree in trees] == [1.0, 0.0]
    # The first batch asks for the first turns of both.
    assert len(policy.prompts[0]) == 8


def test_lines_are_steps_too_and_the_last_step_runs_to_the_end(searcher, policy, say, tokenizer):
    config = CONFIG.model_copy(update={"unit": "line", "n_iterations": 2})
    search = searcher(config)

    def script(text):
        done = text.rpartition("<|im_start|>assistant\n")[2]
        if "output" in text:
            return say(r"\boxed{12}")
        return say(CODE.format(4)) if done else say("Multiply.\n")[:-1]

    policy.script = script
    (tree,) = search.grow([PROBLEM], seed=0)
    assert tokenizer.decode(tree.nodes[1].ids) == "Multiply.\n"
    assert [node.parent for node in tree.nodes] == [-1, 0, 1]
    last = tokenizer.decode(tree.nodes[2].ids)
    assert last.startswith(CODE.format(4))
    assert last.endswith(r"\boxed{12}<|im_end|>")
    assert (tree.nodes[2].reward, sum(tree.nodes[2].scored) < len(tree.nodes[2].ids)) == (1.0, True)


def test_a_policy_that_always_says_the_same_leaves_a_tree_without_choices(searcher):
    (tree,) = searcher(firsts=[r"\boxed{7}"]).grow([PROBLEM], seed=0)
    assert [len(children) for children in tree.children] == [1, 0]
    assert tree.nodes[1].n == 4


def test_what_the_sandbox_loses_is_no_step(searcher, toolbox, monkeypatch):
    result = toolbox.tool._read
    monkeypatch.setattr(
        toolbox.tool, "_read", lambda reply, mark: replace(result(reply, mark), status="lost")
    )
    monkeypatch.setattr(toolbox.tool, "_cache", {})
    (tree,) = searcher(firsts=[CODE.format(4)]).grow([PROBLEM], seed=0)
    assert (len(tree.nodes), tree.n_faults) == (1, 4)
    assert tree.nodes[0].n == 4


def test_a_branch_that_a_limit_ends_failed_like_a_wrong_answer(searcher, toolbox):
    """There is room for a first turn and no second one: calls count no better than the answer 7."""
    search = searcher()
    n_prompt = len(toolbox.roller.start(PROBLEM, 0).ids)
    for room, outcomes in ((900 - n_prompt, ["token_limit", "token_limit", "answered"]), (900, [])):
        search._sampling = toolbox.sampling.model_copy(update={"max_new_tokens": room})
        (tree,) = search.grow([PROBLEM], seed=0)
        assert [node.outcome for node in tree.nodes] == ["", *outcomes]
        assert [(node.reward, node.value, node.q) for node in tree.nodes[1:]] == [
            (0.0, -1.0, -1.0) for _ in outcomes
        ]
        # The third of four first turns says what the first one says.
        assert tree.n_repeated == len(outcomes[:1])
        assert all(sum(tree.path(index).scored) for index in tree.ends)


def test_steps_that_differ_in_indentation_are_two(searcher):
    firsts = [f"```python\nif 1:\n{indent}print(3)\n```" for indent in ("  ", "    ", "  ", "  ")]
    config = CONFIG.model_copy(update={"n_iterations": 1})
    (tree,) = searcher(config, firsts=firsts).grow([PROBLEM], seed=0)
    assert len(tree.children[0]) == 2


class Nothing(BaseModel):
    """A configuration with nothing in it."""


PROBLEMS = [replace(PROBLEM, id=name) for name in ("p", "q", "r")]


def run_stage(folder, search, toolbox, *, budget=None):
    with Run.open(folder, Nothing(), seed=0) as run:
        stage = run.stage("search", {})
        if stage.is_due:
            search_stage(
                stage, "search.jsonl", PROBLEMS, search, toolbox.roller,
                chunk_size=1, budget=budget, seed=0,
            )  # fmt: skip
        return stage.record.counts, read_records(stage.path("search.jsonl"), SearchTree)


def test_a_stage_that_is_killed_continues_to_the_same_bytes(searcher, toolbox, tmp_path):
    counts, trees = run_stage(tmp_path / "whole", searcher(), toolbox)
    assert (counts["searched"], counts["problems_with_both"], counts["right_ends"]) == (3, 3, 3)
    assert (counts["ends"], counts["ended_answered"]) == (9, 9)

    class Killed:
        def grow(self, problems, *, seed):
            if problems[0].id == "r":
                raise KeyboardInterrupt
            return search.grow(problems, seed=seed)

    search = searcher()
    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path / "killed", Killed(), toolbox)
    again, found = run_stage(tmp_path / "killed", searcher(), toolbox)
    assert found == trees
    files = [tmp_path / name / "search.jsonl" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert {**again, "peak_memory_bytes": 0} == {**counts, "peak_memory_bytes": 0}


def test_nothing_is_begun_beyond_the_budget(searcher, toolbox, tmp_path):
    counts, trees = run_stage(tmp_path, searcher(), toolbox, budget=1)
    assert [tree.problem_id for tree in trees] == ["p"]
    assert counts["over_budget"] == 2
    assert counts["sampled_tokens"] > 1
