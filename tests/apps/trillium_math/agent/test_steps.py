import pytest
from trillium.generation.server import ServerConfig, ServerGenerator
from trillium_math.agent.config import AgentConfig, TurnSampling
from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.rollout import Roller
from trillium_math.agent.steps import has_content, split_steps, strip_end
from trillium_math.grading import Grader
from trillium_math.problems import Problem

CODE = "Compute.\n\n```python\nx = 3\nprint(x * 4)\n```"
PROBLEM = Problem("p", "3 * 4?", "12")


@pytest.fixture
def roller(tokenizer, tool):
    config = AgentConfig(instruction="{question}", max_turns=3, max_tokens=800)
    with Grader() as grader:
        yield Roller(Dialogue(tokenizer, config), tool, grader, config, policy="scripted")


@pytest.fixture
def generator(policy, tokenizer):
    client = ServerConfig(url=policy.url, model="scripted", max_rows=256)
    return ServerGenerator(client, tokenizer)


def follow(whole, tokenizer, say):
    """Return a script that continues the dialogue `whole` from wherever the prompt ends."""

    def script(text):
        done = text.rpartition("<|im_start|>assistant\n")[2]
        (turn,) = [turn for turn in whole if turn.startswith(done) and
                   (done or (turn == whole[0]) == ("output" not in text))]  # fmt: skip
        return say(turn[len(done) :])

    return script


WHOLE = [CODE, r"The answer is \boxed{12}."]


@pytest.fixture
def finished(policy, roller, generator, tokenizer, say):
    policy.script = follow(WHOLE, tokenizer, say)
    (one,) = roller.roll_out([PROBLEM], generator, TurnSampling(n_samples=1), seed=0)
    assert one.is_right
    return one


def texts(one, tokenizer, unit="line"):
    steps = split_steps(one.token_ids, one.spans, tokenizer.decode, unit=unit)
    return [tokenizer.decode(one.token_ids[start:end]) for start, end in steps]


def test_steps_are_lines_with_content_and_the_ends_of_turns(finished, tokenizer):
    assert texts(finished, tokenizer) == [
        "Compute.\n",
        "\n```python\nx = 3\n",
        "print(x * 4)\n",
        "```<|im_end|>",
        "The answer is \\boxed{12}.<|im_end|>",
    ]
    assert texts(finished, tokenizer, "turn") == [turn + "<|im_end|>" for turn in WHOLE]


def test_steps_hold_every_sampled_token_once(finished, tokenizer):
    for unit in ("line", "turn"):
        steps = split_steps(finished.token_ids, finished.spans, tokenizer.decode, unit=unit)
        places = [place for start, end in steps for place in range(start, end)]
        sampled = [place for start, end in finished.spans for place in range(start, end)]
        assert places == sampled


def test_a_fence_or_a_blank_line_is_no_content():
    assert not any(map(has_content, ("", "\n", "```python\n", "```\n", " --\n")))
    assert all(map(has_content, ("x\n", "```python\nx", "7", "é")))


def test_the_end_of_a_turn_is_left_out_of_a_leaf():
    assert strip_end((5, 2, 6, 2, 2), frozenset({2})) == (5, 2, 6)
    assert strip_end((2,), frozenset({2})) == ()


def test_a_trajectory_cut_at_any_step_is_completed_to_the_same_tokens(
    finished, policy, roller, generator, tokenizer, say
):
    policy.script = follow(WHOLE, tokenizer, say)
    ends = [end for _, end in split_steps(finished.token_ids, finished.spans, tokenizer.decode)]
    for place in (finished.spans[0][0], *ends):
        partial = roller.cut(finished, PROBLEM, place, id="again")
        before = len(partial.ids)
        (again,) = roller.complete([partial], generator, TurnSampling(), seed=1)
        assert again.token_ids == finished.token_ids
        assert again.spans == finished.spans
        assert again.turns == finished.turns
        assert again.is_right
        assert before <= len(again.token_ids)


def test_the_tool_knows_the_cells_of_a_prefix(finished, policy, roller, generator, say):
    """The cell of the first turn defines x; a second call from the cut sees it."""
    partial = roller.cut(finished, PROBLEM, finished.spans[0][1], id="again")
    assert partial.cells == ["x = 3\nprint(x * 4)"]
    assert not partial.is_open
    turns = iter(["```python\nprint(x + 9)\n```", r"\boxed{12}"])
    policy.script = lambda text: say(next(turns))
    (again,) = roller.complete([partial], generator, TurnSampling(), seed=1)
    assert [turn.content for turn in again.turns if turn.status] == ["```output\n12\n```"] * 2
    assert again.is_right


