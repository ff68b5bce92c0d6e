"""Search by value, with a policy by script and a value function that reads the text."""

import pytest
from trillium_math.agent.config import TurnSampling
from trillium_math.problems import Problem
from trillium_math.value.config import BeamSearch
from trillium_math.value.guided import beam_search, best_of_k

PROBLEMS = [Problem("p", "p?", "35"), Problem("q", "q?", "35")]
FACTORS = (6, 7, 5, 8)


@pytest.fixture
def prompted(policy, tokenizer, say):
    """Let the policy write a line at a time; it tries the factors one after another."""
    count = {"n": 0}

    def script(text):
        turn = text.rpartition("<|im_start|>assistant\n")[2]
        if "output" in text:
            result = text.rpartition("```output\n")[2].partition("\n")[0]
            return say(f"\\boxed{{{result}}}")
        lines = ["```python\n", "a = 3 + 4\n", "print(a * {})\n", "```"]
        line = lines[turn.count("\n")]
        if "{}" in line:
            line = line.format(FACTORS[count["n"] % len(FACTORS)])
            count["n"] += 1
        if line == "```":
            return say(line)
        return tokenizer(line, add_special_tokens=False).input_ids

    policy.script = script
    return count


def likes(toolbox, *texts):
    """Return a value function: the number of `texts` in a prefix."""
    seen = []

    def values(prefixes):
        found = [toolbox.dialogue.decode(prefix) for prefix in prefixes]
        seen.append(found)
        return [float(sum(text in one for text in texts)) for one in found]

    return values, seen


def test_a_beam_follows_the_values_to_the_right_answer(prompted, toolbox):
    values, seen = likes(toolbox, "* 5")
    found = beam_search(
        PROBLEMS,
        toolbox.roller,
        values,
        toolbox.generator,
        toolbox.sampling,
        BeamSearch(n_beams=2, n_proposals=4),
        seed=0,
    )
    assert [(one.problem_id, one.answer, one.is_right) for one in found] == [
        ("p", "35", True),
        ("q", "35", True),
    ]
    # Proposals of both problems are judged together: at first 2 * 4, then 2 * 2 * 4 at most.
    assert len(seen[0]) == 8
    assert max(map(len, seen)) <= 16


def test_without_a_preference_the_first_proposal_stays(prompted, toolbox):
    values, _ = likes(toolbox)
    (found,) = beam_search(
        PROBLEMS[:1], toolbox.roller, values, toolbox.generator, toolbox.sampling,
        BeamSearch(n_beams=1, n_proposals=2), seed=0,
    )  # fmt: skip
    assert found.answer == str(7 * FACTORS[0])


def test_equal_proposals_count_once_so_that_beams_differ(prompted, toolbox):
    """The first line is always the same: of four equal proposals one is kept, not two."""
    values, seen = likes(toolbox, "* 7")
    beam_search(
        PROBLEMS[:1], toolbox.roller, values, toolbox.generator, toolbox.sampling,
        BeamSearch(n_beams=2, n_proposals=3), seed=0,
    )  # fmt: skip
    assert [len(found) for found in seen[:2]] == [3, 3]
    assert len(seen[2]) == 6


def test_what_ends_without_an_answer_takes_no_place(policy, toolbox, say):
    """Every other sample gives up; the search goes on with the others."""
    count = {"n": 0}

    def script(text):
        count["n"] += 1
        return say("I give up." if count["n"] % 2 else r"\boxed{35}")

    policy.script = script
    values, _ = likes(toolbox, "give up")
    (found,) = beam_search(
        PROBLEMS[:1], toolbox.roller, values, toolbox.generator, toolbox.sampling,
        BeamSearch(n_beams=1, n_proposals=2), seed=0,
    )  # fmt: skip
    assert (found.answer, found.is_right) == ("35", True)
    policy.script = lambda text: say("I give up.")
    (lost,) = beam_search(
        PROBLEMS[:1], toolbox.roller, values, toolbox.generator, toolbox.sampling,
        BeamSearch(n_beams=2, n_proposals=2), seed=0,
    )  # fmt: skip
    assert (lost.outcome, lost.answer) == ("no_answer", None)


def test_a_search_ends_with_its_steps(policy, toolbox, tokenizer):
    policy.script = lambda text: tokenizer("so on\n", add_special_tokens=False).input_ids
    values, seen = likes(toolbox)
    (found,) = beam_search(
        PROBLEMS[:1], toolbox.roller, values, toolbox.generator, toolbox.sampling,
        BeamSearch(n_beams=2, n_proposals=2, max_steps=3), seed=0,
    )  # fmt: skip
    assert found.answer is None
    assert len(seen) == 4  # three steps, and what is left at the end
    assert sum(end - start for start, end in found.spans) == 3 * len(tokenizer("so on\n").input_ids)


def test_whole_turns_are_steps_too(policy, toolbox, say):
    """Best of K actions: of the first turns the one with the right factor, then its answer."""
    count = {"n": 0}

    def script(text):
        if "output" in text:
            result = text.rpartition("```output\n")[2].partition("\n")[0]
            return say(f"\\boxed{{{result}}}")
        count["n"] += 1
        return say(f"```python\nprint(7 * {FACTORS[count['n'] % 4]})\n```")

    policy.script = script
    values, seen = likes(toolbox, "* 5")
    (found,) = beam_search(
        PROBLEMS[:1], toolbox.roller, values, toolbox.generator, toolbox.sampling,
        BeamSearch(n_beams=1, n_proposals=4, unit="turn"), seed=0,
    )  # fmt: skip
    assert found.is_right
    assert [len(one) for one in seen] == [4, 4, 0]
    # The state that is judged holds the tool's output and the header of the next turn.
    assert all("output" in text for text in seen[0])


def test_the_best_of_k_has_the_highest_value_among_those_with_an_answer(policy, toolbox, say):
    count = {"n": 0}
    said = ["I give up, 5", r"\boxed{36}", r"5: \boxed{35}", r"\boxed{37}"]

    def script(text):
        count["n"] += 1
        return say(said[(count["n"] - 1) % 4])

    policy.script = script
    values, _ = likes(toolbox, "5: ", "give up", "up, 5")
    sampling = TurnSampling(n_samples=4, max_new_tokens=60)
    found = best_of_k(PROBLEMS, toolbox.roller, values, toolbox.generator, sampling, seed=0)
    assert [(one.problem_id, one.answer) for one in found] == [("p", "35"), ("q", "35")]
