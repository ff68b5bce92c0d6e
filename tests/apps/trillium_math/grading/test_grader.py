"""Verdicts by the policy of comparing.py; the cases are ours, the tables are read as pairs."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trillium_math.grading import Grader

from .spellings import DIFFERENT, SAME


@pytest.mark.parametrize(("gold", "prediction"), SAME)
def test_another_spelling_of_the_answer_is_right(grader, gold, prediction):
    assert grader.grade(gold, prediction).correct


@pytest.mark.parametrize(("gold", "prediction"), DIFFERENT)
def test_another_answer_is_wrong(grader, gold, prediction):
    assert not grader.grade(gold, prediction).correct


def test_the_shared_examples_are_graded_as_expected(grader):
    folder = os.environ.get("TRILLIUM_GOLDEN", "../shared/golden")
    path = Path(folder) / "math_grading_examples.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set TRILLIUM_GOLDEN to the folder that holds it")
    for line in path.read_text().splitlines():
        row = json.loads(line)
        grade = grader.grade(row["gold"], row["prediction"], row["kind"])
        assert grade.correct is row["expected"], row


def test_a_response_is_graded_by_its_last_answer(grader):
    right = grader.grade("18", r"first \boxed{17}, then \boxed{18}", "response")
    assert (right.correct, right.extracted) == (True, "18")
    assert not grader.grade("17", r"first \boxed{17}, then \boxed{18}", "response").correct
    missing = grader.grade("18", r"\boxed{18", "response")
    assert (missing.correct, missing.extracted) == (False, None)


def test_rewards_can_be_limited_to_boxes():
    with Grader(sources=("box",)) as strict:
        assert not strict.grade("18", "the answer is 18", "response").correct
        assert strict.grade("18", r"\boxed{18}", "response").correct


HOSTILE = [
    "9**9**9",
    "10^{10^{10}}",
    "x^{10^{9}}",
    "9!!!!",
    r"\binom{10^9}{5}",
    r"\tan(10^{100})",
    "(((1+x)^{99})^{99})^{99}",
    "{" * 100_000,
    "(" * 100_000,
    "\\boxed{" * 15_000,
    "\\frac" * 20_000,
    "1" * 100_000,
    "1," * 50_000,
    "answer is " * 10_000,
    "-" * 1_999,
    "\\sqrt{" * 300 + "x" + "}" * 300,
    "\\frac" * 300,
    "\\sqrt" * 300,
    "\\binom" * 300,
    "\\frac" + "-" * 350,
    "\\log_" * 100,
    "3.5/2",
    "\\begin{pmatrix}" * 100,
    "\ud800\x00",
    "1e99999",
    "0^{-1}",
    r"\log_1 5",
    r"\infty-\infty",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("gold", ["7", "x+1", r"\sqrt{7}", "1, 7"])
def test_hostile_texts_are_wrong_answers_and_nothing_else(grader, gold, text):
    before = grader.n_timeouts
    assert not grader.grade(gold, text, "answer").correct
    grader.grade(gold, text, "response")
    grader.grade(text, gold, "answer")
    assert grader.n_timeouts == before


BESIDE_NUMBERS = [
    "9**9**9 m",
    "1 " * 990 + "m",
    "(" * 1990 + "1) m",
    "1" + " " * 1990 + "x 10",
    "9**9**9%",
]


@pytest.mark.parametrize("text", BESIDE_NUMBERS, ids=range(len(BESIDE_NUMBERS)))
@pytest.mark.parametrize("gold", ["7", "7 m", "x=1, y=7", "a < x"])
def test_hostile_texts_ask_no_algebra(grader, gold, text):
    before = grader.n_timeouts
    assert not grader.grade(gold, text).correct
    assert not grader.grade(text, gold).correct
    assert grader.n_timeouts == before


def test_a_comparison_that_takes_too_long_is_wrong_counted_and_leaves_the_grader_working():
    with Grader(timeout_s=1.0) as impatient:
        assert not impatient.grade("x+1", "e^{e^{e^{e^{e}}}}").correct
        assert impatient.n_timeouts == 1
        assert impatient.grade("x^2-1", "(x-1)(x+1)").correct


ALPHABET = r"""
\frac \sqrt \boxed \text \left \right \begin{pmatrix} \end{pmatrix} { } ( ) [ ] \{ \} , ; | &
\\ + - * / ^ _ ! = < > \le \cup \pm \infty \pi x y e i 0 1 2 3.5 1/2 12 % \% $ . ° cm or and
#### answer ```output 9**9 3.5/2 \binom 2x_1 \$5 ^\circ
"""
PIECES = st.sampled_from(ALPHABET.split())


@pytest.mark.property
@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=12).map(" ".join), st.text(max_size=30), st.booleans())
def test_no_text_crashes_the_grader(pieces, noise, swap):
    texts = (pieces, noise) if swap else (noise, pieces)
    with Grader(timeout_s=0.2) as grader:
        # Without its process the algebra is not asked; everything before it is.
        grader._algebra.begin = lambda: setattr(grader._algebra, "_left_s", 0.0)
        for kind in ("answer", "response"):
            grade = grader.grade(texts[0] or "1", texts[1], kind)
            assert isinstance(grade.correct, bool)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(PIECES, max_size=10).map(" ".join))
def test_no_formula_crashes_the_algebra(grader, pieces):
    assert grader.grade("x + \\sqrt{2}", pieces).correct is False


@pytest.mark.property
@settings(max_examples=200, deadline=None)
@given(st.fractions(), st.fractions())
def test_fractions_are_compared_exactly(grader, one, other):
    assert grader.grade(str(one), str(other)).correct is (one == other)
    assert grader.grade(str(one), rf"\frac{{{one.numerator}}}{{{one.denominator}}}").correct
