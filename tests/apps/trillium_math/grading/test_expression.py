r"""Formulas with bars, degrees and `\over`, as what they are worth."""

import pytest
from trillium_math.grading.expression import parse_formula
from trillium_math.grading.tokens import NotAFormula

from .spellings import pairs

SAME = r"""
2|x|                      | |2x|
x|x|                      | |x|x
|x||y|                    | |xy|
3|x-1|+2                  | 2+|3x-3|
-2|x|                     | -|2x|
||x|-1|                   | |1-|x||
|x-1||x+1|                | |x^2-1|
\frac{1}{2}|x|            | \frac{|x|}{2}
|2(|x|+1)|                | 2(|x|+1)
2\left|x-3\right|         | |2x-6|
2^{|x|}                   | 2^{|-x|}
5|-3|                     | 15
\sin 30^\circ             | 1/2
1/2                       | \sin(30^{\circ})
\cos^2 45^\circ           | 1/2
\tan 45^\circ             | 1
10\sin 30°                | 5
\cot 45\degree            | 1
2\cos 36^\circ            | 1.61803399
sin(30 degrees)           | \sin 30 \text{ degrees}
\sin 30^\circ\cos 60^\circ | 1/4
8\sin 50^\circ            | 8\cos 40^\circ
\sin 15^\circ             | \frac{\sqrt6-\sqrt2}{4}
\sin\frac{\pi}{6}         | \sin 30^\circ
\theta=45^\circ           | 45
(3, 90^\circ)             | (3, 90)
1/2                       | {1 \over 2}
\frac{\sqrt3}{2}          | {\sqrt{3} \over 2}
\frac{x+1}{2}             | x+1 \over 2
10                        | {5 \choose 2}
1+\frac12                 | 1+{1\over2}
(0,\infty)                | (0, oo)
"""
DIFFERENT = r"""
2|x|                      | 2x
|x||y|                    | |x+y|
-2|x|                     | |-2x|
a|b|c                     | abc
P(A|B)                    | P(B|A)
2|x                       | 2x
\sin 30^\circ             | -0.98803162
\sin 20^\circ             | \sin 20
\sin x^\circ              | \sin x
\sin 30 degrees           | \sin 30
8\sin 50^\circ            | 8\cos 50^\circ
\tan 20^\circ             | 2.23716094
\arcsin(1/2)              | 30^\circ
1/2                       | {2 \over 1}
10                        | {5 \choose 1}
oo                        | -oo
"""


@pytest.mark.parametrize(("gold", "prediction"), pairs(SAME))
def test_another_notation_of_the_value_is_right(grader, gold, prediction):
    assert grader.grade(gold, prediction).correct


@pytest.mark.parametrize(("gold", "prediction"), pairs(DIFFERENT))
def test_another_value_is_wrong(grader, gold, prediction):
    assert not grader.grade(gold, prediction).correct


def test_a_bar_behind_an_open_bar_closes_it():
    x, one = ("sym", "x"), ("num", "1", 0)
    inner = ("add", ("func", "abs", x), ("neg", one))
    assert parse_formula("||x|-1|") == ("func", "abs", inner)
    assert parse_formula("1|x|") == ("mul", one, ("func", "abs", x))
    with pytest.raises(NotAFormula):
        parse_formula("|1|x||")


def test_degrees_turn_into_radians_as_an_argument_only():
    radians = ("div", ("mul", ("num", "30", 0), ("const", "pi")), ("num", "180", 0))
    assert parse_formula(r"\sin 30^\circ") == ("func", "sin", radians)
    assert parse_formula(r"\arcsin x + 30^\circ")[2] == ("num", "30", 0)


def test_a_number_behind_a_letter_is_a_factor_only_as_a_base():
    power = ("pow", ("num", "2", 0), ("sym", "n"))
    assert parse_formula("n2^n") == ("mul", ("sym", "n"), power)
    for text in ("n2", "A1", "x2y"):
        with pytest.raises(NotAFormula):
            parse_formula(text)
