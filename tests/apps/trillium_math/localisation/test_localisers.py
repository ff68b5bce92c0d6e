"""Hand-written trajectories whose error is known, and a policy that errs only once it has erred."""

from fractions import Fraction

import pytest
from trillium.generation.config import ServerConfig
from trillium_math.localisation.judge import JudgeLocaliser, read_judgement
from trillium_math.localisation.monte_carlo import MonteCarloLocaliser
from trillium_math.localisation.oracle import (
    OracleLocaliser,
    has_false_equation,
    probe_last_line,
    read_numbers,
    read_value,
)
from trillium_math.problems import FAMILIES, Problem, draw_problems

PROBLEM = Problem(
    "p",
    "What is the sum of 3 and 4, times 5?",
    "35",
    reasoning="3 + 4 = 7.\n7 * 5 = 35.",
    solution="a = 3 + 4\nprint(a * 5)",
)
TURN = "I add first.\n```python\na = 3 + 4\nb = a * {}\nprint(b)\n```"
LINES = ["I add first.", "```python\na = 3 + 4", "b = a * 6", "print(b)", "```", "\\boxed{42}"]


def follow(policy, say):
    """Continue as the dialogue has begun: right until `* 6` is written, wrong after it."""

    def script(text):
        factor, result = (6, 42) if "a * 6" in text else (5, 35)
        turn = text.rpartition("<|im_start|>assistant\n")[2]
        if "output" in text:
            return say(f"\\boxed{{{result}}}")
        whole = TURN.format(factor)
        assert whole.startswith(turn)
        return say(whole[len(turn) :])

    policy.script = script


@pytest.fixture
def mistake(play):
    return play(PROBLEM, TURN.format(6), r"\boxed{42}")


def test_rollouts_find_the_step_after_which_nothing_ends_well(mistake, policy, toolbox, say):
    follow(policy, say)
    localiser = MonteCarloLocaliser(n_rollouts=3).open(toolbox)
    (found,) = localiser.locate([mistake], seed=0)
    assert (found.step, found.why, found.rates) == (2, "rollouts fail", (1.0, 1.0, 0.0))
    assert len(mistake.steps) == len(LINES)


def test_rollouts_of_several_trajectories_go_together(mistake, play, policy, toolbox, say):
    last = play(PROBLEM, TURN.format(5), r"\boxed{53}", name="p#last")
    one_step = play(PROBLEM, r"\boxed{1}", name="p#short")
    follow(policy, say)
    policy.prompts.clear()
    found = (
        MonteCarloLocaliser(n_rollouts=2).open(toolbox).locate([mistake, last, one_step], seed=0)
    )
    assert [(one.step, one.why) for one in found] == [
        (2, "rollouts fail"),
        (5, "last step"),
        (0, "last step"),
    ]
    # The answer to a problem of one step is its only step: nothing is rolled out for it.
    assert found[2].rates == ()
    assert max(map(len, policy.prompts)) == 4


def test_a_threshold_blames_steps_that_seldom_end_well(mistake, policy, toolbox, say):
    follow(policy, say)
    script, seen = policy.script, []

    def unlucky(text):
        """Answer wrongly in every other dialogue."""
        if "output" not in text:
            return script(text)
        seen.append(text)
        return script(text) if len(seen) % 2 else say(r"\boxed{0}")

    policy.script = unlucky
    (strict,) = (
        MonteCarloLocaliser(n_rollouts=2, threshold=0.5).open(toolbox).locate([mistake], seed=0)
    )
    assert (strict.step, strict.rates) == (0, (0.5,))


def test_the_oracle_knows_numbers_results_equations_and_errors(mistake, play, toolbox):
    oracle = OracleLocaliser().open(toolbox)
    known = play(PROBLEM, TURN.format("(5 - 1)"), r"\boxed{28}", name="p#known")
    prose = play(PROBLEM, "First 3 + 4 = 12.\n\\boxed{60}", name="p#prose")
    broken = play(PROBLEM, "```python\nprint(a * 5)\n```", r"\boxed{5}", name="p#broken")
    found = oracle.locate([mistake, known, prose, broken], seed=0)
    assert [(one.step, one.why) for one in found] == [
        (2, "unknown number"),
        (2, "unknown result"),
        (0, "false equation"),
        (0, "code: error"),
    ]


def test_the_oracle_blames_what_printed_or_boxed_another_answer(play, toolbox):
    oracle = OracleLocaliser().open(toolbox)
    printed = play(PROBLEM, "Well.\n```python\na = 3 + 4\nprint(a)\n```", r"\boxed{7}", name="p#a")
    boxed = play(PROBLEM, "```python\na = 3 + 4\nprint(a * 5)\n```", r"So \boxed{7}", name="p#b")
    silent = play(PROBLEM, "I do not know.", name="p#c")
    found = oracle.locate([printed, boxed, silent], seed=0)
    assert [(one.step, one.why) for one in found] == [
        (2, "wrong answer"),
        (3, "wrong answer"),
        (0, "wrong answer"),
    ]
    huge = play(PROBLEM, "```python\nprint('1e999')\n```", r"\boxed{7}", name="p#d")
    (found,) = oracle.locate([huge], seed=0)
    assert (found.step, found.why) == (0, "unknown result")
    nothing = Problem("q", "?", "1")
    (bare,) = oracle.locate([play(nothing, r"\boxed{2}", name="q#a")], seed=0)
    assert (bare.step, bare.why) == (None, "no reference")


