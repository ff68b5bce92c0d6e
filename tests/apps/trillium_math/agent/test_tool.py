import pytest
from trillium_math.agent.cells import find_call
from trillium_math.agent.tool import cut_middle


def outputs(tool, *calls):
    return [(result.output, result.status) for result in tool.run(calls)]


def test_cells_share_their_names_and_only_the_last_is_heard(tool):
    cells = ["import math\nx = 6\nprint('early')", "def f(n):\n    return n * x", "f(7)"]
    assert outputs(tool, cells[:1], cells[:2], cells) == [
        ("early", "ok"),
        ("(no output)", "ok"),
        ("42", "ok"),
    ]


def test_a_cell_that_fails_says_where_and_leaves_the_names_before_it(tool):
    failing = "x = 1\ny = x / 0"
    assert outputs(tool, [failing], [failing, "x"], ["print(1"], ["import os\nz"]) == [
        ("line 2: ZeroDivisionError: division by zero", "error"),
        ("1", "ok"),
        ("line 1: SyntaxError: '(' was never closed (<cell>, line 1)", "error"),
        ("line 2: NameError: name 'z' is not defined", "error"),
    ]


def test_hostile_cells_are_counted_outcomes_and_harm_nothing_else(tool):
    found = outputs(
        tool,
        ["while True: pass"],
        ["while True: print('flood ' * 1000)"],
        ["x = 'a' * 10**10"],
        ["import os\nos._exit(3)"],
        ["import sys\nsys.exit(0)"],
        ["input()"],
        ["import os\nos.system('true')\nprint('on')"],
        ["print(6 * 7)"],
    )
    statuses = [status for _, status in found]
    assert statuses[0] == "timeout"
    assert found[0][0] == "TimeoutError: no result after 1 s"
    assert statuses[1] in {"flood", "timeout"}
    assert len(found[1][0]) <= 240
    assert statuses[2] in {"memory", "error"}
    assert statuses[3] == "killed"
    assert found[4] == ("(no output)", "ok")
    assert statuses[5] == "error"
    assert found[7] == ("42", "ok")


def test_equal_prefixes_run_once(tool):
    before = tool.n_runs
    tool.run([["print('once')"], ["print('once')"]])
    tool.run([["print('once')"]])
    assert tool.n_runs == before + 1


def test_random_numbers_are_the_same_when_a_prefix_runs_again(tool):
    cell = "import random\nx = random.random()\nprint(x)"
    ((first, _), (again, _)) = outputs(tool, [cell], [cell, "print(x)"])
    assert first == again


def test_output_is_the_same_in_every_process(tool):
    found = outputs(tool, ["print(print)\ndef solve(): pass\nprint(solve)"], ["(n for n in 'ab')"])
    assert found == [
        ("<built-in function print>\n<function solve>", "ok"),
        ("<generator object <genexpr>>", "ok"),
    ]


def test_long_output_loses_its_middle():
    text = "a" * 500 + "b" * 500
    cut = cut_middle(text, 200)
    assert len(cut) <= 200
    assert cut.startswith("a" * 70)
    assert cut.endswith("b" * 70)
    assert cut_middle("short", 200) == "short"


@pytest.mark.parametrize(
    ("n_chars", "max_chars", "n_left_out"),
    [(1000, 200, 833), (5000, 600, 4434), (1132, 166, 999), (1133, 166, 1001), (9, 8, 7)],
)
def test_a_cut_counts_what_is_left_out(n_chars, max_chars, n_left_out):
    cut = cut_middle("a" * n_chars, max_chars)
    assert cut.strip("a") == f"\n... {n_left_out} characters left out ...\n"
    assert (
        cut.count("a", 0, cut.index("\n")) + len(cut) - cut.rindex("\n") - 1 == n_chars - n_left_out
    )
    assert len(cut) == max_chars or max_chars == 8


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        ("```python\nprint(1)\n```", "print(1)"),
        ("a\n```py\nx = 1\n\nx\n```\nb\n```python\ny\n```", "x = 1\n\nx"),
        ("```python\nprint(1)", "print(1)"),
        ("```python\n\n```", None),
        ("```\nprint(1)\n```", None),
        ("print(1)", None),
    ],
)
def test_a_call_is_the_first_python_block(turn, code):
    assert find_call(turn) == code
