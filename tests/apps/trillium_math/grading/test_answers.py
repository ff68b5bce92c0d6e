"""Ratios and times, sets of one, vectors, names of a value, and bounds that make an interval."""

import pytest
from trillium_math.grading.answers import parse_answer
from trillium_math.grading.kinds import Sequence

from .spellings import pairs

SAME = r"""
9:45                      | 09:45
12:30                     | 12 : 30
3:10                      | 3/10
3/10                      | 3:10
3:2                       | 1.5
x:y                       | x/y
100:75                    | 4/3
\{5\}                     | 5
5                         | \{5\}
\{(1,2)\}                 | (1,2)
(1,2)                     | \begin{pmatrix}1\\2\end{pmatrix}
\begin{pmatrix}1&2\end{pmatrix} | (1,2)
\begin{pmatrix}1\\2\end{pmatrix} | [[1],[2]]
[[1,2],[3,4]]             | \begin{pmatrix}1&2\\3&4\end{pmatrix}
\left[\begin{matrix}1&2\end{matrix}\right] | \begin{bmatrix}1&2\end{bmatrix}
AB=5                      | 5
AB=5                      | BA=5
f^{-1}(x)=x/2             | x/2
\angle ABC=30^\circ       | 30
30                        | m\angle A = 30^\circ
\text{Area}=5             | 5
5                         | total cost = 5
1<2x<3                    | 1/2<x<3/2
2<x+1<4                   | 1<x<3
-2<x<3                    | x<3 and x>-2
[-2,3)                    | x\ge-2 \text{ and } x<3
(1,3)                     | x>1 \land x<3
x>1 and y<2               | y<2, x>1
x>1 and x<3               | x>1, x<3
1<x<3                     | x<3, x>1
(-\infty,-1)\cup(1,\infty) | x>1, x<-1
"""
DIFFERENT = r"""
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \{(1,2),(3,4)\}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | (1,2),(3,4)
\begin{pmatrix}1&2\\3&4\end{pmatrix} | ([1,2),[3,4))
5                         | notequal = 5
5                         | Wrong = 5
12:30                     | 0.4
12:30                     | 2/5
10:30                     | 1/3
9:45                      | 1/5
6:15                      | 2/5
9:05                      | 9/5
9:05                      | 9:5
0.3                       | 3:10
\{5\}                     | 6
\{x\}                     | x
(1,2)                     | \begin{pmatrix}2\\1\end{pmatrix}
\begin{pmatrix}1\\2\end{pmatrix} | [[1,2]]
\begin{pmatrix}1&2\\3&4\end{pmatrix} | (1,2,3,4)
\begin{vmatrix}1\\2\end{vmatrix} | (1,2)
1<x<2                     | \begin{pmatrix}1\\2\end{pmatrix}
AB=5                      | CD=5
xy=5                      | 5
\angle A = 30             | \angle B = 30
\text{Area}=5             | \text{Perimeter}=5
5                         | total > 5
1<2x<3                    | 1/2<x<2
1<2x<3                    | 1/2<x\le3/2
-1<-x<2                   | -2<x<2
(-\infty,2)\cup(3,\infty) | x<2 and x>3
(-2,3)                    | x>-2 or x<3
(-\infty,-1)\cup(1,\infty) | x>-1, x<1
A^{-1}B=5                 | 5
x>9^{9^9}, x<5            | x>1, x<5
"""


@pytest.mark.parametrize(("gold", "prediction"), pairs(SAME))
def test_another_form_of_the_answer_is_right(grader, gold, prediction):
    assert grader.grade(gold, prediction).correct


@pytest.mark.parametrize(("gold", "prediction"), pairs(DIFFERENT))
def test_a_form_that_states_something_else_is_wrong(grader, gold, prediction):
    assert not grader.grade(gold, prediction).correct
    assert not grader.grade(prediction, gold).correct


@pytest.mark.parametrize(("text", "kind"), [("12:30", "h:m"), ("3:2", "::"), ("12:75", "::")])
def test_two_digits_up_to_59_behind_the_colon_may_be_minutes(text, kind):
    answer = parse_answer(text).answer
    assert isinstance(answer, Sequence)
    assert answer.kind == kind