def test_the_oracle_finds_nothing_wrong_in_verified_solutions(play, toolbox):
    """Every line of every template's own solution passes; only the altered answer is blamed."""
    templates = [one for family in FAMILIES.values() for one in family.templates]
    for problem in draw_problems(templates, n_problems=len(templates), seed=5, difficulties=(2,)):
        one = play(problem, f"```python\n{problem.solution}\n```", r"\boxed{-12345}")
        (found,) = OracleLocaliser().open(toolbox).locate([one], seed=0)
        assert found.step == len(one.steps) - 1, (problem, found)
        assert not has_false_equation(problem.reasoning), problem


def test_a_judge_on_a_server_reads_the_numbered_steps(mistake, policy, toolbox):
    policy.judge = lambda question: "Step 1: correct\nStep 2: correct.\nStep 3: incorrect, 5 is"
    server = ServerConfig(url=policy.url, model="judge", n_retries=0)
    (found,) = JudgeLocaliser(server=server).open(toolbox).locate([mistake], seed=0)
    assert (found.step, found.why) == (2, "judged incorrect")
    (question,) = policy.questions
    assert PROBLEM.question in question
    assert PROBLEM.reasoning in question
    assert "Step 3: b = a * 6\n" in question
    assert "(the tool: user\n```output\n42\n```" in question


def test_the_policy_can_judge_itself_and_its_tokens_are_counted(mistake, policy, toolbox, say):
    policy.script = lambda text: say("Step 1: neutral") if "Reference" in text else say("?")
    before = toolbox.roller.n_sampled
    (found,) = JudgeLocaliser().open(toolbox).locate([mistake], seed=0)
    assert (found.step, found.why) == (0, "judged neutral")
    assert toolbox.roller.n_sampled - before == len(say("Step 1: neutral"))


@pytest.mark.parametrize(
    ("answer", "step", "why"),
    [
        ("Step 1: correct\nStep 2: Correct\nSTEP 3 - incorrect", 2, "judged incorrect"),
        ("**Step 1**: correct. **Step 2**: neutral", 1, "judged neutral"),
        ("Step 1: correct\nStep 3: incorrect", None, "judgement incomplete"),
        ("Step 1: correct\nStep 2: correct\nStep 3: correct", None, "judged right"),
        ("Step 4: incorrect", None, "judgement unreadable"),
        ("all good", None, "judgement unreadable"),
        ("", None, "judgement unreadable"),
        ("Step 1: correct\n" * 50_000, None, "judgement incomplete"),
    ],
)
def test_judgements_are_read_in_order_or_not_at_all(answer, step, why):
    found = read_judgement(answer, 3)
    assert (found.step, found.why) == (step, why)


def test_equations_are_judged_only_where_they_are_plain():
    false = ["3 * 4 = 13", "we get 7 - 2 = 6.", "1 / 3 = 0.4", "so 2 + 2 * 2 = 8, then"]
    true = ["3 * 4 = 12", "1 / 3 = 0.33", "10 - 2 * 3 = 4", "2 / 0 = 5", "x * 3 + 4 = 9"]
    open_ended = ["(2 + 3) * 4 = 20", "3 + 4 = 7 * 2", "a = 5", "3 == 4", "f(3) + 1 = 9", "2 = x"]
    parts = [
        *("5^2 = 25.", "2^3 + 1 = 9", "10 % 3 = 1", "x1 = 5", "v2 = 30", "x_1 = 4", "√16 = 4"),
        *("3 x 4 = 12", "1,200 + 300 = 1,500", "1200 + 300 = 1,500", "1e3 = 1000", "3:4 = 0.75"),
        *("20% of 50 = 10", "the sum of 3 and 4 = 7", r"3 \times 4 = 12", "log 100 = 2"),
        *("120 = 5!", r"15 = 5\cdot 3", "20 = 5(4)", "3 / 2 = 1.5x"),
    ]
    false += ["3 * 4 = 4 + 8 = 13", "First, 3 + 4 = 8.", "Step 2: 3 + 4 = 8", "# 1 + 1 = 3"]
    assert [text for text in false if not has_false_equation(text)] == []
    assert [text for text in [*true, *open_ended, *parts] if has_false_equation(text)] == []
    for monster in ("9" * 100_000 + " = 1", "1 + " * 30_000 + "1 = 7", " " * 100_000 + "=", "="):
        assert not has_false_equation(monster)


def test_numbers_and_values_are_read_exactly():
    expected = {Fraction(text) for text in ("3", "4", "3/4", "3/2", "7")}
    assert read_numbers("3/4 of 1.5 km, x2 and 7.") == expected
    assert read_numbers("9" * 100_000) == frozenset()
    values = {"0.30000000000000004": "3/10", "-7": "7", "a\n12": "12", "3/6": "1/2"}
    values["-1e999"] = "1" + "0" * 999
    for text, value in values.items():
        assert str(read_value(text)) == value
    for text in ("", "x", "1/0", "1,000", "9" * 100_000, "nan"):
        assert read_value(text) is None


def test_a_probe_prints_what_the_last_statement_computed():
    assert probe_last_line("x = 1\ny = x + 1") == "x = 1\ny = x + 1\nprint(y)"
    assert probe_last_line("x = 1\nx += 2") == "x = 1\nx += 2\nprint(x)"
    assert probe_last_line("print(3)") == "print(3)"
    for code in ("for i in range(3):", "import math", "a, b = 1, 2", "", "(" * 5000, "\0"):
        assert probe_last_line(code) is None
