"""What names, units, multiples and percent signs beside numbers mean; the reference is first."""

import pytest
from trillium_math.grading import Grader

SAME = r"""
(1,2)                           | x=1, y=2
(1,2)                           | y=2, x=1
(3,4)                           | b = 4 and a = 3
(1,2)                           | (y=2, x=1)
(1,2,3)                         | z=3, y=2, x=1
y=2, x=1                        | (1,2)
x=1, y=2                        | y=2, x=1
x=1, y=2                        | 1, 2
1, 2                            | y=2, x=1
x_2=1, x_1=2                    | (2,1)
1, 2                            | x_1=2, x_2=1
x_1=1, x_2=2                    | \{2,1\}
\{1,2\}                         | x=2, y=1
0.3                             | 3 tenths
3/100                           | 3 \text{ hundredths}
70                              | 7 tens
2000000                         | 2 millions
5 thousand                      | 5 thousands
36                              | 3 dozens
12                              | 12 fifth graders
15                              | 15 secs
50                              | 50%
12.5                            | 12.5%
50.0                            | 50 percent
0.5\%                           | 0.005
x > a                           | (a, \infty)
x > a                           | a < x
x \le a                         | (-\infty, a]
a < x < b                       | (a, b)
x > 2a                          | x \in (2a, \infty)
x > 2a                          | x/2 > a
10 m                            | 10
10 m                            | 10 meters
10                              | 10 m
3 L                             | 3 liters
3 L                             | 3 l
12 s                            | 12 \text{ seconds}
\frac{1}{2} h                   | 0.5 hours
10 m^2                          | 10 square meters
2 m                             | 2m
1.5 \times 10^{-3} g            | 0.0015
1500                            | 1.5 x 10^3
1.5X10^{-3}                     | 0.0015
"""
DIFFERENT = r"""
(1,2)                           | y=1, x=2
(3,4)                           | b = 3, a = 4
(1,2)                           | (y=1, x=2)
(1,2)                           | x_2=1, x_1=2
x=1, y=2                        | 2, 1
x=1, y=2                        | (2, 1)
x=1, y=2                        | \{1,2\}
x=1, y=2                        | x=2, y=1
a=3, b=4                        | 4 and 3
1, 2                            | x=2, y=1
[1,2]                           | x=1, y=2
x=1, y=2                        | 1, 2, 3
3                               | 3 tenths
3                               | 3 \text{ hundredths}
3                               | 3 fifths
1                               | 1 tenth
7                               | 7 tens
2                               | 2 millions
5                               | 5 thousands
3                               | 3 dozens
0.5                             | 0.5%
1/100                           | 1/100%
0.01                            | 0.01 percent
x                               | x%
x > a                           | (-\infty, a)
x > a                           | (-\infty, x)
x > a                           | a > x
x > a                           | y > a
x > x                           | (x, \infty)
a < x < b                       | a < y < b
10 m                            | 10 cm
10 m                            | 10 g
10 m                            | 11
10 m                            | 10%
10 m                            | 10 square meters
5 - 2 m                         | 3
10 x                            | 10
10m                             | 10
10 m                            | m
1500                            | 1.5 x 10^4
6                               | 2 x 3
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


HOSTILE = [
    "9**9**9 m",
    "1 " * 990 + "m",
    "(" * 1990 + "1) m",
    "1" + " " * 1990 + "x 10",
    "9**9**9%",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("gold", ["7", "7 m", "x=1, y=7", "a < x"])
def test_hostile_texts_ask_no_algebra(grader, gold, text):
    before = grader.n_timeouts
    assert not grader.grade(gold, text).correct
    assert not grader.grade(text, gold).correct
    assert grader.n_timeouts == before
