"""Linear equations in one and two unknowns, plain and in words."""

import random
from fractions import Fraction

from trillium_math.problems.problem import Draft, Family

FAMILY = Family("linear_equations")


def _signed(number: int) -> str:
    return f"+ {number}" if number >= 0 else f"- {-number}"


def _plus(number: int) -> str:
    return f"({number})" if number < 0 else str(number)


@FAMILY.template()
def one_step_each_side(rng: random.Random, difficulty: int) -> Draft:
    """Ask for x in a x + b = c."""
    a, x = rng.randint(2, 4 + 3 * difficulty), rng.randint(-5 * difficulty, 9 * difficulty)
    b = rng.randint(1, 10 * difficulty)
    c = a * x + b
    return Draft(
        f"Solve {a}x + {b} = {c} for x.",
        str(x),
        (f"{a}x = {c} - {b} = {c - b}.", f"x = {c - b} / {a} = {x}."),
        f"print(({c} - {b}) // {a})",
    )


@FAMILY.template()
def unknown_on_both_sides(rng: random.Random, difficulty: int) -> Draft:
    """Ask for x in a x + b = c x + d."""
    c, gap = rng.randint(2, 3 + 2 * difficulty), rng.randint(2, 3 + difficulty)
    a, x = c + gap, rng.randint(-4 * difficulty, 8 * difficulty)
    b = rng.randint(1, 9 * difficulty)
    d = (a - c) * x + b
    return Draft(
        f"Find x if {a}x + {b} = {c}x {_signed(d)}.",
        str(x),
        (
            f"Collect x on one side: {a} - {c} = {gap}, so {gap}x = {d} - {b} = {d - b}.",
            f"x = {d - b} / {gap} = {x}.",
        ),
        f"print(({d} - {b}) // ({a} - {c}))",
    )


@FAMILY.template()
def fraction_solution(rng: random.Random, difficulty: int) -> Draft:
    """Ask for an x that is a fraction."""
    a, b = rng.randint(2, 5 + 2 * difficulty), rng.randint(1, 9 * difficulty)
    c = b + rng.randint(1, 9 * difficulty)
    x = Fraction(c - b, a)
    return Draft(
        f"What number x satisfies {a}x + {b} = {c}? Give a reduced fraction if it is not whole.",
        str(x),
        (f"{a}x = {c} - {b} = {c - b}.", f"x = {c - b}/{a} = {x}."),
        f"from fractions import Fraction\nprint(Fraction({c} - {b}, {a}))",
    )


@FAMILY.template()
def bracketed(rng: random.Random, difficulty: int) -> Draft:
    """Ask for x in a (x + b) = c."""
    a, b = rng.randint(2, 4 + 2 * difficulty), rng.randint(1, 6 * difficulty)
    x = rng.randint(-4 * difficulty, 9 * difficulty)
    c = a * (x + b)
    return Draft(
        f"Solve the equation {a}(x + {b}) = {c}.",
        str(x),
        (f"x + {b} = {c} / {a} = {c // a}.", f"x = {c // a} - {b} = {x}."),
        f"print({c} // {a} - {b})",
    )


@FAMILY.template()
def with_a_difference(rng: random.Random, difficulty: int) -> Draft:
    """Ask for x in a x - b = c."""
    a, x = rng.randint(2, 4 + 3 * difficulty), rng.randint(1, 9 * difficulty)
    b = rng.randint(1, 10 * difficulty)
    c = a * x - b
    ask = rng.choice(("Solve", "Find x when", "What is x if"))
    mark = "?" if ask.startswith("What") else "."
    return Draft(
        f"{ask} {a}x - {b} = {c}{mark}",
        str(x),
        (f"{a}x = {c} + {b} = {c + b}.", f"x = {c + b} / {a} = {x}."),
        f"print(({c} + {b}) // {a})",
    )


@FAMILY.template()
def sum_and_difference(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the larger of two numbers of which sum and difference are known."""
    small, gap = rng.randint(1, 9 * difficulty), rng.randint(1, 9 * difficulty)
    large = small + gap
    total = small + large
    return Draft(
        f"The sum of two numbers is {total} and their difference is {gap}. What is the larger "
        "number?",
        str(large),
        (
            f"Sum and difference together are twice the larger number: {total} + {gap} = "
            f"{total + gap}.",
            f"{total + gap} / 2 = {large}.",
        ),
        f"print(({total} + {gap}) // 2)",
    )


@FAMILY.template(practice=True)
def divided_number(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a number of which a part and more is known."""
    a, part = rng.randint(2, 3 + 2 * difficulty), rng.randint(2, 8 * difficulty)
    b = rng.randint(1, 9 * difficulty)
    c = part + b
    return Draft(
        f"A number is divided by {a}, and {b} is added to the result. That gives {c}. What is the "
        "number?",
        str(part * a),
        (f"Before adding it was {c} - {b} = {part}.", f"{part} * {a} = {part * a}."),
        f"print(({c} - {b}) * {a})",
    )


@FAMILY.template(practice=True)
def three_in_a_row(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the smallest of three consecutive numbers with a given sum."""
    x = rng.randint(1, 12 * difficulty)
    total = 3 * x + 3
    return Draft(
        f"The sum of three consecutive whole numbers is {total}. What is the smallest of them?",
        str(x),
        (f"The middle one is {total} / 3 = {x + 1}.", f"{x + 1} - 1 = {x}."),
        f"print({total} // 3 - 1)",
    )


@FAMILY.template(held_out=True)
def number_riddle(rng: random.Random, difficulty: int) -> Draft:
    """Ask for a number described in words."""
    a, b = rng.randint(2, 4 + difficulty), rng.randint(2, 8 * difficulty)
    x = rng.randint(2, 10 * difficulty)
    c = a * x - b
    return Draft(
        f"I think of a number, multiply it by {a} and subtract {b}. The result is {c}. What is my "
        "number?",
        str(x),
        (f"Before subtracting it was {c} + {b} = {c + b}.", f"{c + b} / {a} = {x}."),
        f"print(({c} + {b}) // {a})",
    )


@FAMILY.template(held_out=True)
def two_unknowns(rng: random.Random, difficulty: int) -> Draft:
    """Ask for the pair (x, y) of a system given by sum and weighted difference."""
    x, y = rng.randint(-3 * difficulty, 9 * difficulty), rng.randint(1, 9 * difficulty)
    a = rng.randint(2, 3 + difficulty)
    total, mixed = x + y, a * x - y
    return Draft(
        f"Solve the system x + y = {total}, {a}x - y = {mixed}. Give the answer as the pair "
        "(x, y).",
        f"({x}, {y})",
        (
            f"Adding both equations: {a + 1}x = {_plus(total)} + {_plus(mixed)} = {total + mixed}.",
            f"x = {total + mixed} / {a + 1} = {x}.",
            f"y = {total} - {_plus(x)} = {y}.",
            f"The pair is ({x}, {y}).",
        ),
        f"x = ({total} + {mixed}) // ({a} + 1)\nprint((x, {total} - x))",
    )
