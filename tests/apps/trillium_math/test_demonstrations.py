import pytest
from trillium.errors import DataError
from trillium.policies.tiny import tiny_tokenizer
from trillium_math.agent.config import AgentConfig, ToolConfig
from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.tool import PythonTool
from trillium_math.demonstrations import demonstrate
from trillium_math.grading import Grader
from trillium_math.problems import Problem

CONFIG = AgentConfig(instruction="{question}", tool=ToolConfig(min_level=1, wall_s=2.0))


@pytest.fixture(scope="module")
def show():
    """Return a function from problems to their demonstrations."""
    tokenizer = tiny_tokenizer()
    with CONFIG.tool.open() as backend, Grader() as grader:
        tool, dialogue = PythonTool(backend, CONFIG.tool), Dialogue(tokenizer, CONFIG)
        yield lambda *problems, max_tokens=400: demonstrate(
            problems, dialogue, tool, grader, max_tokens=max_tokens
        )


def test_a_demonstration_holds_what_the_tool_really_printed(show):
    made = show(Problem("p", "3 * 4?", "12", solution="x = 3 * 4\nprint(x)"))
    (one,) = made.trajectories
    tokenizer = tiny_tokenizer()
    said = [tokenizer.decode(one.token_ids[start:end]) for start, end in one.spans]
    assert said[0].endswith("\n```python\nx = 3 * 4\nprint(x)\n```<|im_end|>")
    assert said[1] == "The answer is \\boxed{12}.<|im_end|>"
    between = tokenizer.decode(one.token_ids[one.spans[0][1] : one.spans[1][0]])
    assert between == "\n<|im_start|>user\n```output\n12\n```<|im_end|>\n<|im_start|>assistant\n"
    assert one.path.n_scored == sum(end - start for start, end in one.spans)
    assert made.unusable == ()


def test_solutions_that_do_not_print_the_answer_show_nothing_and_are_named(show):
    made = show(
        Problem("good", "?", "12", solution="print(12)"),
        Problem("wrong", "?", "12", solution="print(13)"),
        Problem("broken", "?", "12", solution="print(12"),
        Problem("none", "?", "12"),
        Problem("long", "?" * 400, "12", solution="print(12)"),
    )
    assert [one.problem_id for one in made.trajectories] == ["good"]
    assert made.unusable == ("wrong", "broken", "none", "long")
    with pytest.raises(DataError, match="none of 1 problems gives a demonstration"):
        show(Problem("wrong", "?", "12", solution="print(13)"))
