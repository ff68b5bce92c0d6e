"""What behind a number is a unit, and which units differ."""

import pytest
from trillium_math.grading.units import name_unit

from .spellings import pairs

SAME = r"""
6 m/s             | 6
6                 | 6 m/s
6 m/s             | 6 meters per second
6 m/s             | 6 \text{ m/s}
6 m/s             | 6 \frac{m}{s}
9.8 m/s^2         | 9.8
9.8               | 9.8\, \mathrm{m/s^2}
9.8 m/s^2         | 9.8 \mathrm{m/s}^2
5                 | 5 g/mL
5 g/cm^3          | 5\,\mathrm{g/cm^3}
5                 | 5 L/min
6 N               | 6
5                 | 5 J
5                 | 5 W
5 N               | 5 newtons
3 \text{ N}       | 3 N
5                 | 5 N m
5                 | 5 Hz
5 Hz              | 5 hertz
5                 | 5 kWh
60 mph            | 60 miles per hour
60 km/h           | 60 kilometers per hour
60 miles          | 60 miles per hour
\$5 per hour      | 5 dollars per hour
\$5 per hour      | 5 dollars
5 per cent        | 5%
5 ms              | 5
10 north          | 10
10 miles north    | 10 miles
10 apples left    | 10 apples remaining
90 anticlockwise  | 90 counterclockwise
90 clockwise      | 90 degrees clockwise
7                 | 7 true statements
12                | 12 fifth graders
9                 | 9 nonzero digits
5                 | 5 cookies each
"""
DIFFERENT = r"""
3                         | 3 L / N
4                         | 4 V / A
6 m/s             | 7 m/s
6 m/s             | 6 km/h
60 miles          | 60 km/h
60 mph            | 60 km/h
9.8 m/s^2         | 9.8 m/s
5 g/cm^3          | 5 g/cm^2
5 N               | 5 J
10 V              | 10 A
5 kHz             | 5 Hz
5 kWh             | 5 kW
5N                | 5
6m/s              | 6
5                 | 5 x
5                 | 5 n
5                 | 5 m/x
x m/s             | x
5 m               | 5 ms
12 L/min          | 12 L/h
5 pages per hour  | 5 pages per minute
\$5 per hour      | 5 cents per hour
5                 | 5 below zero
5                 | 5 below par
3                 | 3 above average
3                 | 3 fewer apples
4                 | 4 epsilon
4                 | 4 kappa
10                | 10 too many
7                 | 7 unless
7                 | 7 false
12                | 12 base eight
8                 | 8 nearly
10 north          | 10 south
10 miles north    | 10 miles south
10 steps left     | 10 steps right
5 dollars profit  | 5 dollars loss
\$5 profit        | 5 loss
90 clockwise      | 90 counterclockwise
"""


@pytest.mark.parametrize(("gold", "prediction"), pairs(SAME))
def test_a_unit_is_left_out_or_spelled_in_another_way(grader, gold, prediction):
    assert grader.grade(gold, prediction).correct


@pytest.mark.parametrize(("gold", "prediction"), pairs(DIFFERENT))
def test_another_unit_or_a_word_that_changes_the_value_differs(grader, gold, prediction):
    assert not grader.grade(gold, prediction).correct
    assert not grader.grade(prediction, gold).correct


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Meters per Second", "m/s"),
        ("square centimeters", "cm2"),
        ("m/s^2", "m/s2"),
        ("per hour", "/h"),
        ("red apples", "?"),
        ("pages/hr", "?/h"),
        ("miles north", "mi@north"),
        ("degrees Celsius", "degree C"),
        ("N m", "?"),
        ("m/s/s", "?"),
    ],
)
def test_a_unit_has_one_name(text, name):
    assert name_unit(text) == name
