"""Percent signs of lists, and marks and letters that say nothing of the value."""

import pytest
from trillium_math.grading.cleaning import Cleaned, clean

from .spellings import pairs

SAME = r"""
10%, 20%                  | 20%, 10%
10%,20%                   | 10\%, 20\%
10\%,20\%                 | 10,20
10, 20                    | 10%, 20%
10%, 20%                  | 0.1, 0.2
12.5%, 50%                | 1/8, 1/2
(10%, 20%)                | (10\%, 20\%)
(10%, 20%)                | (10, 20)
\{5\%, 6\%\}              | 6%, 5%
10%, 20%, and 30%         | 30%, 10%, 20%
10\% \text{ and } 20\%    | 10 percent and 20 per cent
x=10%, y=20%              | x=10, y=20
7                         | **7**
7                         | `7`
7                         | "7"
7                         | “7”
\sin\theta                | \sin θ
\lambda                   | λ
1/3                       | 0.\bar{3}
1/3                       | 0.\bar3
-1/3                      | -.\overline{3}
(3,4)                     | \langle 3, 4 \rangle
\langle 3,4\rangle        | <3,4>
"""
DIFFERENT = r"""
10%, 20%                  | 20%, 30%
(10%, 20%)                | (20%, 10%)
10%, 20%, and 30%         | 30%, 10%
0.1, 0.2                  | 10%, 20%
1/2, 1/4                  | 50%, 25%
100%,200%                 | 100200
x=10%, y=20%              | x=20, y=10
7                         | **8**
\alpha                    | β
\Delta                    | δ
2/3                       | .\bar{3}
(3,4)                     | <4,3>
"""


@pytest.mark.parametrize(("gold", "prediction"), pairs(SAME))
def test_signs_and_marks_of_the_same_answer_are_right(grader, gold, prediction):
    assert grader.grade(gold, prediction).correct


@pytest.mark.parametrize(("gold", "prediction"), pairs(DIFFERENT))
def test_another_answer_with_the_same_signs_is_wrong(grader, gold, prediction):
    assert not grader.grade(gold, prediction).correct


def test_a_list_is_a_list_of_percentages_when_every_item_is_one():
    assert clean("(10%, 20 \\%)") == Cleaned("(10 , 20 )", is_percent=True)
    assert clean("10%, 20") == Cleaned("10%, 20")
    assert clean("1,000%") == Cleaned("1000", is_percent=True)
