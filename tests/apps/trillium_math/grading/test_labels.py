"""A label is a word of letters that would read as a product, which has its letters in any order."""

import pytest

from .spellings import pairs

SAME = r"""
ABC               | A B C
ABC               | \text{ABC}
A-C-B             | A - C - B
ABC, BCA          | BCA, ABC
A1                | a1
1B                | 1 B
Tom               | tom
tom               | Tom
Sat               | SAT
(A)               | A
xyz               | zyx
2ab               | 2ba
2AB               | 2BA
AB                | B \cdot A
AB+C              | C+BA
\frac{AB}{2}      | BA/2
PV=nRT            | VP=RTn
1x+2              | x+2
2A                | A+A
n2^{n-1}          | n\cdot 2^{n-1}
x2^x              | 2^x x
"""
DIFFERENT = r"""
BCA               | ABC
CAB               | ABC
VI                | IV
AB                | BA
A-B-C             | A-C-B
ABC, BCA          | ABC, CAB
\text{ABC}        | BCA
A1                | A
A1                | 1A
B2                | 2B
e4                | 4e
a1                | a
Q1                | Q
1A                | A
H2O               | 2HO
5C2               | 10C
x2                | 2x
x2+1              | 2x+1
Tom               | Tim
Mgh               | mgh
Q                 | q
May               | Yam
"""


@pytest.mark.parametrize(("gold", "prediction"), pairs(SAME))
def test_a_label_has_one_order_and_a_product_any(grader, gold, prediction):
    assert grader.grade(gold, prediction).correct


@pytest.mark.parametrize(("gold", "prediction"), pairs(DIFFERENT))
def test_another_order_or_a_digit_makes_another_label(grader, gold, prediction):
    assert not grader.grade(gold, prediction).correct
    assert not grader.grade(prediction, gold).correct