def test_single_steps_end_in_the_same_trajectory(
    finished, policy, roller, generator, tokenizer, say
):
    """A scripted server says the whole turn, and stops at newlines as it is asked to."""
    whole = follow(WHOLE, tokenizer, say)

    def line(text):
        ids = whole(text)
        said = tokenizer.decode(ids)
        cut = said.find("\n") + 1
        return tokenizer(said[:cut], add_special_tokens=False).input_ids if cut else ids

    policy.script = line
    partial, seen = roller.start(PROBLEM, 0), []
    while partial.outcome is None:
        before = len(partial.ids)
        roller.take_step([partial], generator, TurnSampling(), seed=len(seen), unit="line")
        end = partial.spans[-1][1]
        seen.append(tokenizer.decode(partial.ids[before:end]))
    assert seen == texts(finished, tokenizer)
    again = roller.finish(partial)
    assert (again.token_ids, again.spans, again.is_right) == (
        finished.token_ids,
        finished.spans,
        True,
    )


def test_a_fork_goes_its_own_way(finished, policy, roller, generator, say):
    partial = roller.cut(finished, PROBLEM, finished.spans[0][1], id="one")
    other = partial.fork("other")
    policy.script = lambda text: say(r"\boxed{13}")
    roller.take_step([other], generator, TurnSampling(), seed=0, unit="turn")
    assert (other.outcome, other.answer) == ("answered", "13")
    assert partial.outcome is None
    assert len(partial.ids) < len(other.ids)
    assert len(partial.turns) + 1 == len(other.turns)


def test_a_policy_that_never_ends_its_lines_is_stopped(policy, roller, generator, say, tokenizer):
    partial = roller.start(PROBLEM, 0)
    policy.script = lambda text: tokenizer("so on\n", add_special_tokens=False).input_ids
    sampling = TurnSampling(max_new_tokens=40)
    for number in range(20):
        roller.take_step([partial], generator, sampling, seed=number, unit="line")
    assert partial.outcome == "turn_too_long"
    assert partial.n_policy_tokens == 40
    blank = roller.start(PROBLEM, 1)
    policy.script = lambda text: tokenizer("\n", add_special_tokens=False).input_ids
    roller.take_step([blank], generator, sampling, seed=0, unit="line")
    assert (blank.outcome, blank.n_policy_tokens) == (None, 4)


def test_the_tool_runs_what_the_tokens_spell(policy, roller, generator, tokenizer, say):
    """A token may hold a newline and the indent behind it; the text of a line ends before it."""
    lines = ["```python\n", "x = 0\n", "for i in range(4):\n    ", "if i:\n        ",
             "x += i * 2\nprint(x)\n"]  # fmt: skip
    said = iter([*(tokenizer(line).input_ids for line in lines), say("```")])
    policy.script = lambda text: next(said)
    partial = roller.start(PROBLEM, 0)
    for number in range(len(lines)):
        roller.take_step([partial], generator, TurnSampling(), seed=number, unit="line")
    code = "x = 0\nfor i in range(4):\n    if i:\n        x += i * 2\nprint(x)"
    assert partial.cells == [code]
    assert partial.turns[-1].content == "```output\n12\n```"
    start, end = partial.spans[0]
    assert partial.turns[1].content + "<|im_end|>" == tokenizer.decode(partial.ids[start:end])


def test_the_rest_of_a_turn_has_what_the_turn_has_left(policy, roller, generator, tokenizer, say):
    """The whole trajectory fits exactly, so what begins it fits as well."""
    whole = "I multiply.\n" + r"So \boxed{12}."
    n_prompt = len(roller.start(PROBLEM, 0).ids)
    sampling = TurnSampling(n_samples=1, max_new_tokens=800 - n_prompt)
    policy.script = follow([whole], tokenizer, say)
    (one,) = roller.roll_out([PROBLEM], generator, sampling, seed=0)
    begun = roller.cut(one, PROBLEM, n_prompt + len("I multiply.\n"), id="again")
    (again,) = roller.complete([begun], generator, sampling, seed=1)
    assert (again.outcome, again.token_ids) == ("answered", one.token_ids)


def test_turns_of_different_lengths_go_on_together_to_the_same_limit(
    policy, roller, generator, tokenizer
):
    sampling = TurnSampling(n_samples=1, max_new_tokens=30)
    partials = [roller.start(PROBLEM, number) for number in range(3)]
    lines = iter(["so on\n", "and\n", "so forth\n"])
    policy.script = lambda text: tokenizer(next(lines), add_special_tokens=False).input_ids
    roller.take_step(partials, generator, sampling, seed=0, unit="line")
    policy.prompts.clear()
    policy.script = lambda text: tokenizer("x" * 200, add_special_tokens=False).input_ids
    roller.take_step(partials, generator, sampling, seed=1, unit="turn")
    assert [(one.outcome, one.n_policy_tokens) for one in partials] == [("turn_too_long", 30)] * 3
    assert [turn.content for one in partials for turn in one.turns[1:]] == [
        (line + "x" * 30)[:30] for line in ("so on\n", "and\n", "so forth\n")
    ]
    assert [len(prompts) for prompts in policy.prompts] == [3]
