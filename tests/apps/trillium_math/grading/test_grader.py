"""Verdicts by the policy of comparing.py; the cases are ours, the tables are read as pairs."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trillium_math.grading import Grader

SAME = r"""
1/2                             | 0.5
\frac{1}{2}                     | \dfrac12
2/4                             | 1/2
-\frac{1}{2}                    | \frac{1}{-2}
0.25                            | \frac14
1,234                           | 1234
1{,}234.5                       | 1234.50
10,\!080                        | 10080
7 3/4                           | 31/4
-2\frac12                       | -2.5
1e3                             | 1000
1.2E6                           | 1,200,000
1.2 \times 10^6                 | 1200000
1.2 million                     | 1.2\times10^{6}
3 dozen                         | 36
0.1\overline{6}                 | 1/6
\sqrt{2}                        | 1.41421356
2/3                             | 0.66666667
-2/3                            | -0.66666666
1/3                             | 0.33333333
\pi                             | 3.14159265358979
50\%                            | 0.5
50%                             | 50
50                              | 50%
90^\circ                        | 90
90                              | 90 degrees
10\text{ cm}                    | 10
25                              | 25\text{ cm}^2
25 cm^2                         | 25 square centimeters
18                              | 18 red apples
60 km/h                         | 60
\$18                            | 18 dollars
3 hours                         | 3 hrs
\sqrt{8}                        | 2\sqrt2
\frac{\sqrt3}{3}                | 1/sqrt(3)
2\pi                            | 2*pi
\sqrt{3+2\sqrt{2}}              | 1+\sqrt2
\sqrt[3]{-8}                    | -2
e^2                             | exp(2)
\log_2 8                        | 3
\log 100                        | 2
\binom{5}{2}                    | 10
4!                              | 24
x^2-1                           | (x+1)(x-1)
x**2 + 2*x                      | x(x+2)
\sin^2 x+\cos^2 x               | 1
|x|                             | \sqrt{x^2}
(1+i)^2                         | 2i
\frac{x}{y}                     | x/y
x=11                            | 11
11                              | x = 11
y=2x+1                          | 2x+1
f(x)=2x                         | 2x
y=2x+1                          | 2y - 4x = 2
10                              | 3+7 = 10
5 < x                           | x > 5
2x < 4                          | x < 2
x \ge 5                         | [5, \infty)
-3 < x \le 5                    | (-3, 5]
[0, 1)                          | 0 \le x < 1
x \in [1,2]                     | [1, 2]
(1,2)                           | (1, \frac{4}{2})
(1,2)                           | 1, 2
1, 2                            | 2, 1
1, 2                            | x=2 or x=1
x=1, y=2                        | (1, 2)
\{1,2,3\}                       | \{3,1,2,2\}
\{1,2\}                         | 2 and 1
1 \pm \sqrt2                    | 1-\sqrt2, 1+\sqrt2
(1,2), (3,4)                    | (3,4), (1,2)
(-\infty,0)\cup(1,\infty)       | (1,\infty) \cup (-\infty,0)
\mathbb{R}                      | (-\infty, \infty)
\emptyset                       | \{\}
\begin{pmatrix}1&2\\3&4\end{pmatrix}   | \begin{bmatrix} 1 & 2 \\ 3 & 8/2 \end{bmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix}   | [[1, 2], [3, 4]]
\text{even}                     | Even
\text{(A)}                      | A
(C)                             | C.
1101_2                          | 1101
\boxed{5}                       | \boxed{5.0}
9**9**9                         | 9**9**9
\left(\frac12,3\right)          | (0.5, 3)
12:30                           | 12:30
3:2                             | 3/2
18                              | = 18
\sqrt2                          | \sqrt2 \approx 1.414
\text{DNE}                      | dne
\infty                          | inf
3                               | 3 \text{ meters per second}
(x, y) = (1, 2)                 | (1, 2)
(1, 2)                          | (a, b) = (1, 2)
A = \{1, 2\}                    | 2, 1
(0,1) U [2,3]                   | [2,3] \cup (0,1)
x < 1 \text{ or } x > 2         | (-\infty,1)\cup(2,\infty)
x = -2, 1                       | 1, -2
a_n = 2n+1                      | 1 + 2n
3/4 cups                        | 0.75
\left(\begin{array}{c}1\\2\end{array}\right) | \begin{pmatrix}1\\2\end{pmatrix}
\ln 2 + \ln 3                   | \ln 6
\frac{1}{2} \text{ hour}        | 0.5
e^{i\pi}                        | -1
"""
DIFFERENT = r"""
5                               | 6
5                               | -5
12                              | 12.0001
100000                          | 100001
1/3                             | 0.3333
1/3                             | 0.33333334
1/3                             | -0.33333333
\sqrt2                          | 1.414
\sqrt2                          | 1.41421357
0.3333                          | 1/3
3.14                            | \pi
.5                              | 50
0.5                             | 50%
50%                             | 0.5%
50%                             | 5000
32349                           | 32, 349
1234                            | 12,34
12                              | 1 2
73/4                            | 7 3/4
(0,9)                           | [0,9)
[1,2]                           | (1,2)
x>5                             | x<5
x>5                             | x \ge 5
x>5                             | y>5
(1,2)                           | (2,1)
\{1,2\}                         | (1,2)
1, 2                            | 1, 2, 3
1, 2, 3                         | 1, 2
\{1,2\}                         | \{1,2,3\}
7=11a+c                         | 11a+c
x=5                             | y=5
x=5                             | x=6
x+y=3                           | x+y=4
x^2-1                           | x^2+1
x                               | X
|x|                             | x
1-1/e                           | 1+1/e
2i                              | -2i
\log 2                          | \ln 2
12:00                           | 1:00
2:4                             | 1:2
\sqrt2                          | \approx 1.414
10 cm                           | 10 m
10\text{ cm}                    | 10\text{ cm}^2
18                              | 18 thousand
18                              | 18 squared
\text{Monday}                   | Tuesday
A                               | B
no                              | on
1101_2                          | 1101_3
\infty                          | -\infty
\begin{pmatrix}1&2\end{pmatrix} | \begin{pmatrix}1\\2\end{pmatrix}
\begin{vmatrix}1&2\\3&4\end{vmatrix} | \begin{pmatrix}1&2\\3&4\end{pmatrix}
9**9**9                         | 9**9**8
(x, y) = (1, 2)                 | (2, 1)
x < 1 \text{ or } x > 2         | (-\infty,1]\cup(2,\infty)
(0,1) \cup [2,3]                | (0,1), [2,3)
1/0                             | 0/0
5                               | \boxed{5
5                               | 1, 2, 3, 4, 5, 6
"""


def table(text):
    return [tuple(map(str.strip, line.rsplit(" | ", 1))) for line in text.strip().splitlines()]


@pytest.fixture(scope="module")
def grader():
    with Grader() as opened:
        yield opened


@pytest.mark.parametrize(("gold", "prediction"), table(SAME))
def test_another_spelling_of_the_answer_is_right(grader, gold, prediction):
    assert grader.grade(gold, prediction).correct


@pytest.mark.parametrize(("gold", "prediction"), table(DIFFERENT))
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


def test_a_comparison_that_takes_too_long_is_wrong_counted_and_leaves_the_grader_working():
    with Grader(timeout_s=1.0) as impatient:
        assert not impatient.grade("x+1", "e^{e^{e^{e^{e}}}}").correct
        assert impatient.n_timeouts == 1
        assert impatient.grade("x^2-1", "(x-1)(x+1)").correct


ALPHABET = r"""
\frac \sqrt \boxed \text \left \right \begin{pmatrix} \end{pmatrix} { } ( ) [ ] \{ \} , ; | &
\\ + - * / ^ _ ! = < > \le \cup \pm \infty \pi x y e i 0 1 2 3.5 1/2 12 % \% $ . ° cm or and
#### answer ```output 9**9
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
